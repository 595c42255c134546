"""Elementwise passes over packed rows: masks, zoneout (Krueger et al. 2017), pooling, embeddings, sums.

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
    """Backward pass of `mix`: kept = mask through, for the previous state; through = (1 - mask) through."""
    cdef Py_ssize_t j
    cdef real m = <real>share
    for j in range(n):
        if mask != NULL:
            m = mask[j]
        kept[j] = m * through[j]
        through[j] = (1 - m) * through[j]


cdef int check_steps(Py_ssize_t N, Py_ssize_t B, const Py_ssize_t[::1] rows) except -1:
    """Whether rows, of each step, add up to N and are at most B."""
    cdef Py_ssize_t t, total = 0
    for t in range(rows.shape[0]):
        if not 0 <= rows[t] <= B:
            raise ValueError("rows: more of them at a step than sequences")
        total += rows[t]
    if total != N:
        raise ValueError("rows: not as many as are packed")
    return 0


def mask_steps(real[:, ::1] packed, const Py_ssize_t[::1] rows, const real[:, ::1] mask):
    """Multiply every step's rows of packed (N,F) by the masks (B,F) of their sequences, in place."""
    cdef Py_ssize_t t, start = 0, F = packed.shape[1]
    if mask.shape[1] != F:
        raise ValueError("mask_steps: the shapes of packed and mask do not fit together")
    check_steps(packed.shape[0], mask.shape[0], rows)
    if F == 0 or packed.shape[0] == 0:
        return
    with nogil:
        for t in range(rows.shape[0]):
            multiply[real](rows[t] * F, &packed[start, 0], &packed[start, 0], &mask[0, 0])
            start += rows[t]


def add_rows_at(real[:, ::1] out, const Py_ssize_t[::1] place, const real[:, ::1] rows):
    """out[place[n]] += rows[n], from the last row to the first, as all gradients are summed."""
    cdef Py_ssize_t n, at, F = out.shape[1]
    if rows.shape[1] != F or rows.shape[0] != place.shape[0]:
        raise ValueError("add_rows_at: the shapes of out, place and rows do not fit together")
    for n in range(place.shape[0]):
        if not 0 <= place[n] < out.shape[0]:
            raise ValueError("add_rows_at: a place outside of out")
    with nogil:
        for n in range(place.shape[0] - 1, -1, -1):
            at = place[n]
            if 0 <= at < out.shape[0]:  # checked again, in case another thread writes to them
                add[real](F, &out[at, 0], &rows[n, 0])


def add_sum_of_rows(real[::1] out, const real[:, ::1] rows):
    """out (F) += the rows of (N,F), from the last to the first, as all gradients are summed."""
    cdef Py_ssize_t n, F = out.shape[0]
    if rows.shape[1] != F:
        raise ValueError("add_sum_of_rows: the shapes of out and rows do not fit together")
    if F == 0:
        return
    with nogil:
        for n in range(rows.shape[0] - 1, -1, -1):
            add[real](F, &out[0], &rows[n, 0])


def sum_steps(real[:, ::1] out, const real[:, ::1] packed, const Py_ssize_t[::1] rows):
    """out (B,F) = the sum of every sequence's rows of packed (N,F), in ascending order of time."""
    cdef Py_ssize_t t, start = 0, F = packed.shape[1]
    check_steps(packed.shape[0], out.shape[0], rows)
    if out.shape[1] != F:
        raise ValueError("sum_steps: the shapes of out and packed do not fit together")
    out[...] = 0
    if packed.shape[0] == 0:
        return
    with nogil:
        for t in range(rows.shape[0]):
            add[real](rows[t] * F, &out[0, 0], &packed[start, 0])
            start += rows[t]


def spread_steps(real[:, ::1] packed, const real[:, ::1] per_sequence, const Py_ssize_t[::1] rows):
    """Every row of packed (N,F) = that of its sequence, (B,F)."""
    cdef Py_ssize_t t, j, start = 0, F = packed.shape[1]
    check_steps(packed.shape[0], per_sequence.shape[0], rows)
    if per_sequence.shape[1] != F:
        raise ValueError("spread_steps: the shapes of packed and per_sequence do not fit together")
    with nogil:
        for t in range(rows.shape[0]):
            for j in range(rows[t]):
                packed[start + j, :] = per_sequence[j, :]
            start += rows[t]


def max_steps(real[:, ::1] out, Py_ssize_t[:, ::1] place, const real[:, ::1] packed,
              const Py_ssize_t[::1] rows):
    """out (B,F) = every sequence's largest number of packed (N,F), place (B,F) its row.

    The first of equal ones; NaN if there is one; 0 and place -1 for a sequence of no steps.
    """
    cdef Py_ssize_t t, b, j, start = 0, F = packed.shape[1]
    cdef real x
    check_steps(packed.shape[0], out.shape[0], rows)
    if out.shape[1] != F or place.shape[0] != out.shape[0] or place.shape[1] != F:
        raise ValueError("max_steps: the shapes of out, place and packed do not fit together")
    out[...] = 0
    place[...] = -1
    with nogil:
        for t in range(rows.shape[0]):
            for b in range(rows[t]):
                for j in range(F):
                    x = packed[start + b, j]
                    if t == 0 or (not x <= out[b, j] and out[b, j] == out[b, j]):
                        out[b, j] = x
                        place[b, j] = start + b
            start += rows[t]


def put_at(real[:, ::1] packed, const Py_ssize_t[:, ::1] place, const real[:, ::1] per_sequence):
    """packed = 0 except for per_sequence (B,F) at rows place (B,F)."""
    cdef Py_ssize_t b, j
    if (packed.shape[1] != place.shape[1] or place.shape[0] != per_sequence.shape[0]
            or place.shape[1] != per_sequence.shape[1]):
        raise ValueError("put_at: the shapes of packed, place and per_sequence do not fit together")
    packed[...] = 0
    with nogil:
        for b in range(place.shape[0]):
            for j in range(place.shape[1]):
                if 0 <= place[b, j] < packed.shape[0]:
                    packed[place[b, j], j] = per_sequence[b, j]
