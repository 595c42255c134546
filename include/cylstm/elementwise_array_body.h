/* Sums of losses for one real type and instruction set; see elementwise.h. */
#define CYL_LANES 8
#define CYL_BLOCK 256 /* losses between two additions to the sum */

/* The sum of n numbers, in double. */
CYL_TARGET CYL_INLINE double CYL_KERNEL(cyl_double_sum)(const CYL_REAL *a, ptrdiff_t n) {
    double lanes[CYL_LANES] = {0}, sum = 0;
    ptrdiff_t j, k;
    for (j = 0; j + CYL_LANES <= n; j += CYL_LANES)
        for (k = 0; k < CYL_LANES; k++) lanes[k] += (double)a[j + k];
    for (k = 0; j + k < n; k++) lanes[k] += (double)a[j + k];
    for (k = 0; k < CYL_LANES; k++) sum += lanes[k];
    return sum;
}

#define CYL_SUM(loss)                                                                                       \
    CYL_TARGET CYL_INLINE double CYL_KERNEL(loss##_loop)(                                                   \
        CYL_REAL *dy, const CYL_REAL *y, const CYL_REAL *target, const CYL_REAL *p, ptrdiff_t n,            \
        ptrdiff_t ld_y, ptrdiff_t ld_target, ptrdiff_t ld_p, CYL_REAL scale) {                              \
        CYL_REAL values[CYL_BLOCK];                                                                         \
        double sum = 0;                                                                                     \
        for (ptrdiff_t start = 0; start < n; start += CYL_BLOCK) {                                          \
            const ptrdiff_t rest = n - start, m = rest < CYL_BLOCK ? rest : CYL_BLOCK;                      \
            CYL_IVDEP                                                                                       \
            for (ptrdiff_t k = 0; k < m; k++) {                                                             \
                const ptrdiff_t j = start + k;                                                              \
                CYL_REAL slope;                                                                             \
                values[k] = CYL_TYPED(loss)(y[j * ld_y], target[j * ld_target], p[j * ld_p], &slope);       \
                dy[j * ld_y] = scale * slope;                                                               \
            }                                                                                               \
            sum += CYL_KERNEL(cyl_double_sum)(values, m);                                                   \
        }                                                                                                   \
        return sum;                                                                                         \
    }                                                                                                       \
    CYL_TARGET static double CYL_KERNEL(loss##_sum)(                                                        \
        CYL_REAL *dy, const CYL_REAL *y, const CYL_REAL *target, const CYL_REAL *p, ptrdiff_t n,            \
        ptrdiff_t ld_y, ptrdiff_t ld_target, ptrdiff_t ld_p, CYL_REAL scale) {                              \
        if (ld_y == 1 && ld_target == 1 && ld_p == 0)                                                       \
            return CYL_KERNEL(loss##_loop)(dy, y, target, p, n, 1, 1, 0, scale);                            \
        return CYL_KERNEL(loss##_loop)(dy, y, target, p, n, ld_y, ld_target, ld_p, scale);                  \
    }

CYL_SUM(cyl_square)
CYL_SUM(cyl_absolute)
CYL_SUM(cyl_huber)
CYL_SUM(cyl_pinball)
CYL_SUM(cyl_logistic)
#undef CYL_LANES
#undef CYL_BLOCK
#undef CYL_SUM
