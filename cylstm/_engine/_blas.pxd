# Row-major BLAS for the engine: see _blas.pyx.

ctypedef fused real:
    float
    double

cdef enum:  # whether an operand of gemm is transposed
    NO = 0
    YES = 1

cdef void gemm(
    bint trans_a, bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real *a, Py_ssize_t lda, const real *b, Py_ssize_t ldb, real beta, real *c, Py_ssize_t ldc
) noexcept nogil

cdef void add_column_sums(
    Py_ssize_t m, Py_ssize_t n, const real *a, Py_ssize_t lda, real *out
) noexcept nogil

cpdef int require(Py_ssize_t largest) except -1
