"""The dense layer on packed weights, declared to the modules that run it without Python."""

cdef struct Dense:
    void *y
    const void *x
    const void *w
    const void *b
    Py_ssize_t rows, inputs, outputs, ldx
    int isa, count  # count: threads of the call
    bint double_precision


cdef class PackedDense:
    cdef Dense dense
    cdef tuple arrays


cdef void run_dense(Dense *dense, int threads) noexcept nogil
