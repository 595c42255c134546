"""What the CPU has, and the C activations on arrays."""
from cylstm._engine._blas cimport real


cdef extern from "cylstm/activations.h" nogil:
    enum:
        CYL_ISA_COUNT
    enum:
        CYL_ACTIVATION_COUNT
    int cyl_detect_isa()
    ctypedef void (*cyl_activation_f32)(float *, const float *, Py_ssize_t) noexcept nogil
    ctypedef void (*cyl_activation_f64)(double *, const double *, Py_ssize_t) noexcept nogil
    cyl_activation_f32 cyl_activations_f32[CYL_ACTIVATION_COUNT][CYL_ISA_COUNT]
    cyl_activation_f64 cyl_activations_f64[CYL_ACTIVATION_COUNT][CYL_ISA_COUNT]

ACTIVATIONS = ("exp", "sigmoid", "tanh")  # in the order of cyl_activation


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
            cyl_activations_f32[function][isa](&y[0], &x[0], x.shape[0])
        else:
            cyl_activations_f64[function][isa](&y[0], &x[0], x.shape[0])
