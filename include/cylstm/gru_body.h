/* GRU for one real type and instruction set; see gru.h and the contract in cells.h. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_gru_any_fwd)(
    const CYL_TYPED(cyl_forward) *a, const ptrdiff_t H, const int clips) {
    const ptrdiff_t Z = a->gate, N = 2 * Z, PZ = a->plane, PN = 2 * PZ;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *u_n = a->extra + b * a->ld_extra, *h = a->h + b * a->ld_h;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = CYL_TYPED(cyl_sigmoid_gate)(gates[j] + (b_ih[j] + b_hh[j]), clip, clips);
            const CYL_REAL z = CYL_TYPED(cyl_sigmoid_gate)(gates[Z + j] + (b_ih[PZ + j] + b_hh[PZ + j]), clip, clips);
            const CYL_REAL u = u_n[j] + b_hh[PN + j];
            const CYL_REAL n = CYL_TYPED(cyl_tanh_gate)(gates[N + j] + b_ih[PN + j] + r * u, clip, clips);
            gates[j] = r;
            gates[Z + j] = z;
            gates[N + j] = n;
            u_n[j] = u;
            h[j] = (1 - z) * n + z * h_prev[j];
        }
    }
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_gru_any_bwd)(
    const CYL_TYPED(cyl_backward) *a, const ptrdiff_t H, const int clips) {
    const ptrdiff_t Z = a->gate, N = 2 * Z;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *u_n = a->extra + b * a->ld_extra, *dh = a->dh + b * a->ld_d;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = gates[j], z = gates[Z + j], n = gates[N + j];
            const CYL_REAL dn = dh[j] * (1 - z) * CYL_TYPED(cyl_tanh_slope)(n, bound, clips);
            gates[j] = dn * u_n[j] * CYL_TYPED(cyl_sigmoid_slope)(r, bound, clips);
            gates[Z + j] = dh[j] * (h_prev[j] - n) * CYL_TYPED(cyl_sigmoid_slope)(z, bound, clips);
            gates[N + j] = dn;
            u_n[j] = dn * r;
            dh[j] = dh[j] * z;
        }
    }
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_gru_reset_any_fwd)(
    const CYL_TYPED(cyl_forward) *a, const ptrdiff_t H, const int clips) {
    const ptrdiff_t Z = a->gate, PZ = a->plane;
    const CYL_REAL *b_ih = a->b_ih, *b_hh = a->b_hh, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gates = a->gates + b * a->ld_gates, *rh = a->extra + b * a->ld_extra;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = CYL_TYPED(cyl_sigmoid_gate)(gates[j] + (b_ih[j] + b_hh[j]), clip, clips);
            gates[j] = r;
            gates[Z + j] = CYL_TYPED(cyl_sigmoid_gate)(gates[Z + j] + (b_ih[PZ + j] + b_hh[PZ + j]), clip, clips);
            rh[j] = r * h_prev[j];
        }
    }
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_gru_update_any_fwd)(
    const CYL_TYPED(cyl_forward) *a, const ptrdiff_t H, const int clips) {
    const ptrdiff_t Z = a->gate, PN = 2 * a->plane;
    const CYL_REAL *b_ih = a->b_ih + PN, *b_hh = a->b_hh + PN, clip = a->clip;
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *z = a->gates + b * a->ld_gates + Z, *gate_n = z + Z, *h = a->h + b * a->ld_h;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL n = CYL_TYPED(cyl_tanh_gate)(gate_n[j] + (b_ih[j] + b_hh[j]), clip, clips);
            gate_n[j] = n;
            h[j] = (1 - z[j]) * n + z[j] * h_prev[j];
        }
    }
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_gru_update_any_bwd)(
    const CYL_TYPED(cyl_backward) *a, const ptrdiff_t H, const int clips) {
    const ptrdiff_t Z = a->gate;
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gate_z = a->gates + b * a->ld_gates + Z, *gate_n = gate_z + Z, *dh = a->dh + b * a->ld_d;
        const CYL_REAL *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL z = gate_z[j], n = gate_n[j];
            gate_n[j] = dh[j] * (1 - z) * CYL_TYPED(cyl_tanh_slope)(n, bound, clips);
            gate_z[j] = dh[j] * (h_prev[j] - n) * CYL_TYPED(cyl_sigmoid_slope)(z, bound, clips);
            dh[j] = dh[j] * z;
        }
    }
}

CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_gru_reset_any_bwd)(
    const CYL_TYPED(cyl_backward) *a, const ptrdiff_t H, const int clips) {
    const CYL_TYPED(cyl_bound) bound = CYL_TYPED(cyl_bound_of)(a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++) {
        CYL_REAL *gate_r = a->gates + b * a->ld_gates, *dh = a->dh + b * a->ld_d;
        const CYL_REAL *drh = a->dextra + b * a->ld_d, *h_prev = a->h_prev + b * a->ld_h;
        CYL_IVDEP
        for (ptrdiff_t j = 0; j < H; j++) {
            const CYL_REAL r = gate_r[j];
            gate_r[j] = drh[j] * h_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(r, bound, clips);
            dh[j] += drh[j] * r;
        }
    }
}

#define CYL_GRU(name, way, arguments)                                                       \
    CYL_TARGET static void CYL_KERNEL(cyl_##name##_##way)(const CYL_TYPED(arguments) *a) {  \
        CYL_CHOOSE(CYL_KERNEL(cyl_##name##_any_##way), a);                                  \
    }
CYL_GRU(gru, fwd, cyl_forward)
CYL_GRU(gru, bwd, cyl_backward)
CYL_GRU(gru_reset, fwd, cyl_forward)
CYL_GRU(gru_reset, bwd, cyl_backward)
CYL_GRU(gru_update, fwd, cyl_forward)
CYL_GRU(gru_update, bwd, cyl_backward)
#undef CYL_GRU
