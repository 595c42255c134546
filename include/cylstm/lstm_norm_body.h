/* LSTM with layer normalisation for one real type and instruction set; see lstm_norm.h, the contract in cells.h. */
#define CYL_LANES 16 /* partial sums, so that a sum over a row vectorises */
#define CYL_SQRT(x) ((CYL_REAL)sqrt((double)(x)))

/* Sum of an expression over `blocks` gates of H units; in it, j is a place in the gates and q one in the parameters. */
#define CYL_SUM(sum, blocks, H, gate, plane, expression)                        \
    do {                                                                        \
        CYL_REAL lanes_[CYL_LANES] = {0};                                       \
        sum = 0;                                                                \
        for (ptrdiff_t block_ = 0; block_ < (blocks); block_++) {               \
            const ptrdiff_t j_ = block_ * (gate), q_ = block_ * (plane);        \
            ptrdiff_t start_ = 0;                                               \
            for (; start_ + CYL_LANES <= (H); start_ += CYL_LANES)              \
                for (ptrdiff_t k_ = 0; k_ < CYL_LANES; k_++) {                  \
                    const ptrdiff_t j = j_ + start_ + k_, q = q_ + start_ + k_; \
                    (void)q;                                                    \
                    lanes_[k_] += (expression);                                 \
                }                                                               \
            for (ptrdiff_t k_ = 0; start_ + k_ < (H); k_++) {                   \
                const ptrdiff_t j = j_ + start_ + k_, q = q_ + start_ + k_;     \
                (void)q;                                                        \
                lanes_[k_] += (expression);                                     \
            }                                                                   \
        }                                                                       \
        for (ptrdiff_t k_ = 0; k_ < CYL_LANES; k_++) sum += lanes_[k_];         \
    } while (0)

/* Of v, `blocks` gates of H units, `gate` apart. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_moments)(
    const CYL_REAL *v, ptrdiff_t blocks, ptrdiff_t H, ptrdiff_t gate, CYL_REAL *mean, CYL_REAL *scale) {
    const CYL_REAL n = (CYL_REAL)(blocks * H);
    CYL_REAL sum, squares;
    CYL_SUM(sum, blocks, H, gate, gate, v[j]);
    const CYL_REAL m = sum / n;
    CYL_SUM(squares, blocks, H, gate, gate, (v[j] - m) * (v[j] - m));
    *mean = m;
    *scale = 1 / CYL_SQRT(squares / n + (CYL_REAL)CYL_NORM_EPS);
}

CYL_TARGET static void CYL_KERNEL(cyl_lstm_norm_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H, gate = a->gate, plane = a->plane;
    const CYL_REAL *gain_x = a->cell_parameters, *gain_h = gain_x + 4 * plane, *bias = gain_h + 4 * plane;
    const CYL_REAL *gain_c = bias + 4 * plane, *bias_c = gain_c + plane, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *u = a->extra + b * a->ld_extra, *x = u + 4 * gate;
        CYL_REAL *h = a->h + b * a->ld_h, *c = a->c + b * a->ld_c;
        const CYL_REAL *c_prev = a->c_prev + b * a->ld_c;
        CYL_REAL mean_x, mean_u, mean_c, scale_x, scale_u, scale_c;
        for (ptrdiff_t g = 0; g < 4; g++) memcpy(x + g * gate, gates + g * gate, (size_t)H * sizeof(CYL_REAL));
        CYL_KERNEL(cyl_moments)(x, 4, H, gate, &mean_x, &scale_x);
        CYL_KERNEL(cyl_moments)(u, 4, H, gate, &mean_u, &scale_u);
        for (ptrdiff_t g = 0; g < 4; g++) {
            CYL_REAL *z = gates + g * gate;
            const CYL_REAL *z_x = x + g * gate, *z_u = u + g * gate;
            const CYL_REAL *g_x = gain_x + g * plane, *g_u = gain_h + g * plane, *z_b = bias + g * plane;
            CYL_IVDEP
            for (ptrdiff_t j = 0; j < H; j++)
                z[j] = g_x[j] * ((z_x[j] - mean_x) * scale_x) + g_u[j] * ((z_u[j] - mean_u) * scale_u) + z_b[j];
        }
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = CYL_TYPED(cyl_sigmoid_gate)(gates[j], clip, 1);
            const CYL_REAL f = CYL_TYPED(cyl_sigmoid_gate)(gates[gate + j], clip, 1);
            const CYL_REAL g = CYL_TYPED(cyl_tanh_gate)(gates[2 * gate + j], clip, 1);
            gates[j] = i;
            gates[gate + j] = f;
            gates[2 * gate + j] = g;
            gates[3 * gate + j] = CYL_TYPED(cyl_sigmoid_gate)(gates[3 * gate + j], clip, 1);
            c[j] = f * c_prev[j] + i * g;
        }
        CYL_KERNEL(cyl_moments)(c, 1, H, H, &mean_c, &scale_c);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++)
            h[j] = gates[3 * gate + j] * CYL_TYPED(cyl_tanh)(gain_c[j] * ((c[j] - mean_c) * scale_c) + bias_c[j]);
    }
}

/* dv of y = gain N(v) from dy, over `blocks` gates of H units; d_gain is added to; dv may be dy or v. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_norm_bwd)(
    ptrdiff_t blocks, ptrdiff_t H, ptrdiff_t gate, ptrdiff_t plane, const CYL_REAL *v, const CYL_REAL *gain,
    const CYL_REAL *dy, CYL_REAL *dv, CYL_REAL *d_gain) {
    CYL_REAL mean, scale, sum, dot;
    CYL_KERNEL(cyl_moments)(v, blocks, H, gate, &mean, &scale);
    CYL_SUM(sum, blocks, H, gate, plane, gain[q] * dy[j]);
    CYL_SUM(dot, blocks, H, gate, plane, gain[q] * dy[j] * ((v[j] - mean) * scale));
    sum /= (CYL_REAL)(blocks * H);
    dot /= (CYL_REAL)(blocks * H);
    for (ptrdiff_t g = 0; g < blocks; g++) {
        const CYL_REAL *dy_g = dy + g * gate, *v_g = v + g * gate, *gain_g = gain + g * plane;
        CYL_REAL *dv_g = dv + g * gate, *d_gain_g = d_gain + g * plane;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL normal = (v_g[j] - mean) * scale, upstream = dy_g[j];
            d_gain_g[j] += upstream * normal;
            dv_g[j] = scale * (gain_g[j] * upstream - sum - normal * dot);
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_lstm_norm_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H, gate = a->gate, plane = a->plane;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    const CYL_REAL *gain_x = a->cell_parameters, *gain_h = gain_x + 4 * plane, *gain_c = gain_h + 8 * plane;
    const CYL_REAL *bias_c = gain_c + plane;
    CYL_REAL *d_gain_x = a->d_cell_parameters, *d_gain_h = d_gain_x + 4 * plane, *d_bias = d_gain_h + 4 * plane;
    CYL_REAL *d_gain_c = d_bias + 4 * plane, *d_bias_c = d_gain_c + plane;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *u = a->extra + b * a->ld_extra, *x = u + 4 * gate;
        CYL_REAL *dh = a->dh + b * a->ld_d, *dc = a->dc + b * a->ld_d, *c = a->dextra + b * a->ld_d;
        const CYL_REAL *c_prev = a->c_prev + b * a->ld_c;
        CYL_REAL mean, scale;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) c[j] = gates[gate + j] * c_prev[j] + gates[j] * gates[2 * gate + j];
        CYL_KERNEL(cyl_moments)(c, 1, H, H, &mean, &scale);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL o = gates[3 * gate + j];
            const CYL_REAL s = CYL_TYPED(cyl_tanh)(gain_c[j] * ((c[j] - mean) * scale) + bias_c[j]);
            gates[3 * gate + j] = dh[j] * s * CYL_TYPED(cyl_sigmoid_slope)(o, bound, 1);
            dh[j] = dh[j] * o * (1 - s * s);
            d_bias_c[j] += dh[j];
        }
        CYL_KERNEL(cyl_norm_bwd)(1, H, H, H, c, gain_c, dh, dh, d_gain_c);
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = gates[j], f = gates[gate + j], g = gates[2 * gate + j], dcell = dc[j] + dh[j];
            gates[j] = dcell * g * CYL_TYPED(cyl_sigmoid_slope)(i, bound, 1);
            gates[gate + j] = dcell * c_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(f, bound, 1);
            gates[2 * gate + j] = dcell * i * CYL_TYPED(cyl_tanh_slope)(g, bound, 1);
            dc[j] = dcell * f;
            dh[j] = 0;
        }
        for (ptrdiff_t g = 0; g < 4; g++) {
            CYL_IVDEP
            for (ptrdiff_t j = 0; j < H; j++) d_bias[g * plane + j] += gates[g * gate + j];
        }
        CYL_KERNEL(cyl_norm_bwd)(4, H, gate, plane, u, gain_h, gates, u, d_gain_h);
        CYL_KERNEL(cyl_norm_bwd)(4, H, gate, plane, x, gain_x, gates, gates, d_gain_x);
    }
}

#undef CYL_LANES
#undef CYL_SQRT
#undef CYL_SUM
