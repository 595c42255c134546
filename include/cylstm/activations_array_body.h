/* y[n] <- f(x[n]) for one real type and instruction set; see activations.h. */
#define CYL_ARRAY(name)                                                                            \
    CYL_TARGET static void CYL_KERNEL(name##_array)(CYL_REAL *y, const CYL_REAL *x, ptrdiff_t n) { \
        CYL_IVDEP                                                                                  \
        for (ptrdiff_t j = 0; j < n; j++) y[j] = CYL_TYPED(name)(x[j]);                            \
    }

CYL_ARRAY(cyl_exp)
CYL_ARRAY(cyl_sigmoid)
CYL_ARRAY(cyl_tanh)
#undef CYL_ARRAY
