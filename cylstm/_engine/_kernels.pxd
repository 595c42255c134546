"""Tables of kernels for the modules that call them; each declares those entries of `cyl_kernels` it uses."""

cdef const void *kernels_of(int isa) noexcept nogil  # const cyl_kernels *, of kernels/kernels.h
