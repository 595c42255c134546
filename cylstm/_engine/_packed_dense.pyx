"""The dense layer on packed weights, over rows on the thread team."""
from cylstm._engine._packed cimport address, run_team, take_team

cdef extern from "cylstm/dense.h" nogil:
    ctypedef void (*cyl_dense_function_f32)(
        float *, const float *, const float *, const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept
    ctypedef void (*cyl_dense_function_f64)(
        double *, const double *, const double *, const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept
    const cyl_dense_function_f32 cyl_dense_f32[3]
    const cyl_dense_function_f64 cyl_dense_f64[3]

from cylstm._engine import _packed


cdef class PackedDense:
    """y (N,O) <- x (N,I) W^T + b, checked once and run many times.

    Parameters
    ----------
    y, x : ndarray
        (N, O), (N, I), both float32 or float64.
    w : ndarray
        W in panels, as `_packed.pack_rows` makes them.
    b : ndarray
        (O,), or empty: no bias.
    isa : int
    """

    def __init__(self, y, x, w, b, int isa):
        cdef Dense *d = &self.dense
        cdef bint double_precision = y.dtype.itemsize == 8
        d.isa, d.double_precision, self.arrays = isa, double_precision, (y, x, w, b)
        (d.rows, d.outputs), d.inputs = y.shape, x.shape[1]
        unit = _packed.panel(isa, y.dtype.itemsize)
        d.ldx = d.inputs
        d.y = address("y", y, (d.rows, d.outputs), double_precision, True)
        d.x = address("x", x, (d.rows, d.inputs), double_precision, False)
        d.w = address("w", w, (-(-d.outputs // unit) * unit * d.inputs,), double_precision, False)
        d.b = address("b", b, (d.outputs,), double_precision, False) if b.size else NULL

    def forward(self, int threads=1):
        """Fill y."""
        with nogil:
            run_dense(&self.dense, threads)


cdef void run_dense(Dense *d, int threads) noexcept nogil:
    # Below 3 MFLOP a second thread does not pay for being woken.
    d.count = take_team(threads) if 2.0 * d.rows * d.inputs * d.outputs >= 3e6 else 1
    if d.count == 1:
        run_part(d, 0)
    else:
        run_team(run_part, d, d.count)


cdef void run_part(void *argument, int index) noexcept nogil:
    """Part of a call: rows where there are many, else columns."""
    cdef Dense *d = <Dense *>argument
    cdef Py_ssize_t unit = (32 << d.isa) // (8 if d.double_precision else 4)
    cdef Py_ssize_t panels = (d.outputs + unit - 1) // unit
    cdef Py_ssize_t row = 0, end = d.rows, first = 0, last = d.outputs
    if d.rows >= 16 * d.count:
        row, end = d.rows * index // d.count, d.rows * (index + 1) // d.count
    else:
        first = panels * index // d.count * unit
        last = min(panels * (index + 1) // d.count * unit, d.outputs)
    if d.double_precision:
        cyl_dense_f64[d.isa](
            <double *>d.y + row * d.outputs, <const double *>d.x + row * d.ldx, <const double *>d.w,
            <const double *>d.b, end - row, d.inputs, d.outputs, d.ldx, first, last)
    else:
        cyl_dense_f32[d.isa](
            <float *>d.y + row * d.outputs, <const float *>d.x + row * d.ldx, <const float *>d.w,
            <const float *>d.b, end - row, d.inputs, d.outputs, d.ldx, first, last)
