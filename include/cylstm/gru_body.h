/* GRU for one real type and instruction set; see gru.h and the contract in cells.h. */
CYL_TARGET static void CYL_KERNEL(cyl_gru_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H, Z = a->gate, N = 2 * Z, PZ = a->plane, PN = 2 * PZ;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *u_n = a->extra + b * a->ld_extra, *h = a->h + b * a->ld_h;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = CYL_TYPED(cyl_sigmoid_gate)(gates[j] + (b_ih[j] + b_hh[j]), clip);
            const CYL_REAL z = CYL_TYPED(cyl_sigmoid_gate)(gates[Z + j] + (b_ih[PZ + j] + b_hh[PZ + j]), clip);
            const CYL_REAL u = u_n[j] + b_hh[PN + j];
            const CYL_REAL n = CYL_TYPED(cyl_tanh_gate)(gates[N + j] + b_ih[PN + j] + r * u, clip);
            gates[j] = r;
            gates[Z + j] = z;
            gates[N + j] = n;
            u_n[j] = u;
            h[j] = (1 - z) * n + z * h_prev[j];
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H, Z = a->gate, N = 2 * Z;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *u_n = a->extra + b * a->ld_extra, *dh = a->dh + b * a->ld_d;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = gates[j], z = gates[Z + j], n = gates[N + j];
            const CYL_REAL dn = dh[j] * (1 - z) * CYL_TYPED(cyl_tanh_slope)(n, bound);
            gates[j] = dn * u_n[j] * CYL_TYPED(cyl_sigmoid_slope)(r, bound);
            gates[Z + j] = dh[j] * (h_prev[j] - n) * CYL_TYPED(cyl_sigmoid_slope)(z, bound);
            gates[N + j] = dn;
            u_n[j] = dn * r;
            dh[j] = dh[j] * z;
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_reset_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H, Z = a->gate, PZ = a->plane;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *rh = a->extra + b * a->ld_extra;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = CYL_TYPED(cyl_sigmoid_gate)(gates[j] + (b_ih[j] + b_hh[j]), clip);
            gates[j] = r;
            gates[Z + j] = CYL_TYPED(cyl_sigmoid_gate)(gates[Z + j] + (b_ih[PZ + j] + b_hh[PZ + j]), clip);
            rh[j] = r * h_prev[j];
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_update_fwd)(const CYL_TYPED(cyl_forward) *a) {
    const ptrdiff_t H = a->H, Z = a->gate, PN = 2 * a->plane;
    const CYL_REAL *b_ih = a->b_ih + PN, *b_hh = a->b_hh + PN, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *z = a->gates + b * a->ld_gates + Z, *gate_n = z + Z, *h = a->h + b * a->ld_h;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL n = CYL_TYPED(cyl_tanh_gate)(gate_n[j] + (b_ih[j] + b_hh[j]), clip);
            gate_n[j] = n;
            h[j] = (1 - z[j]) * n + z[j] * h_prev[j];
        }
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_gru_update_bwd)(const CYL_TYPED(cyl_backward) *a) {
    const ptrdiff_t H = a->H, Z = a->gate;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gate_z = a->gates + b * a->ld_gates + Z, *gate_n = gate_z + Z, *dh = a->dh + b * a->ld_d;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
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
        CYL_REAL *gate_r = a->gates + b * a->ld_gates, *dh = a->dh + b * a->ld_d;
        const CYL_REAL *drh = a->dextra + b * a->ld_d, *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = gate_r[j];
            gate_r[j] = drh[j] * h_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(r, bound);
            dh[j] += drh[j] * r;
        }
    }
}
