"""Row-major matrix products over SciPy's BLAS: the only user of scipy.linalg.cython_blas.

The functions come from the capsules that `scipy.linalg.cython_blas` publishes
(`__pyx_capi__`, as `scipy.LowLevelCallable.from_cython` reads them), at first use
instead of by `cimport`. So importing cylstm does not import SciPy, SciPy is no
build requirement, and one wheel serves both of SciPy's integer ABIs: LP64 (all
wheels) and ILP64 (builds from source since SciPy 1.18).

That last part rests on one fact. Fortran passes everything by address, and on a
little-endian machine the low half of an int64 lies at its own address: a pointer
to an int64 is right for either ABI as long as the value fits. What is left for
the probe is which values fit.
"""
cimport cython
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport INT32_MAX, INT64_MAX, int64_t

import sys

ctypedef void (*gemm_t)(
    void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
    void *, void *) noexcept nogil
ctypedef void (*gemv_t)(
    void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
    void *) noexcept nogil
ctypedef double (*ddot_t)(void *, void *, void *, void *, void *) noexcept nogil

cdef gemm_t _sgemm = NULL
cdef gemm_t _dgemm = NULL
cdef gemv_t _sgemv = NULL
cdef gemv_t _dgemv = NULL
cdef int64_t _largest = 0


cdef void *_function(object module, str name) except NULL:
    capsule = module.__pyx_capi__[name]
    return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


cdef int64_t _probe(ddot_t ddot):
    """The largest size BLAS takes, from how ddot reads n = 1 - 2^32: as 1 or as negative."""
    cdef int64_t n = 1 - (<int64_t>1 << 32)
    cdef int64_t inc = 1
    cdef double one = 1.0
    return INT32_MAX if ddot(&n, &one, &inc, &one, &inc) == 1.0 else INT64_MAX


def load():
    """Find SciPy's BLAS. Called before the first product; later calls do nothing."""
    global _sgemm, _dgemm, _sgemv, _dgemv, _largest
    if _largest:
        return
    if sys.byteorder != "little":
        raise ImportError("cylstm: the BLAS path needs a little-endian CPU")
    import scipy.linalg.cython_blas as blas
    _sgemm = <gemm_t>_function(blas, "sgemm")
    _dgemm = <gemm_t>_function(blas, "dgemm")
    _sgemv = <gemv_t>_function(blas, "sgemv")
    _dgemv = <gemv_t>_function(blas, "dgemv")
    _largest = _probe(<ddot_t>_function(blas, "ddot"))


def integer_bits():
    """Width of BLAS's integers: 32 (LP64) or 64 (ILP64)."""
    load()
    return 32 if _largest == INT32_MAX else 64


cpdef int require(Py_ssize_t largest) except -1:
    """Load BLAS and raise an error for a dimension that overflows its integers."""
    load()
    if largest > _largest:
        raise ValueError(
            f"a dimension of {largest} (rows are batch times time steps) is more than this "
            f"SciPy's BLAS can count ({_largest}); use shorter sequences or smaller batches")
    return 0


cdef void gemm(
    bint trans_a, bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real *a, Py_ssize_t lda, const real *b, Py_ssize_t ldb, real beta, real *c, Py_ssize_t ldc
) noexcept nogil:
    """c (m,n) <- op(a) (m,k) . op(b) (k,n) + beta c, all row-major, ld* being the lengths of stored rows.

    Row-major c is column-major c^T = op(b)^T op(a)^T, so the operands change places.
    A single row is a matrix-vector product, which BLAS does faster as such.
    """
    cdef char op_a = c'T' if trans_a else c'N', op_b = c'T' if trans_b else c'N'
    cdef int64_t rows = n, columns = m, inner = k, one_step = 1
    cdef int64_t stride_a = max(1, lda), stride_b = max(1, ldb), stride_c = max(1, ldc)
    cdef int64_t stored_rows = k if trans_b else n, stored_columns = n if trans_b else k
    cdef real one = 1
    if m == 0 or n == 0:
        return
    if m == 1 and k > 0 and not trans_a:
        # c^T = op(b)^T a^T, b being stored as a column-major (stored_rows, stored_columns)
        if real is float:
            _sgemv(&op_b, &stored_rows, &stored_columns, &one, <void *>b, &stride_b,
                   <void *>a, &one_step, &beta, c, &one_step)
        else:
            _dgemv(&op_b, &stored_rows, &stored_columns, &one, <void *>b, &stride_b,
                   <void *>a, &one_step, &beta, c, &one_step)
    elif real is float:
        _sgemm(&op_b, &op_a, &rows, &columns, &inner, &one, <void *>b, &stride_b,
               <void *>a, &stride_a, &beta, c, &stride_c)
    else:
        _dgemm(&op_b, &op_a, &rows, &columns, &inner, &one, <void *>b, &stride_b,
               <void *>a, &stride_a, &beta, c, &stride_c)


cdef void add_column_sums(
    Py_ssize_t m, Py_ssize_t n, const real *a, Py_ssize_t lda, real *out
) noexcept nogil:
    """out (n) += column sums of a (m,n), whose stored rows are lda long."""
    cdef Py_ssize_t row, j
    for row in range(m):
        for j in range(n):
            out[j] += a[row * lda + j]


@cython.boundscheck(False)  # addresses of empty arrays are not read
def _gemm(bint trans_a, bint trans_b, const real[:, :] a, const real[:, :] b, real beta, real[:, :] c):
    """`gemm` on arrays with contiguous but possibly strided rows, for tests."""
    cdef Py_ssize_t m = c.shape[0], n = c.shape[1], k = a.shape[0] if trans_a else a.shape[1]
    if a.shape[1 if trans_a else 0] != m or b.shape[0 if trans_b else 1] != n:
        raise ValueError("a and b: their outer sizes are not those of c")
    if b.shape[1 if trans_b else 0] != k:
        raise ValueError("a and b: their inner sizes differ")
    require(max(m, n, k))
    with nogil:
        gemm[real](trans_a, trans_b, m, n, k, &a[0, 0], a.strides[0] // sizeof(real),
                   &b[0, 0], b.strides[0] // sizeof(real), beta, &c[0, 0], c.strides[0] // sizeof(real))
