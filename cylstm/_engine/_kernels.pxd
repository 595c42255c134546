"""The tables of kernels, for the modules that call them; each declares the entries of `cyl_kernels` that it uses."""

cdef const void *kernels_of(int isa) noexcept nogil  # const cyl_kernels *, of kernels/kernels.h
