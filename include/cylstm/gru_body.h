/* GRU for one real type and instruction set; see gru.h and the contract in cells.h. */
CYL_TARGET static void CYL_KERNEL(cyl_gru_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 3 * H, *u_n = a->extra + b * H, *h = a->h + b * H;
        const CYL_REAL *h_prev = a->h_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = CYL_TYPED(cyl_sigmoid_gate)(gates[j] + (b_ih[j] + b_hh[j]), clip);
            const CYL_REAL z = CYL_TYPED(cyl_sigmoid_gate)(gates[H + j] + (b_ih[H + j] + b_hh[H + j]), clip);
            const CYL_REAL u = u_n[j] + b_hh[2 * H + j];
            const CYL_REAL n = CYL_TYPED(cyl_tanh_gate)(gates[2 * H + j] + b_ih[2 * H + j] + r * u, clip);
            gates[j] = r;
            gates[H + j] = z;
            gates[2 * H + j] = n;
            u_n[j] = u;
            h[j] = (1 - z) * n + z * h_prev[j];
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 3 * H, *u_n = a->extra + b * H, *dh = a->dh + b * H;
        const CYL_REAL *h_prev = a->h_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = gates[j], z = gates[H + j], n = gates[2 * H + j];
            const CYL_REAL dn = dh[j] * (1 - z) * CYL_TYPED(cyl_tanh_slope)(n, bound);
            gates[j] = dn * u_n[j] * CYL_TYPED(cyl_sigmoid_slope)(r, bound);
            gates[H + j] = dh[j] * (h_prev[j] - n) * CYL_TYPED(cyl_sigmoid_slope)(z, bound);
            gates[2 * H + j] = dn;
            u_n[j] = dn * r;
            dh[j] = dh[j] * z;
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_reset_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * 3 * H, *rh = a->extra + b * H;
        const CYL_REAL *h_prev = a->h_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = CYL_TYPED(cyl_sigmoid_gate)(gates[j] + (b_ih[j] + b_hh[j]), clip);
            gates[j] = r;
            gates[H + j] = CYL_TYPED(cyl_sigmoid_gate)(gates[H + j] + (b_ih[H + j] + b_hh[H + j]), clip);
            rh[j] = r * h_prev[j];
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_update_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_REAL *b_ih = a->b_ih + 2 * H, *b_hh = a->b_hh + 2 * H, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *z = a->gates + b * 3 * H + H, *gate_n = z + H, *h = a->h + b * H;
        const CYL_REAL *h_prev = a->h_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL n = CYL_TYPED(cyl_tanh_gate)(gate_n[j] + (b_ih[j] + b_hh[j]), clip);
            gate_n[j] = n;
            h[j] = (1 - z[j]) * n + z[j] * h_prev[j];
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_update_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gate_z = a->gates + b * 3 * H + H, *gate_n = gate_z + H, *dh = a->dh + b * H;
        const CYL_REAL *h_prev = a->h_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL z = gate_z[j], n = gate_n[j];
            gate_n[j] = dh[j] * (1 - z) * CYL_TYPED(cyl_tanh_slope)(n, bound);
            gate_z[j] = dh[j] * (h_prev[j] - n) * CYL_TYPED(cyl_sigmoid_slope)(z, bound);
            dh[j] = dh[j] * z;
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_reset_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gate_r = a->gates + b * 3 * H, *dh = a->dh + b * H;
        const CYL_REAL *drh = a->dextra + b * H, *h_prev = a->h_prev + b * H;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = gate_r[j];
            gate_r[j] = drh[j] * h_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(r, bound);
            dh[j] += drh[j] * r;
        }
    }
}
