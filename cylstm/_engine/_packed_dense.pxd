"""The dense layer on packed weights, declared to the modules that run it without Python."""

cdef extern from "cylstm/dense.h" nogil:
    ctypedef struct cyl_dense_gradients:
        Py_ssize_t rows, inputs, outputs
        const void *x
        const void *dy
        const void *w_t
        void *dw
        void *db
        void *dx
        void *strips


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
    cdef cyl_dense_gradients gradients
    cdef tuple arrays
    cdef object strips
    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept
    cdef int bind_gradients(self, dict arrays) except -1


cdef void run_dense(Dense *dense, int threads) noexcept nogil
