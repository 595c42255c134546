/* RNN for one real type and instruction set; see rnn.h and the contract in cells.h. */
#define CYL_RNN(name, PHI, SLOPE)                                                          \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_fwd)(const CYL_TYPED(cyl_forward) *a) { \
        const ptrdiff_t H = a->H;                                                          \
        const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;                   \
        for (ptrdiff_t b = 0; b < a->B; b++) {                                             \
            CYL_REAL *gates = a->gates + b * a->ld_gates, *h = a->h + b * a->ld_h;                        \
            CYL_IVDEP                                                                      \
            for (ptrdiff_t j = 0; j < H; j++) {                                            \
                const CYL_REAL z = gates[j] + (b_ih[j] + b_hh[j]);                         \
                gates[j] = h[j] = PHI(z, clip);                                            \
            }                                                                              \
        }                                                                                  \
    }                                                                                      \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_bwd)(const CYL_TYPED(cyl_backward) *a) {\
        const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);               \
        for (ptrdiff_t b = 0; b < a->B; b++) {                                             \
            CYL_REAL *gates = a->gates + b * a->ld_gates, *dh = a->dh + b * a->ld_d;       \
            CYL_IVDEP                                                                      \
            for (ptrdiff_t j = 0; j < a->H; j++) {                                         \
                gates[j] = dh[j] * SLOPE(gates[j], bound);                                 \
                dh[j] = 0;                                                                 \
            }                                                                              \
        }                                                                                  \
    }
#define CYL_RELU(z, clip) ((z) < 0 ? (CYL_REAL)0 : ((z) > (clip) ? (clip) : (z)))
/* 1 for infinity and NaN, which no clip has held. */
#define CYL_RELU_SLOPE(y, bound) ((CYL_REAL)(!((y) <= 0) && ((y) < (bound).clip || (y) - (y) != 0)))

CYL_RNN(rnn_tanh, CYL_TYPED(cyl_tanh_gate), CYL_TYPED(cyl_tanh_slope))
CYL_RNN(rnn_relu, CYL_RELU, CYL_RELU_SLOPE)

#undef CYL_RNN
#undef CYL_RELU
#undef CYL_RELU_SLOPE
