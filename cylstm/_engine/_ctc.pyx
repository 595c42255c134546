"""Connectionist temporal classification: the loss of every sequence and its gradient (Graves et al. 2006).

In logarithms, in float64. For a sequence of T steps with the labels l_1 ... l_L, l' is them with a blank
before, between and after, S = 2 L + 1 in all. With p[t, v] the softmax of y[t]:

    alpha[t, s]  the probability of all beginnings up to step t that end in l'_s
    beta[t, s]   the probability of all endings after step t, being in l'_s at t
    p(l) = sum_s alpha[t, s] beta[t, s]       loss = -log p(l)
    dloss / dy[t, v] = p[t, v] - sum over s with l'_s = v of alpha[t, s] beta[t, s] / p(l)
"""
from libc.math cimport INFINITY, NAN, exp, log

from cylstm._engine._blas cimport real


def ctc(real[:, :, :] dy, const real[:, :, :] y, const long long[::1] labels,
        const Py_ssize_t[::1] starts, const Py_ssize_t[::1] lengths, Py_ssize_t blank, bint zero_infinity,
        double sequences, double[:, ::1] log_p, double[:, ::1] alpha, double[::1] beta, double[::1] occupied):
    """Sum over sequences with steps of loss / (max(L, 1) sequences); dy <- its gradient in their steps.

    dy, y (T,B,V); labels of sequence b from starts[b] to before starts[b + 1]; scratch log_p (n,V),
    alpha (n,S), beta (S) and occupied (V), n being the steps of the longest sequence, for the most labels.
    """
    cdef Py_ssize_t T = y.shape[0], B = y.shape[1], V = y.shape[2], longest = 0, L, b, t, v
    cdef double value = 0, log_total, scale
    check(T, B, V, labels, starts, lengths, blank)
    for b in range(B):
        longest = max(longest, lengths[b])
        if beta.shape[0] < 2 * (starts[b + 1] - starts[b]) + 1:
            raise ValueError("ctc: scratch is too small")
    if (dy.shape[0] != T or dy.shape[1] != B or dy.shape[2] != V
            or log_p.shape[0] < longest or log_p.shape[1] != V
            or alpha.shape[0] < longest or alpha.shape[1] != beta.shape[0] or occupied.shape[0] != V):
        raise ValueError("ctc: dy or scratch does not fit y")
    with nogil:
        for b in range(B):
            if lengths[b] == 0:
                continue
            L = starts[b + 1] - starts[b]
            for t in range(lengths[b]):
                log_softmax(y[t, b], log_p[t])
            log_total = forward(lengths[b], labels, starts[b], L, blank, log_p, alpha)
            scale = 1 / (sequences * max(L, 1))
            if log_total == -INFINITY:
                for t in range(lengths[b]):
                    for v in range(V):
                        dy[t, b, v] = <real>(0 if zero_infinity else NAN)
                if not zero_infinity:
                    value = INFINITY
                continue
            value -= scale * log_total
            for v in range(2 * L + 1):
                beta[v] = 0 if v >= 2 * L - 1 else -INFINITY
            for t in range(lengths[b] - 1, -1, -1):
                for v in range(V):
                    occupied[v] = 0
                backward(t, labels, starts[b], L, blank, log_total, log_p, alpha, beta, occupied)
                for v in range(V):
                    dy[t, b, v] = <real>(scale * (exp(log_p[t, v]) - occupied[v]))
    return value


cdef double forward(Py_ssize_t T, const long long[::1] labels, Py_ssize_t start, Py_ssize_t L,
                    Py_ssize_t blank, const double[:, ::1] log_p, double[:, ::1] alpha) noexcept nogil:
    """log p(l), and alpha for every step."""
    cdef Py_ssize_t S = 2 * L + 1, s, t, at
    cdef double skipped
    for s in range(S):
        alpha[0, s] = log_p[0, extended(labels, start, s, blank)] if s < 2 else -INFINITY
    for t in range(1, T):
        for s in range(S):
            at = extended(labels, start, s, blank)
            skipped = alpha[t - 1, s - 2] if skips(labels, start, s) else -INFINITY
            alpha[t, s] = log_p[t, at] + log_sum(
                alpha[t - 1, s], alpha[t - 1, s - 1] if s else -INFINITY, skipped)
    return log_sum(alpha[T - 1, S - 1], alpha[T - 1, S - 2] if L else -INFINITY, -INFINITY)


cdef void backward(Py_ssize_t t, const long long[::1] labels, Py_ssize_t start, Py_ssize_t L,
                   Py_ssize_t blank, double log_total, const double[:, ::1] log_p,
                   const double[:, ::1] alpha, double[::1] beta, double[::1] occupied) noexcept nogil:
    """Add the contribution of step t for every label; beta[t] -> beta[t - 1]."""
    cdef Py_ssize_t S = 2 * L + 1, s, at
    for s in range(S):
        at = extended(labels, start, s, blank)
        occupied[at] += exp(alpha[t, s] + beta[s] - log_total)
        beta[s] += log_p[t, at]
    for s in range(S):  # upwards, so that what is read is still step t's
        beta[s] = log_sum(
            beta[s], beta[s + 1] if s + 1 < S else -INFINITY,
            beta[s + 2] if s + 2 < S and skips(labels, start, s + 2) else -INFINITY)


cdef inline Py_ssize_t extended(
    const long long[::1] labels, Py_ssize_t start, Py_ssize_t s, Py_ssize_t blank
) noexcept nogil:
    """l'_s."""
    return labels[start + s // 2] if s % 2 else blank


cdef inline bint skips(const long long[::1] labels, Py_ssize_t start, Py_ssize_t s) noexcept nogil:
    """Whether s follows s - 2 without the blank between them: two labels that differ."""
    return s % 2 and s > 1 and labels[start + s // 2] != labels[start + s // 2 - 1]


cdef inline double log_sum(double a, double b, double c) noexcept nogil:
    """log(exp(a) + exp(b) + exp(c)); a NaN among them gives NaN."""
    cdef double largest = max(a, b, c)
    if largest == -INFINITY:
        return a + b + c
    return largest + log(exp(a - largest) + exp(b - largest) + exp(c - largest))


cdef void log_softmax(const real[:] y, double[::1] out) noexcept nogil:
    cdef double largest = y[0], total = 0
    cdef Py_ssize_t V = y.shape[0], v
    for v in range(1, V):
        largest = max(largest, <double>y[v])
    for v in range(V):
        total += exp(y[v] - largest)
    total = log(total)
    for v in range(V):
        out[v] = y[v] - largest - total


cdef int check(Py_ssize_t T, Py_ssize_t B, Py_ssize_t V, const long long[::1] labels,
               const Py_ssize_t[::1] starts, const Py_ssize_t[::1] lengths, Py_ssize_t blank) except -1:
    """Check that all reads are inside of y and labels."""
    cdef Py_ssize_t i
    cdef bint fits = starts.shape[0] == B + 1 and lengths.shape[0] == B and 0 <= blank < V
    for i in range(B if fits else 0):
        fits = fits and 0 <= lengths[i] <= T and 0 <= starts[i] <= starts[i + 1] <= labels.shape[0]
    for i in range(labels.shape[0]):
        fits = fits and 0 <= labels[i] < V
    if not fits:
        raise ValueError("ctc: labels, starts, lengths or blank do not fit y")
    return 0
