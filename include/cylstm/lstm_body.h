/* LSTM for one real type and instruction set; see lstm.h and the contract in cells.h. */
CYL_TARGET static void CYL_KERNEL(cyl_lstm_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 4 * H;
        CYL_REAL *h = a->h + b * H;
        CYL_REAL *c = a->c + b * H;
        const CYL_REAL *c_prev = a->c_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = CYL_TYPED(cyl_sigmoid)(gates[j] + (b_ih[j] + b_hh[j]));
            const CYL_REAL f = CYL_TYPED(cyl_sigmoid)(gates[H + j] + (b_ih[H + j] + b_hh[H + j]));
            const CYL_REAL g = CYL_TYPED(cyl_tanh)(gates[2 * H + j] + (b_ih[2 * H + j] + b_hh[2 * H + j]));
            const CYL_REAL o = CYL_TYPED(cyl_sigmoid)(gates[3 * H + j] + (b_ih[3 * H + j] + b_hh[3 * H + j]));
            const CYL_REAL cell = f * c_prev[j] + i * g;
            gates[j] = i;
            gates[H + j] = f;
            gates[2 * H + j] = g;
            gates[3 * H + j] = o;
            c[j] = cell;
            h[j] = o * CYL_TYPED(cyl_tanh)(cell);
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_lstm_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 4 * H;
        CYL_REAL *dc = a->dc + b * H;
        CYL_REAL *dh = a->dh + b * H;
        const CYL_REAL *c = a->c + b * H;
        const CYL_REAL *c_prev = a->c_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL i = gates[j], f = gates[H + j], g = gates[2 * H + j], o = gates[3 * H + j];
            const CYL_REAL s = CYL_TYPED(cyl_tanh)(c[j]);
            const CYL_REAL dcell = dc[j] + dh[j] * o * (1 - s * s);
            gates[j] = dcell * g * i * (1 - i);
            gates[H + j] = dcell * c_prev[j] * f * (1 - f);
            gates[2 * H + j] = dcell * i * (1 - g * g);
            gates[3 * H + j] = dh[j] * s * o * (1 - o);
            dc[j] = dcell * f;
            dh[j] = 0;
        }
    }
}
