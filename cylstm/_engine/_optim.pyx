"""Loops over the flat parameter and gradient vectors, or over the spans of them in use.

spans (n, 2) say where each begins and ends.
"""
from cylstm._engine._blas cimport real
from cylstm._engine._kernels cimport kernels_of


cdef extern from "cylstm/optimizers.h" nogil:
    enum:
        CYL_COEFFICIENTS
    int cyl_detect_isa()
    ctypedef void (*cyl_optimizer_f32)(
        float *, const float *, float *, float *, Py_ssize_t, const double *) noexcept nogil
    ctypedef void (*cyl_optimizer_f64)(
        double *, const double *, double *, double *, Py_ssize_t, const double *) noexcept nogil

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct cyl_kernels:
        const cyl_optimizer_f32 (*optimizers_f32)[3]
        const cyl_optimizer_f64 (*optimizers_f64)[3]

OPTIMIZERS = ("sgd", "rmsprop", "adam")  # in the order of cyl_optimizer
COEFFICIENTS = CYL_COEFFICIENTS


cdef int check_spans(const Py_ssize_t[:, ::1] spans, Py_ssize_t size) except -1:
    cdef Py_ssize_t k
    if spans.shape[1] != 2:
        raise ValueError("spans: expected (n, 2)")
    for k in range(spans.shape[0]):
        if not 0 <= spans[k, 0] <= spans[k, 1] <= size:
            raise ValueError(f"spans: expected parts of {size} numbers, got {spans[k, 0]} to {spans[k, 1]}")
    return 0


def update(str optimizer, real[::1] p, const real[::1] g, real[::1] m, real[::1] v,
           const Py_ssize_t[:, ::1] spans, const double[:, ::1] coefficients, int isa):
    """One step on each span with its own coefficients (n, COEFFICIENTS); m and v may be empty."""
    cdef Py_ssize_t k, start, n, size = p.shape[0]
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(isa)
    cdef int which = OPTIMIZERS.index(optimizer)
    cdef real *means
    cdef real *squares
    check_spans(spans, size)
    if g.shape[0] != size or m.shape[0] not in (0, size) or v.shape[0] not in (0, size):
        raise ValueError(f"flat vectors: expected {size} numbers, got {g.shape[0]} and others")
    if (v.shape[0] == 0) != (which == 0) or (m.shape[0] == 0 and which == 2):
        raise ValueError(f"flat vectors: {optimizer} needs others of its state")
    if coefficients.shape[0] != spans.shape[0] or coefficients.shape[1] != CYL_COEFFICIENTS:
        raise ValueError(f"coefficients: expected ({spans.shape[0]}, {CYL_COEFFICIENTS})")
    if not 0 <= isa <= cyl_detect_isa():
        raise ValueError("isa: not available here")
    with nogil:
        for k in range(spans.shape[0]):
            start, n = spans[k, 0], spans[k, 1] - spans[k, 0]
            if n == 0:
                continue
            means = &m[start] if m.shape[0] else NULL
            squares = &v[start] if v.shape[0] else NULL
            if real is float:
                kernels.optimizers_f32[which][isa](
                    &p[start], &g[start], means, squares, n, &coefficients[k, 0]
                )
            else:
                kernels.optimizers_f64[which][isa](
                    &p[start], &g[start], means, squares, n, &coefficients[k, 0]
                )


def sum_of_squares(const real[::1] a, const Py_ssize_t[:, ::1] spans=None):
    """Sum of a^2 in float64, all of it without spans; eight running sums so that the loop pipelines."""
    cdef Py_ssize_t j, k, lane, start = 0, stop = a.shape[0], pieces = 1
    cdef double[8] sums = [0, 0, 0, 0, 0, 0, 0, 0]
    if spans is not None:
        check_spans(spans, a.shape[0])
        pieces = spans.shape[0]
    with nogil:
        for k in range(pieces):
            if spans is not None:
                start, stop = spans[k, 0], spans[k, 1]
            for j in range(start, stop - 7, 8):
                for lane in range(8):
                    sums[lane] += <double>a[j + lane] * a[j + lane]
            for j in range(stop - (stop - start) % 8, stop):
                sums[0] += <double>a[j] * a[j]
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


def scale(real[::1] a, const Py_ssize_t[:, ::1] spans, double factor):
    """a *= factor; exactly 0 for a factor of 0, also for infinity and NaN."""
    cdef Py_ssize_t j, k
    cdef real by = <real>factor
    check_spans(spans, a.shape[0])
    with nogil:
        for k in range(spans.shape[0]):
            for j in range(spans[k, 0], spans[k, 1]):
                a[j] = a[j] * by if by != 0 else 0


def clip(real[::1] a, const Py_ssize_t[:, ::1] spans, double bound):
    """Clip a to [-bound, bound]; NaN is preserved."""
    cdef Py_ssize_t j, k
    cdef real most = <real>bound
    check_spans(spans, a.shape[0])
    with nogil:
        for k in range(spans.shape[0]):
            for j in range(spans[k, 0], spans[k, 1]):
                if a[j] > most:
                    a[j] = most
                elif a[j] < -most:
                    a[j] = -most
