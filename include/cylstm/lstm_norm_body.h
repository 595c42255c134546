/* LSTM with layer normalisation for one real type and instruction set; see lstm_norm.h, the contract in cells.h. */
#define CYL_LANES 16 /* partial sums, so that a sum over a row vectorises */
#define CYL_SQRT(x) ((CYL_REAL)sqrt((double)(x)))

/* Sum over j < n of expression; it may use j. */
#define CYL_SUM(sum, n, expression)                                      \
    do {                                                                 \
        CYL_REAL lanes_[CYL_LANES] = {0};                                \
        ptrdiff_t j, k_, start_ = 0;                                     \
        sum = 0;                                                         \
        for (; start_ + CYL_LANES <= (n); start_ += CYL_LANES)           \
            for (k_ = 0; k_ < CYL_LANES; k_++) {                         \
                j = start_ + k_;                                         \
                lanes_[k_] += (expression);                              \
            }                                                            \
        for (j = start_; j < (n); j++) lanes_[j - start_] += (expression); \
        for (k_ = 0; k_ < CYL_LANES; k_++) sum += lanes_[k_];            \
    } while (0)

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_moments)(const CYL_REAL *v, ptrdiff_t n, CYL_REAL *mean, CYL_REAL *scale) {
    CYL_REAL sum, squares;
    CYL_SUM(sum, n, v[j]);
    const CYL_REAL m = sum / (CYL_REAL)n;
    CYL_SUM(squares, n, (v[j] - m) * (v[j] - m));
    *mean = m;
    *scale = 1 / CYL_SQRT(squares / (CYL_REAL)n + (CYL_REAL)CYL_NORM_EPS);
}

CYL_TARGET static void CYL_KERNEL(cyl_lstm_norm_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_REAL *gain_x = a->own, *gain_h = gain_x + 4 * H, *bias = gain_h + 4 * H;
    const CYL_REAL *gain_c = bias + 4 * H, *bias_c = gain_c + H, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 4 * H, *u = a->extra + b * 8 * H, *x = u + 4 * H;
        CYL_REAL *h = a->h + b * H, *c = a->c + b * H;
        const CYL_REAL *c_prev = a->c_prev + b * H;
        CYL_REAL mean_x, mean_u, mean_c, scale_x, scale_u, scale_c;
        memcpy(x, gates, (size_t)(4 * H) * sizeof(CYL_REAL));
        CYL_KERNEL(cyl_moments)(x, 4 * H, &mean_x, &scale_x);
        CYL_KERNEL(cyl_moments)(u, 4 * H, &mean_u, &scale_u);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < 4 * H; j++)
            gates[j] = gain_x[j] * ((x[j] - mean_x) * scale_x) + gain_h[j] * ((u[j] - mean_u) * scale_u) + bias[j];
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = CYL_TYPED(cyl_sigmoid_gate)(gates[j], clip);
            const CYL_REAL f = CYL_TYPED(cyl_sigmoid_gate)(gates[H + j], clip);
            const CYL_REAL g = CYL_TYPED(cyl_tanh_gate)(gates[2 * H + j], clip);
            gates[j] = i;
            gates[H + j] = f;
            gates[2 * H + j] = g;
            gates[3 * H + j] = CYL_TYPED(cyl_sigmoid_gate)(gates[3 * H + j], clip);
            c[j] = f * c_prev[j] + i * g;
        }
        CYL_KERNEL(cyl_moments)(c, H, &mean_c, &scale_c);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++)
            h[j] = gates[3 * H + j] * CYL_TYPED(cyl_tanh)(gain_c[j] * ((c[j] - mean_c) * scale_c) + bias_c[j]);
    }
}

/* dv of y = gain N(v) from dy, n wide; d_gain is added to; dv may be dy or v. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_norm_bwd)(
    ptrdiff_t n, const CYL_REAL *v, const CYL_REAL *gain, const CYL_REAL *dy, CYL_REAL *dv, CYL_REAL *d_gain) {
    CYL_REAL mean, scale, sum, dot;
    CYL_KERNEL(cyl_moments)(v, n, &mean, &scale);
    CYL_SUM(sum, n, gain[j] * dy[j]);
    CYL_SUM(dot, n, gain[j] * dy[j] * ((v[j] - mean) * scale));
    sum /= (CYL_REAL)n;
    dot /= (CYL_REAL)n;
    CYL_IVDEP
    for (ptrdiff_t j = 0; j < n; j++) {
        const CYL_REAL normal = (v[j] - mean) * scale, upstream = dy[j];
        d_gain[j] += upstream * normal;
        dv[j] = scale * (gain[j] * upstream - sum - normal * dot);
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_lstm_norm_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    const CYL_REAL *gain_x = a->own, *gain_h = gain_x + 4 * H, *gain_c = gain_h + 8 * H, *bias_c = gain_c + H;
    CYL_REAL *d_gain_x = a->d_own, *d_gain_h = d_gain_x + 4 * H, *d_bias = d_gain_h + 4 * H;
    CYL_REAL *d_gain_c = d_bias + 4 * H, *d_bias_c = d_gain_c + H;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 4 * H, *u = a->extra + b * 8 * H, *x = u + 4 * H;
        CYL_REAL *dh = a->dh + b * H, *dc = a->dc + b * H, *c = a->dextra + b * H;
        const CYL_REAL *c_prev = a->c_prev + b * H;
        CYL_REAL mean, scale;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) c[j] = gates[H + j] * c_prev[j] + gates[j] * gates[2 * H + j];
        CYL_KERNEL(cyl_moments)(c, H, &mean, &scale);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL o = gates[3 * H + j];
            const CYL_REAL s = CYL_TYPED(cyl_tanh)(gain_c[j] * ((c[j] - mean) * scale) + bias_c[j]);
            gates[3 * H + j] = dh[j] * s * CYL_TYPED(cyl_sigmoid_slope)(o, bound);
            dh[j] = dh[j] * o * (1 - s * s);
            d_bias_c[j] += dh[j];
        }
        CYL_KERNEL(cyl_norm_bwd)(H, c, gain_c, dh, dh, d_gain_c);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = gates[j], f = gates[H + j], g = gates[2 * H + j], dcell = dc[j] + dh[j];
            gates[j] = dcell * g * CYL_TYPED(cyl_sigmoid_slope)(i, bound);
            gates[H + j] = dcell * c_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(f, bound);
            gates[2 * H + j] = dcell * i * CYL_TYPED(cyl_tanh_slope)(g, bound);
            dc[j] = dcell * f;
            dh[j] = 0;
        }
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < 4 * H; j++) d_bias[j] += gates[j];
        CYL_KERNEL(cyl_norm_bwd)(4 * H, u, gain_h, gates, u, d_gain_h);
        CYL_KERNEL(cyl_norm_bwd)(4 * H, x, gain_x, gates, gates, d_gain_x);
    }
}

#undef CYL_LANES
#undef CYL_SQRT
#undef CYL_SUM
