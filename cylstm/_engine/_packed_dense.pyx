"""The dense layer on packed weights, on the thread pool."""
from cylstm._engine.planning import Arena

from cylstm._engine._kernels cimport kernels_of
from cylstm._engine._packed cimport address, run_team, take_team

cdef extern from "cylstm/dense.h" nogil:
    enum:
        CYL_MAX_PARTS
    double CYL_MIN_FLOP
    ctypedef struct cyl_barrier_slot:
        unsigned count
    ctypedef void (*cyl_dense_function_f32)(
        float *, const float *, const float *, const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t) noexcept
    ctypedef void (*cyl_dense_function_f64)(
        double *, const double *, const double *, const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept
    ctypedef void (*cyl_dense_back_function)(
        const cyl_dense_gradients *, int, int, cyl_barrier_slot *) noexcept
    int cyl_dense_parts(const cyl_dense_gradients *, int, Py_ssize_t, Py_ssize_t)
    Py_ssize_t cyl_dense_strips(Py_ssize_t, Py_ssize_t, size_t)
    Py_ssize_t cyl_panel(int isa, size_t size)
    Py_ssize_t cyl_tile(int isa)

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct cyl_kernels:
        const cyl_dense_function_f32 *dense_f32
        const cyl_dense_function_f64 *dense_f64
        const cyl_dense_back_function *dense_back_f32
        const cyl_dense_back_function *dense_back_f64


cdef struct Back:
    const cyl_dense_gradients *gradients
    cyl_dense_back_function function
    int count
    cyl_barrier_slot barrier_slots[CYL_MAX_PARTS]


cdef class PackedDense:
    """y (N,O) <- x (N,I) W^T + b, and back, checked once and run many times.

    Parameters
    ----------
    y, x : ndarray
        (N, O), (N, I), both float32 or float64.
    w : ndarray
        W in panels, as `_packed.pack_rows` makes them.
    b : ndarray
        (O,), or empty: no bias.
    isa : int
    gradients : dict, optional
        For the backward pass: `w_t`, W in panels as `_packed.pack_columns` makes them; `dw` (O, I) and, with
        a bias, `db` (O,), which are added to.
    """

    def __init__(self, y, x, w, b, int isa, dict gradients=None):
        cdef Dense *d = &self.dense
        cdef bint double_precision = y.dtype.itemsize == 8
        d.isa, d.double_precision, self.arrays = isa, double_precision, (y, x, w, b, gradients)
        (d.rows, d.outputs), d.inputs = y.shape, x.shape[1]
        d.ldx = d.inputs
        d.y = address("y", y, (d.rows, d.outputs), double_precision, True)
        d.x = address("x", x, (d.rows, d.inputs), double_precision, gradients is not None)
        d.w = address("w", w, (self.padded(d.outputs) * d.inputs,), double_precision, False)
        d.b = address("b", b, (d.outputs,), double_precision, False) if b.size else NULL
        if gradients is not None:
            self.bind_gradients(gradients)

    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept:
        """Return the number of columns padded to whole panels."""
        cdef Py_ssize_t unit = cyl_panel(self.dense.isa, 8 if self.dense.double_precision else 4)
        return (columns + unit - 1) // unit * unit

    cdef int bind_gradients(self, dict arrays) except -1:
        """Store the addresses of additional backward buffers."""
        cdef Dense *d = &self.dense
        cdef cyl_dense_gradients *g = &self.gradients
        cdef bint wide = d.double_precision
        g.rows, g.inputs, g.outputs, g.x, g.dx, g.dy = d.rows, d.inputs, d.outputs, d.x, <void *>d.x, d.y
        g.w_t = address("w_t", arrays["w_t"], (self.padded(d.inputs) * d.outputs,), wide, False)
        if d.b != NULL:
            g.db = address("db", arrays["db"], (d.outputs,), wide, True)
        g.dw = address("dw", arrays["dw"], (d.outputs, d.inputs), wide, True)
        return 0

    def forward(self, int threads=1):
        """Fill y."""
        with nogil:
            run_dense(&self.dense, threads)

    def backward(self, bint need_dx=True, int threads=1):
        """Add to dw and db given dL/dy in y; if needed, overwrite x with dL/dx."""
        cdef cyl_dense_gradients g = self.gradients
        if g.dw == NULL:
            raise ValueError("backward: this pass was planned for inference")
        if not need_dx:
            g.dx = NULL
        cdef int isa = self.dense.isa
        cdef size_t size = 8 if self.dense.double_precision else 4
        threads = cyl_dense_parts(&g, threads, cyl_panel(isa, size), cyl_tile(isa))
        cdef Py_ssize_t n = threads * cyl_dense_strips(g.outputs, cyl_tile(isa), size)
        if self.strips is None or self.strips.size < n:
            self.strips = Arena().cut({"strips": (n,)}, self.arrays[0].dtype)["strips"]
        g.strips = address("strips", self.strips, (self.strips.size,), self.dense.double_precision, True)
        with nogil:
            run_back(&g, isa, self.dense.double_precision, threads)


cdef void run_dense(Dense *d, int threads) noexcept nogil:
    d.count = take_team(threads) if 2.0 * d.rows * d.inputs * d.outputs >= CYL_MIN_FLOP else 1
    if d.count == 1:
        run_part(d, 0)
    else:
        run_team(run_part, d, d.count)


cdef void run_part(void *argument, int index) noexcept nogil:
    """Run a part of a call: rows if there are many, else columns."""
    cdef Dense *d = <Dense *>argument
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(d.isa)
    cdef Py_ssize_t unit = cyl_panel(d.isa, 8 if d.double_precision else 4)
    cdef Py_ssize_t panels = (d.outputs + unit - 1) // unit
    cdef Py_ssize_t row = 0, end = d.rows, first = 0, last = d.outputs
    if d.rows >= 16 * d.count:
        row, end = d.rows * index // d.count, d.rows * (index + 1) // d.count
    else:
        first = panels * index // d.count * unit
        last = min(panels * (index + 1) // d.count * unit, d.outputs)
    if d.double_precision:
        kernels.dense_f64[d.isa](
            <double *>d.y + row * d.outputs, <const double *>d.x + row * d.ldx, <const double *>d.w,
            <const double *>d.b, end - row, d.inputs, d.outputs, d.ldx, first, last)
    else:
        kernels.dense_f32[d.isa](
            <float *>d.y + row * d.outputs, <const float *>d.x + row * d.ldx, <const float *>d.w,
            <const float *>d.b, end - row, d.inputs, d.outputs, d.ldx, first, last)


cdef void run_back(const cyl_dense_gradients *g, int isa, bint double_precision, int threads) noexcept nogil:
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(isa)
    cdef Back back
    cdef int k
    back.gradients = g
    back.function = kernels.dense_back_f64[isa] if double_precision else kernels.dense_back_f32[isa]
    back.count = take_team(threads)
    if back.count == 1:
        back.function(g, 0, 1, NULL)
        return
    for k in range(back.count):
        back.barrier_slots[k].count = 0
    run_team(run_back_part, &back, back.count)


cdef void run_back_part(void *argument, int index) noexcept nogil:
    cdef Back *back = <Back *>argument
    back.function(back.gradients, index, back.count, back.barrier_slots)
