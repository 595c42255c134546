# Elementwise passes of the time loop over rows: see _rows.pyx.

from cylstm._engine._blas cimport real

cdef void add(Py_ssize_t n, real *out, const real *a) noexcept nogil
cdef void multiply(Py_ssize_t n, real *out, const real *a, const real *b) noexcept nogil
cdef void multiply_add(Py_ssize_t n, real *out, const real *a, const real *b) noexcept nogil
cdef void mix(Py_ssize_t n, real *out, const real *before, const real *mask, double share) noexcept nogil
cdef void split(Py_ssize_t n, real *through, real *kept, const real *mask, double share) noexcept nogil
