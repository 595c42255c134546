/* RNN for one real type and instruction set; see rnn.h and the contract in cells.h. */
#define CYL_RNN(name, PHI, SLOPE)                                                          \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_fwd)(const CYL_TYPED(cyl_forward) *a) { \
        const ptrdiff_t H = a->H;                                                          \
        const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh;                                   \
        for (ptrdiff_t b = 0; b < a->B; b++) {                                             \
            CYL_REAL *gates = a->gates + b * H, *h = a->h + b * H;                         \
            CYL_IVDEP                                                                      \
            for (ptrdiff_t j = 0; j < H; j++) {                                            \
                const CYL_REAL z = gates[j] + (b_ih[j] + b_hh[j]);                         \
                gates[j] = h[j] = PHI(z);                                                  \
            }                                                                              \
        }                                                                                  \
    }                                                                                      \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_bwd)(const CYL_TYPED(cyl_backward) *a) { \
        CYL_REAL *gates = a->gates, *dh = a->dh;                                           \
        CYL_IVDEP                                                                          \
        for (ptrdiff_t j = 0; j < a->B * a->H; j++) {                                      \
            gates[j] = SLOPE(gates[j], dh[j]);                                             \
            dh[j] = 0;                                                                     \
        }                                                                                  \
    }
#define CYL_RELU(z) ((z) < 0 ? (CYL_REAL)0 : (z))
#define CYL_TANH_SLOPE(y, dy) ((dy) * (1 - (y) * (y)))
#define CYL_RELU_SLOPE(y, dy) ((y) > 0 ? (dy) : (CYL_REAL)0)

CYL_RNN(rnn_tanh, CYL_TYPED(cyl_tanh), CYL_TANH_SLOPE)
CYL_RNN(rnn_relu, CYL_RELU, CYL_RELU_SLOPE)

#undef CYL_RNN
#undef CYL_RELU
#undef CYL_TANH_SLOPE
#undef CYL_RELU_SLOPE
