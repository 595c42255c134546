"""Elementwise passes of the time loop over rows: masks, and zoneout (Krueger et al. 2017).

In zoneout a unit keeps its value of the step before where its mask is 1. Without a mask, in evaluation, it
takes the mean over masks, `share` being the probability of a 1.
"""
from cylstm._engine._blas cimport real


cdef void add(Py_ssize_t n, real *out, const real *a) noexcept nogil:
    """out += a."""
    cdef Py_ssize_t j
    for j in range(n):
        out[j] += a[j]


cdef void multiply(Py_ssize_t n, real *out, const real *a, const real *b) noexcept nogil:
    """out = a b; out may be a."""
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = a[j] * b[j]


cdef void multiply_add(Py_ssize_t n, real *out, const real *a, const real *b) noexcept nogil:
    """out += a b."""
    cdef Py_ssize_t j
    for j in range(n):
        out[j] += a[j] * b[j]


cdef void mix(Py_ssize_t n, real *out, const real *before, const real *mask, double share) noexcept nogil:
    """out = (1 - mask) out + mask before."""
    cdef Py_ssize_t j
    cdef real m = <real>share
    for j in range(n):
        if mask != NULL:
            m = mask[j]
        out[j] = (1 - m) * out[j] + m * before[j]


cdef void split(Py_ssize_t n, real *through, real *kept, const real *mask, double share) noexcept nogil:
    """Back through `mix`: kept = mask through, that of before; through = (1 - mask) through."""
    cdef Py_ssize_t j
    cdef real m = <real>share
    for j in range(n):
        if mask != NULL:
            m = mask[j]
        kept[j] = m * through[j]
        through[j] = (1 - m) * through[j]


def mask_steps(real[:, ::1] packed, const Py_ssize_t[::1] rows, const real[:, ::1] mask):
    """Multiply every step's rows of packed (N,F) by the masks (B,F) of their sequences, in place."""
    cdef Py_ssize_t t, start = 0, F = packed.shape[1]
    if mask.shape[1] != F or (rows.shape[0] and rows[0] > mask.shape[0]):
        raise ValueError("mask_steps: the shapes of packed, rows and mask do not fit together")
    for t in range(rows.shape[0]):
        if not 0 <= rows[t] <= mask.shape[0]:
            raise ValueError("mask_steps: more rows than masks")
        start += rows[t]
    if start != packed.shape[0]:
        raise ValueError("mask_steps: rows do not add up to those of packed")
    start = 0
    if F == 0 or packed.shape[0] == 0:
        return
    with nogil:
        for t in range(rows.shape[0]):
            multiply[real](rows[t] * F, &packed[start, 0], &packed[start, 0], &mask[0, 0])
            start += rows[t]
