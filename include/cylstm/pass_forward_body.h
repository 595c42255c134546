/* Forward over time for one real type and instruction set; see pass.h. */
#define CYL_ROW(array, index, ld) ((CYL_REAL *)(array) + (index) * (ld))
#define CYL_SCRATCH_ROWS 48

/* h_{t-1} as the products read it. */
CYL_TARGET CYL_INLINE const CYL_REAL *CYL_KERNEL(cyl_source)(const cyl_pass *p, const cyl_step *s) {
    return p->mask_h ? CYL_ROW(p->h_masked, s->start, p->Pp) : CYL_ROW(p->h, s->h_prev, p->Pp);
}

/* out = a mask over columns [from, to) of rows. */
CYL_TARGET static void CYL_KERNEL(cyl_masked)(
    CYL_REAL *out, const CYL_REAL *a, const CYL_REAL *mask, ptrdiff_t ld, ptrdiff_t ld_mask, ptrdiff_t row,
    ptrdiff_t row_end, ptrdiff_t from, ptrdiff_t to) {
    for (ptrdiff_t r = row; r < row_end; r++)
        for (ptrdiff_t j = from; j < to; j++) out[r * ld + j] = a[r * ld + j] * mask[r * ld_mask + j];
}

/* z (rows, G gates) = W_ih x for a panel of units, from packed row `row` on. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_input_product)(
    const cyl_pass *p, ptrdiff_t unit, ptrdiff_t row, ptrdiff_t rows, CYL_REAL *z, ptrdiff_t ldz, ptrdiff_t gate) {
    const ptrdiff_t G = cyl_cell_shapes[p->cell].gates, panel = p->I * CYL_PANEL;
    CYL_KERNEL(cyl_product)
    (0, z, ldz, gate, CYL_ROW(p->x, row, p->I), p->I, rows, (const CYL_REAL *)p->w_ih + unit * G * panel, panel, G,
     p->I);
}

/* Addresses of the gates and extra planes of a panel of units. */
typedef struct {
    CYL_REAL *gates, *extra;
    ptrdiff_t ld_gates, ld_extra, gate;
} CYL_KERNEL(cyl_planes);

/* The cell's products of a stage for a panel of units, rows [row, row + rows) of the step. */
CYL_TARGET static void CYL_KERNEL(cyl_state_products)(
    const cyl_pass *p, const cyl_step *s, int stage, ptrdiff_t unit, ptrdiff_t row, ptrdiff_t rows,
    const CYL_KERNEL(cyl_planes) * z) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    const ptrdiff_t panel = p->P * CYL_PANEL;
    for (int k = 0; k < cell->products; k++) {
        const cyl_product *q = &cell->product[k];
        if (q->stage != stage) continue;
        const CYL_REAL *w = (const CYL_REAL *)p->w_hh + (unit * cell->gates + q->first) * panel;
        const CYL_REAL *source = q->from_extra ? CYL_ROW(p->extra, s->once + row, p->ld_extra)
                                               : CYL_KERNEL(cyl_source)(p, s) + row * p->Pp;
        CYL_REAL *to = q->to_extra ? z->extra : z->gates + q->first * z->gate;
        CYL_KERNEL(cyl_product_turned)
        (s->odd, !q->to_extra, to, q->to_extra ? z->ld_extra : z->ld_gates, z->gate, source,
         q->from_extra ? p->ld_extra : p->Pp, rows, w, panel, q->count, p->P);
    }
}

/* The cell's pointwise function on n units from `unit` on, n = PANEL or, for whole rows, H. */
CYL_TARGET static void CYL_KERNEL(cyl_pointwise_fwd)(
    const cyl_pass *p, const cyl_step *s, int stage, ptrdiff_t unit, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows,
    const CYL_KERNEL(cyl_planes) * z) {
    const ptrdiff_t Hp = p->Hp;
    CYL_TYPED(cyl_forward) a;
    a.B = rows;
    a.H = n;
    a.gate = z->gate;
    a.plane = a.ld_h = a.ld_c = Hp;
    a.ld_gates = z->ld_gates;
    a.ld_extra = z->ld_extra;
    a.clip = (CYL_REAL)p->clip;
    a.gates = z->gates;
    a.extra = z->extra;
    a.h = (p->w_hr ? CYL_ROW(p->m, s->once + row, Hp) : CYL_ROW(p->h, s->h + row, Hp)) + unit;
    a.h_prev = p->w_hr ? NULL : CYL_ROW(p->h, s->h_prev + row, Hp) + unit;
    a.c = p->c ? CYL_ROW(p->c, s->c + row, Hp) + unit : NULL;
    a.c_prev = p->c ? CYL_ROW(p->c, s->c_prev + row, Hp) + unit : NULL;
    a.b_ih = (const CYL_REAL *)p->b_ih + unit;
    a.b_hh = (const CYL_REAL *)p->b_hh + unit;
    a.cell_parameters = p->cell_parameters ? (const CYL_REAL *)p->cell_parameters + unit : NULL;
    CYL_PASTE(cyl_cells, CYL_SUFFIX)[p->cell].forward[stage][CYL_ISA_INDEX](&a);
}

/* The gates and extra planes of a panel where the pass keeps them: z_row is the row of step rows' beginning. */
CYL_TARGET CYL_INLINE CYL_KERNEL(cyl_planes) CYL_KERNEL(cyl_planes_at)(
    const cyl_pass *p, ptrdiff_t z_row, ptrdiff_t once, ptrdiff_t unit) {
    CYL_KERNEL(cyl_planes) z;
    z.gates = CYL_ROW(p->gates, z_row, p->ld_gates) + unit;
    z.extra = p->extra ? CYL_ROW(p->extra, once, p->ld_extra) + unit : NULL;
    z.ld_gates = p->ld_gates;
    z.ld_extra = p->ld_extra;
    z.gate = p->Hp;
    return z;
}

/* One step of a cell that works on panels, by panels: products, then pointwise. With `fused`, x's product too. */
CYL_TARGET static void CYL_KERNEL(cyl_panels_fwd)(
    const cyl_pass *p, const cyl_part *w, const cyl_step *s, int stage, int fused, ptrdiff_t z_row) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    const ptrdiff_t end = w->row_end < s->rows ? w->row_end : s->rows;
    const int in_scratch = fused && !p->trains && cell->stages == 1;
    const ptrdiff_t most = in_scratch ? CYL_SCRATCH_ROWS : p->B;
    CYL_REAL scratch[CYL_SCRATCH_ROWS * 4 * CYL_PANEL] __attribute__((aligned(64)));
    for (ptrdiff_t k = 0; k < w->unit_end - w->unit; k++) {
        /* Alternate directions, because the last panels of the previous step are still in cache. */
        const ptrdiff_t panel = s->odd ? w->unit_end - 1 - k : w->unit + k, unit = panel * CYL_PANEL;
        for (ptrdiff_t row = w->row; row < end; row += most) {
            const ptrdiff_t rows = end - row < most ? end - row : most;
            CYL_KERNEL(cyl_planes) z = CYL_KERNEL(cyl_planes_at)(p, z_row + row, s->once + row, unit);
            if (in_scratch) {
                z.gates = scratch;
                z.extra = scratch + 3 * CYL_PANEL;
                z.ld_gates = z.ld_extra = 4 * CYL_PANEL;
                z.gate = CYL_PANEL;
            }
            if (fused && stage == 0)
                CYL_KERNEL(cyl_input_product)(p, panel, s->start + row, rows, z.gates, z.ld_gates, z.gate);
            CYL_KERNEL(cyl_state_products)(p, s, stage, panel, row, rows, &z);
            CYL_KERNEL(cyl_pointwise_fwd)(p, s, stage, unit, CYL_PANEL, row, rows, &z);
        }
    }
}

/* One step of a cell that needs whole rows: products by panels, then the first part does the rest. */
CYL_TARGET static void CYL_KERNEL(cyl_rows_fwd)(
    const cyl_pass *p, cyl_part *w, const cyl_step *s, int fused, ptrdiff_t z_row) {
    CYL_KERNEL(cyl_planes) z;
    for (ptrdiff_t panel = w->unit; panel < w->unit_end; panel++) {
        z = CYL_KERNEL(cyl_planes_at)(p, z_row, s->once, panel * CYL_PANEL);
        if (fused) CYL_KERNEL(cyl_input_product)(p, panel, s->start, s->rows, z.gates, z.ld_gates, z.gate);
        CYL_KERNEL(cyl_state_products)(p, s, 0, panel, 0, s->rows, &z);
    }
    cyl_barrier(w);
    z = CYL_KERNEL(cyl_planes_at)(p, z_row, s->once, 0);
    if (w->index == 0) CYL_KERNEL(cyl_pointwise_fwd)(p, s, 0, 0, p->H, 0, s->rows, &z);
    cyl_barrier(w);
}

/* Zoneout (Krueger et al. 2017): out = (1 - mask) out + mask before; `share` is the mask if that is NULL. */
CYL_TARGET static void CYL_KERNEL(cyl_mix)(
    CYL_REAL *out, const CYL_REAL *before, const CYL_REAL *mask, double share, ptrdiff_t ld, ptrdiff_t ld_mask,
    ptrdiff_t row, ptrdiff_t row_end, ptrdiff_t from, ptrdiff_t to) {
    for (ptrdiff_t r = row; r < row_end; r++)
        for (ptrdiff_t j = from; j < to; j++) {
            const CYL_REAL m = mask ? mask[r * ld_mask + j] : (CYL_REAL)share;
            out[r * ld + j] = (1 - m) * out[r * ld + j] + m * before[r * ld + j];
        }
}

CYL_TARGET static void CYL_KERNEL(cyl_copy_rows)(
    CYL_REAL *out, ptrdiff_t ld, const CYL_REAL *a, ptrdiff_t lda, ptrdiff_t row, ptrdiff_t row_end, ptrdiff_t from,
    ptrdiff_t to) {
    for (ptrdiff_t r = row; r < row_end && from < to; r++)
        memcpy(out + r * ld + from, a + r * lda + from, (size_t)(to - from) * sizeof(CYL_REAL));
}

/* Columns of a part's panels that there are. */
#define CYL_COLUMNS(panel, width) ((panel) * CYL_PANEL < (width) ? (panel) * CYL_PANEL : (width))

/* Apply the projection of h, then zoneout of both states. */
CYL_TARGET static void CYL_KERNEL(cyl_finish_step)(const cyl_pass *p, cyl_part *w, const cyl_step *s) {
    const ptrdiff_t end = w->row_end < s->rows ? w->row_end : s->rows, panel = p->H * CYL_PANEL;
    const ptrdiff_t from = CYL_COLUMNS(w->wide, p->P), to = CYL_COLUMNS(w->wide_end, p->P);
    if (p->w_hr) {
        cyl_barrier(w);
        /* h_t = W_hr m_t */
        if (end > w->row)
            CYL_KERNEL(cyl_product)
            (0, CYL_ROW(p->h, s->h + w->row, p->Pp) + w->wide * CYL_PANEL, p->Pp, CYL_PANEL,
             CYL_ROW(p->m, s->once + w->row, p->Hp), p->Hp, end - w->row,
             (const CYL_REAL *)p->w_hr + w->wide * panel, panel, w->wide_end - w->wide, p->H);
    }
    if (p->zoneout_h > 0)
        CYL_KERNEL(cyl_mix)
        (CYL_ROW(p->h, s->h, p->Pp), CYL_ROW(p->h, s->h_prev, p->Pp),
         p->zone_h ? CYL_ROW(p->zone_h, s->start, p->P) : NULL, p->zoneout_h, p->Pp, p->P, w->row, end, from, to);
    if (p->zoneout_c > 0)
        CYL_KERNEL(cyl_mix)
        (CYL_ROW(p->c, s->c, p->Hp), CYL_ROW(p->c, s->c_prev, p->Hp),
         p->zone_c ? CYL_ROW(p->zone_c, s->start, p->H) : NULL, p->zoneout_c, p->Hp, p->H, w->row, end,
         CYL_COLUMNS(w->unit, p->H), CYL_COLUMNS(w->unit_end, p->H));
    cyl_barrier(w);
}

CYL_TARGET static void CYL_KERNEL(cyl_step_fwd)(
    const cyl_pass *p, cyl_part *w, const cyl_step *s, int fused, ptrdiff_t z_row) {
    const ptrdiff_t end = w->row_end < s->rows ? w->row_end : s->rows;
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    if (p->mask_h) {
        CYL_KERNEL(cyl_masked)
        (CYL_ROW(p->h_masked, s->start, p->Pp), CYL_ROW(p->h, s->h_prev, p->Pp), (const CYL_REAL *)p->mask_h, p->Pp,
         p->P, w->row, end, CYL_COLUMNS(w->wide, p->P), CYL_COLUMNS(w->wide_end, p->P));
        cyl_barrier(w);
    }
    if (cell->needs_rows) {
        CYL_KERNEL(cyl_rows_fwd)(p, w, s, fused, z_row);
    } else {
        for (int stage = 0; stage < cell->stages; stage++) {
            CYL_KERNEL(cyl_panels_fwd)(p, w, s, stage, fused, z_row);
            if (stage + 1 == cell->stages) continue;
            if (p->mask_h) /* on what the next stage's product reads */
                CYL_KERNEL(cyl_masked)
                (CYL_ROW(p->extra, s->once, p->ld_extra), CYL_ROW(p->extra, s->once, p->ld_extra),
                 (const CYL_REAL *)p->mask_h, p->ld_extra, p->P, w->row, end, CYL_COLUMNS(w->unit, p->H),
                 CYL_COLUMNS(w->unit_end, p->H));
            cyl_barrier(w);
        }
    }
    CYL_KERNEL(cyl_finish_step)(p, w, s);
}

/* Save checkpoints: the initial states, and c before the last step of each interval. */
CYL_TARGET static void CYL_KERNEL(cyl_keep_states)(const cyl_pass *p, const cyl_part *w, ptrdiff_t t, const cyl_step *s) {
    const ptrdiff_t end = w->row_end < s->rows ? w->row_end : s->rows, place = (t + 1) / CYL_SEGMENT * p->B;
    const ptrdiff_t Hp = p->Hp, from = w->unit * CYL_PANEL, to = w->unit_end * CYL_PANEL;
    if (t > 0 && ((t + 1) % CYL_SEGMENT || t + 1 == p->T)) return;
    if (t == 0) CYL_KERNEL(cyl_copy_rows)((CYL_REAL *)p->h_checkpoint, Hp, (CYL_REAL *)p->h, Hp, w->row, end, from, to);
    CYL_KERNEL(cyl_copy_rows)
    (CYL_ROW(p->c_checkpoints, place, Hp), Hp, CYL_ROW(p->c, s->c_prev, Hp), Hp, w->row, end, from, to);
}

CYL_TARGET static void CYL_KERNEL(cyl_pass_fwd)(const cyl_pass *p, cyl_part *w) {
    const unsigned mode = cyl_flush_subnormals();
    const int fused = p->B >= CYL_FEW_ROWS || w->row > 0 || w->row_end < p->B;
    ptrdiff_t t = 0, start = 0;
    while (t < p->T) {
        const ptrdiff_t first = start;
        ptrdiff_t rows = 0, last = t;
        while (last < p->T && (last == t || (!fused && rows + p->rows[last] <= CYL_ROWS_AHEAD)))
            rows += p->rows[last++];
        for (ptrdiff_t panel = w->unit; panel < w->unit_end && !fused; panel++) {
            CYL_REAL *z = CYL_ROW(p->gates, p->trains ? first : 0, p->ld_gates) + panel * CYL_PANEL;
            CYL_KERNEL(cyl_input_product)(p, panel, first, rows, z, p->ld_gates, p->Hp);
        }
        for (; t < last; t++) {
            const cyl_step s = cyl_step_at(p, t, start);
            if (p->c_checkpoints) CYL_KERNEL(cyl_keep_states)(p, w, t, &s);
            CYL_KERNEL(cyl_step_fwd)(p, w, &s, fused, p->trains ? start : start - first);
            start += s.rows;
        }
    }
    cyl_restore_subnormals(mode);
}
