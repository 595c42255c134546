/* Softmax of a row for one real type and instruction set; see softmax.h. */
#define CYL_LANES 16 /* partial results, the same for every instruction set */

CYL_TARGET static double CYL_KERNEL(cyl_softmax)(CYL_REAL *y, const CYL_REAL *x, ptrdiff_t n, CYL_REAL scale) {
    CYL_REAL lanes[CYL_LANES], largest, sum = 0;
    ptrdiff_t j, k;
    for (k = 0; k < CYL_LANES; k++) lanes[k] = x[0];
    for (j = 0; j + CYL_LANES <= n; j += CYL_LANES)
        for (k = 0; k < CYL_LANES; k++) lanes[k] = x[j + k] > lanes[k] ? x[j + k] : lanes[k];
    for (k = 0; j + k < n; k++) lanes[k] = x[j + k] > lanes[k] ? x[j + k] : lanes[k];
    largest = lanes[0];
    for (k = 1; k < CYL_LANES; k++) largest = lanes[k] > largest ? lanes[k] : largest;

    CYL_IVDEP
    for (j = 0; j < n; j++) y[j] = CYL_TYPED(cyl_exp)(x[j] - largest);
    for (k = 0; k < CYL_LANES; k++) lanes[k] = 0;
    for (j = 0; j + CYL_LANES <= n; j += CYL_LANES)
        for (k = 0; k < CYL_LANES; k++) lanes[k] += y[j + k];
    for (k = 0; j + k < n; k++) lanes[k] += y[j + k];
    for (k = 0; k < CYL_LANES; k++) sum += lanes[k];
    scale /= sum;
    CYL_IVDEP
    for (j = 0; j < n; j++) y[j] *= scale;
    return (double)largest + log((double)sum);
}

#undef CYL_LANES
