"""Loops over the flat parameter and gradient vectors."""
from libc.math cimport sqrt

from cylstm._engine._blas cimport real


def sum_of_squares(const real[::1] a):
    """Sum of a^2 in float64, eight running sums so that the loop pipelines."""
    cdef Py_ssize_t j, lane, n = a.shape[0]
    cdef double[8] sums = [0, 0, 0, 0, 0, 0, 0, 0]
    with nogil:
        for j in range(0, n - 7, 8):
            for lane in range(8):
                sums[lane] += <double>a[j + lane] * a[j + lane]
        for j in range(n - n % 8, n):
            sums[0] += <double>a[j] * a[j]
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


def sgd(real[::1] p, const real[::1] g, double lr):
    """p <- p - lr g."""
    cdef Py_ssize_t j
    cdef real rate = lr
    same_length(p.shape[0], g.shape[0])
    with nogil:
        for j in range(p.shape[0]):
            p[j] -= rate * g[j]


def adam(real[::1] p, const real[::1] g, real[::1] m, real[::1] v, double lr, double beta1,
         double beta2, double eps, double weight_decay, double correction1, double correction2):
    """Adam (Kingma and Ba 2015, algorithm 1) on g + weight_decay p; corrections are 1 - beta^t."""
    cdef Py_ssize_t j
    cdef real slope, decay = weight_decay
    cdef real b1 = beta1, one_b1 = 1 - beta1, b2 = beta2, one_b2 = 1 - beta2, small = eps
    cdef real rate = lr / correction1, root = 1 / sqrt(correction2)
    same_length(p.shape[0], g.shape[0])
    same_length(p.shape[0], m.shape[0])
    same_length(p.shape[0], v.shape[0])
    with nogil:
        for j in range(p.shape[0]):
            slope = g[j] + decay * p[j]
            m[j] = b1 * m[j] + one_b1 * slope
            v[j] = b2 * v[j] + one_b2 * slope * slope
            p[j] -= rate * m[j] / (sqrt(v[j]) * root + small)


cdef int same_length(Py_ssize_t expected, Py_ssize_t got) except -1:
    if expected != got:
        raise ValueError(f"flat vectors: expected {expected} elements, got {got}")
    return 0
