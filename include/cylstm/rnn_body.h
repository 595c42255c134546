/* RNN for one real type and instruction set; see rnn.h and the contract in cells.h. */
#define CYL_RNN(name, PHI, SLOPE)                                                                                 \
    CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_##name##_any_fwd)(                                                  \
        const CYL_TYPED(cyl_forward) * a, const ptrdiff_t H, const int clips) {                                   \
        const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;                                          \
        for (ptrdiff_t b = 0; b < a->B; b++) {                                                                    \
            CYL_REAL *gates = a->gates + b * a->ld_gates, *h = a->h + b * a->ld_h;                                \
            CYL_IVDEP                                                                                             \
            for (ptrdiff_t j = 0; j < H; j++) gates[j] = h[j] = PHI(gates[j] + (b_ih[j] + b_hh[j]), clip, clips); \
        }                                                                                                         \
    }                                                                                                             \
    CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_##name##_any_bwd)(                                                  \
        const CYL_TYPED(cyl_backward) * a, const ptrdiff_t H, const int clips) {                                  \
        const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);                                      \
        for (ptrdiff_t b = 0; b < a->B; b++) {                                                                    \
            CYL_REAL *gates = a->gates + b * a->ld_gates, *dh = a->dh + b * a->ld_d;                              \
            CYL_IVDEP                                                                                             \
            for (ptrdiff_t j = 0; j < H; j++) {                                                                   \
                gates[j] = dh[j] * SLOPE(gates[j], bound, clips);                                                 \
                dh[j] = 0;                                                                                        \
            }                                                                                                     \
        }                                                                                                         \
    }                                                                                                             \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_fwd)(const CYL_TYPED(cyl_forward) * a) {                       \
        CYL_CHOOSE(CYL_KERNEL(cyl_##name##_any_fwd), a);                                                          \
    }                                                                                                             \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_bwd)(const CYL_TYPED(cyl_backward) * a) {                      \
        CYL_CHOOSE(CYL_KERNEL(cyl_##name##_any_bwd), a);                                                          \
    }

CYL_INLINE CYL_REAL CYL_KERNEL(cyl_relu)(CYL_REAL z, CYL_REAL clip, const int clips) {
    const CYL_REAL y = z < 0 ? (CYL_REAL)0 : z;
    return clips && y > clip ? clip : y;
}
/* 1 for infinity and NaN, which no clip has held. */
CYL_INLINE CYL_REAL CYL_KERNEL(cyl_relu_slope)(CYL_REAL y, CYL_TYPED(cyl_bound) bound, const int clips) {
    return (CYL_REAL)(!(y <= 0) && (!clips || y < bound.clip || y - y != 0));
}

CYL_RNN(rnn_tanh, CYL_TYPED(cyl_tanh_gate), CYL_TYPED(cyl_tanh_slope))
CYL_RNN(rnn_relu, CYL_KERNEL(cyl_relu), CYL_KERNEL(cyl_relu_slope))

#undef CYL_RNN
