/* LSTM and its variants for one real type and instruction set; see lstm.h and the contract in cells.h. */
#define CYL_ROWS_TOGETHER 16

/* c = f c_prev + i g, the same bits wherever it is computed: compilers do not fuse alike in every place. */
CYL_TARGET CYL_INLINE CYL_REAL CYL_KERNEL(cyl_lstm_c)(CYL_REAL f, CYL_REAL c_prev, CYL_REAL i, CYL_REAL g) {
#if CYL_FUSES && CYL_REAL_BITS == 32
    return __builtin_fmaf(f, c_prev, i * g);
#elif CYL_FUSES
    return __builtin_fma(f, c_prev, i * g);
#else
    return f * c_prev + i * g;
#endif
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_lstm_any_fwd)(
    const CYL_TYPED(cyl_forward) *a, int peephole, int coupled, const ptrdiff_t H, const int clips) {
    const ptrdiff_t I = 0, F = a->gate, G = coupled ? F : 2 * F, O = G + F;          /* where each gate begins */
    const ptrdiff_t PF = a->plane, PG = coupled ? PF : 2 * PF, PO = PG + PF; /* and its biases */
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    const CYL_REAL *p_i = a->cell_parameters, *p_f = peephole ? p_i + PF : p_i, *p_o = peephole ? p_i + PG : p_i;
    /* h of some rows after all else of them: in one loop a unit's chain of dependent operations is too long for the
     * processor to begin the next unit meanwhile (12 % of the function on Zen 4). */
    for (ptrdiff_t first = 0; first < a->B; first += CYL_ROWS_TOGETHER) {
        const ptrdiff_t end = a->B - first < CYL_ROWS_TOGETHER ? a->B : first + CYL_ROWS_TOGETHER;
        for (ptrdiff_t b = first; b < end; b++) {
            CYL_REAL *gates = a->gates + b * a->ld_gates;
            CYL_REAL *c = a->c + b * a->ld_c;
            const CYL_REAL *c_prev = a->c_prev + b * a->ld_c;
            CYL_IVDEP
            for (ptrdiff_t j = 0; j < H; j++) {
                const CYL_REAL z_i = gates[I + j] + (b_ih[j] + b_hh[j]);
                const CYL_REAL i =
                    CYL_TYPED(cyl_sigmoid_gate)(peephole ? z_i + p_i[j] * c_prev[j] : z_i, clip, clips);
                const CYL_REAL z_f = gates[F + j] + (b_ih[PF + j] + b_hh[PF + j]);
                const CYL_REAL f = coupled ? 1 - i
                                           : CYL_TYPED(cyl_sigmoid_gate)(
                                                 peephole ? z_f + p_f[j] * c_prev[j] : z_f, clip, clips);
                const CYL_REAL g =
                    CYL_TYPED(cyl_tanh_gate)(gates[G + j] + (b_ih[PG + j] + b_hh[PG + j]), clip, clips);
                const CYL_REAL cell = CYL_KERNEL(cyl_lstm_c)(f, c_prev[j], i, g);
                const CYL_REAL z_o = gates[O + j] + (b_ih[PO + j] + b_hh[PO + j]);
                gates[I + j] = i;
                if (!coupled) gates[F + j] = f;
                gates[G + j] = g;
                gates[O + j] = CYL_TYPED(cyl_sigmoid_gate)(peephole ? z_o + p_o[j] * cell : z_o, clip, clips);
                c[j] = cell;
            }
        }
        for (ptrdiff_t b = first; b < end; b++) {
            const CYL_REAL *o = a->gates + b * a->ld_gates + O, *c = a->c + b * a->ld_c;
            CYL_REAL *h = a->h + b * a->ld_h;
            CYL_IVDEP
            for (ptrdiff_t j = 0; j < H; j++) h[j] = o[j] * CYL_TYPED(cyl_tanh)(c[j]);
        }
    }
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_lstm_any_bwd)(
    const CYL_TYPED(cyl_backward) *a, int peephole, int coupled, const ptrdiff_t H, const int clips) {
    const ptrdiff_t I = 0, F = a->gate, G = coupled ? F : 2 * F, O = G + F;
    const ptrdiff_t PF = a->plane, PG = coupled ? PF : 2 * PF;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    const CYL_REAL *p_i = a->cell_parameters, *p_f = peephole ? p_i + PF : p_i, *p_o = peephole ? p_i + PG : p_i;
    CYL_REAL *dp_i = a->d_cell_parameters, *dp_f = peephole ? dp_i + PF : dp_i, *dp_o = peephole ? dp_i + PG : dp_i;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates;
        CYL_REAL *dc = a->dc + b * a->ld_d;
        CYL_REAL *dh = a->dh + b * a->ld_d;
        const CYL_REAL *c_prev = a->c_prev + b * a->ld_c;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = gates[I + j], g = gates[G + j], o = gates[O + j];
            const CYL_REAL f = coupled ? 1 - i : gates[F + j];
            const CYL_REAL cell = CYL_KERNEL(cyl_lstm_c)(f, c_prev[j], i, g);
            const CYL_REAL s = CYL_TYPED(cyl_tanh)(cell);
            const CYL_REAL dz_o = dh[j] * s * CYL_TYPED(cyl_sigmoid_slope)(o, bound, clips);
            const CYL_REAL through_h = dc[j] + dh[j] * o * (1 - s * s);
            const CYL_REAL dcell = peephole ? through_h + dz_o * p_o[j] : through_h;
            const CYL_REAL dz_i =
                dcell * (coupled ? g - c_prev[j] : g) * CYL_TYPED(cyl_sigmoid_slope)(i, bound, clips);
            const CYL_REAL dz_f = coupled ? 0 : dcell * c_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(f, bound, clips);
            gates[I + j] = dz_i;
            if (!coupled) gates[F + j] = dz_f;
            gates[G + j] = dcell * i * CYL_TYPED(cyl_tanh_slope)(g, bound, clips);
            gates[O + j] = dz_o;
            dc[j] = dcell * f;
            dh[j] = 0;
            if (peephole) {
                dc[j] += dz_i * p_i[j];
                dp_i[j] += dz_i * c_prev[j];
                if (!coupled) dc[j] += dz_f * p_f[j];
                if (!coupled) dp_f[j] += dz_f * c_prev[j];
                dp_o[j] += dz_o * cell;
            }
        }
    }
}

/* Recompute c and h of a step from its gates, bit-identical to the forward pass. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_lstm_any_states)(const CYL_TYPED(cyl_forward) *a, int coupled) {
    const ptrdiff_t F = a->gate, G = coupled ? F : 2 * F, O = G + F;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        const CYL_REAL *gates = a->gates + b * a->ld_gates, *c_prev = a->c_prev + b * a->ld_c;
        CYL_REAL *c = a->c + b * a->ld_c, *h = a->h + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < a->H; j++) {
            const CYL_REAL i = gates[j], f = coupled ? 1 - i : gates[F + j];
            const CYL_REAL cell = CYL_KERNEL(cyl_lstm_c)(f, c_prev[j], i, gates[G + j]);
            c[j] = cell;
            h[j] = gates[O + j] * CYL_TYPED(cyl_tanh)(cell);
        }
    }
}
CYL_TARGET static void CYL_KERNEL(cyl_lstm_states)(const CYL_TYPED(cyl_forward) *a, int coupled) {
    if (coupled) CYL_KERNEL(cyl_lstm_any_states)(a, 1);
    else CYL_KERNEL(cyl_lstm_any_states)(a, 0);
}

#define CYL_LSTM(name, peephole, coupled)                                                    \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_fwd)(const CYL_TYPED(cyl_forward) *a) {   \
        CYL_CHOOSE(CYL_KERNEL(cyl_lstm_any_fwd), a, peephole, coupled);                      \
    }                                                                                        \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_bwd)(const CYL_TYPED(cyl_backward) *a) {  \
        CYL_CHOOSE(CYL_KERNEL(cyl_lstm_any_bwd), a, peephole, coupled);                      \
    }
CYL_LSTM(lstm, 0, 0)
CYL_LSTM(lstm_peephole, 1, 0)
CYL_LSTM(lstm_coupled, 0, 1)
CYL_LSTM(lstm_coupled_peephole, 1, 1)
#undef CYL_LSTM
#undef CYL_ROWS_TOGETHER
