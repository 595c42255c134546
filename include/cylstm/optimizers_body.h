/* Optimiser steps for one real type and instruction set; see optimizers.h. */
#if CYL_REAL_BITS == 32
#define CYL_SQRT sqrtf
#else
#define CYL_SQRT sqrt
#endif

/* m <- momentum m + slope; Sutskever et al. 2013, with Nesterov's look ahead as an option. */
CYL_TARGET static void CYL_KERNEL(cyl_sgd)(
    CYL_REAL *p, const CYL_REAL *g, CYL_REAL *m, CYL_REAL *v, ptrdiff_t n, const double *k) {
    const CYL_REAL rate = (CYL_REAL)k[CYL_RATE], decay = (CYL_REAL)k[CYL_DECAY];
    const CYL_REAL momentum = (CYL_REAL)k[CYL_MOMENTUM];
    (void)v;
    if (!m) {
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < n; j++) p[j] -= rate * (g[j] + decay * p[j]);
    } else if (k[CYL_NESTEROV] != 0) {
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < n; j++) {
            const CYL_REAL slope = g[j] + decay * p[j];
            m[j] = momentum * m[j] + slope;
            p[j] -= rate * (slope + momentum * m[j]);
        }
    } else {
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < n; j++) {
            m[j] = momentum * m[j] + (g[j] + decay * p[j]);
            p[j] -= rate * m[j];
        }
    }
}

/* v <- alpha v + (1 - alpha) slope^2; Hinton 2012, lecture 6e. */
CYL_TARGET static void CYL_KERNEL(cyl_rmsprop)(
    CYL_REAL *p, const CYL_REAL *g, CYL_REAL *m, CYL_REAL *v, ptrdiff_t n, const double *k) {
    const CYL_REAL rate = (CYL_REAL)k[CYL_RATE], decay = (CYL_REAL)k[CYL_DECAY], eps = (CYL_REAL)k[CYL_RMS_EPS];
    const CYL_REAL alpha = (CYL_REAL)k[CYL_ALPHA], rest = (CYL_REAL)(1 - k[CYL_ALPHA]);
    (void)m;
    CYL_IVDEP
    for (ptrdiff_t j = 0; j < n; j++) {
        const CYL_REAL slope = g[j] + decay * p[j];
        v[j] = alpha * v[j] + rest * slope * slope;
        p[j] -= rate * slope / (CYL_SQRT(v[j]) + eps);
    }
}

/* Kingma and Ba 2015, algorithm 1: RATE is lr / (1 - beta1^t), ROOT 1 / sqrt(1 - beta2^t). */
CYL_TARGET static void CYL_KERNEL(cyl_adam)(
    CYL_REAL *p, const CYL_REAL *g, CYL_REAL *m, CYL_REAL *v, ptrdiff_t n, const double *k) {
    const CYL_REAL rate = (CYL_REAL)k[CYL_RATE], decay = (CYL_REAL)k[CYL_DECAY], shrink = (CYL_REAL)k[CYL_SHRINK];
    const CYL_REAL beta1 = (CYL_REAL)k[CYL_BETA1], rest1 = (CYL_REAL)(1 - k[CYL_BETA1]);
    const CYL_REAL beta2 = (CYL_REAL)k[CYL_BETA2], rest2 = (CYL_REAL)(1 - k[CYL_BETA2]);
    const CYL_REAL eps = (CYL_REAL)k[CYL_EPS], root = (CYL_REAL)k[CYL_ROOT];
    CYL_IVDEP
    for (ptrdiff_t j = 0; j < n; j++) {
        const CYL_REAL slope = g[j] + decay * p[j];
        m[j] = beta1 * m[j] + rest1 * slope;
        v[j] = beta2 * v[j] + rest2 * slope * slope;
        p[j] = shrink * p[j] - rate * m[j] / (CYL_SQRT(v[j]) * root + eps);
    }
}
#undef CYL_SQRT
