"""The kernels of every instruction set, CPU detection, and the C activations on arrays.

This module alone is linked with the kernels (kernels/*.c); the others call them through its tables.
"""
from cylstm._engine._blas cimport real


cdef extern from "kernels/kernels.h" nogil:
    int cyl_detect_isa()
    ctypedef void (*cyl_activation_f32)(float *, const float *, Py_ssize_t) noexcept nogil
    ctypedef void (*cyl_activation_f64)(double *, const double *, Py_ssize_t) noexcept nogil
    ctypedef struct cyl_kernels:
        const cyl_activation_f32 (*activations_f32)[3]
        const cyl_activation_f64 (*activations_f64)[3]
    const cyl_kernels *cyl_kernels_of(int isa)

ACTIVATIONS = ("exp", "sigmoid", "tanh")  # in the order of cyl_activation


cdef const void *kernels_of(int isa) noexcept nogil:
    return cyl_kernels_of(isa)


def detect_isa():
    """The best instruction set, as an index in the order of cyl_isa."""
    return cyl_detect_isa()


def activation(str name, real[::1] y, const real[::1] x, int isa):
    """y <- name(x), with the kernels of one instruction set."""
    cdef int function = ACTIVATIONS.index(name)
    if y.shape[0] != x.shape[0] or not 0 <= isa <= cyl_detect_isa():
        raise ValueError("activation: y and x differ in length, or the instruction set is not available")
    with nogil:
        if real is float:
            cyl_kernels_of(isa).activations_f32[function][isa](&y[0], &x[0], x.shape[0])
        else:
            cyl_kernels_of(isa).activations_f64[function][isa](&y[0], &x[0], x.shape[0])
