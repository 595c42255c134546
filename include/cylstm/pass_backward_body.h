/* Back through time for one real type and instruction set; see pass.h. */

/* out (rows, columns from..to) += a */
CYL_TARGET static void CYL_KERNEL(cyl_add_rows)(
    CYL_REAL *out, ptrdiff_t ld, const CYL_REAL *a, ptrdiff_t lda, ptrdiff_t row, ptrdiff_t row_end, ptrdiff_t from,
    ptrdiff_t to) {
    for (ptrdiff_t r = row; r < row_end; r++) {
        CYL_IVDEP
        for (ptrdiff_t j = from; j < to; j++) out[r * ld + j] += a[r * lda + j];
    }
}

/* Backward pass of cyl_mix: kept = mask through, through = (1 - mask) through. */
CYL_TARGET static void CYL_KERNEL(cyl_split)(
    CYL_REAL *through, ptrdiff_t ld, CYL_REAL *kept, const CYL_REAL *mask, double share, ptrdiff_t width,
    ptrdiff_t row, ptrdiff_t row_end, ptrdiff_t from, ptrdiff_t to) {
    for (ptrdiff_t r = row; r < row_end; r++)
        for (ptrdiff_t j = from; j < to; j++) {
            const CYL_REAL m = mask ? mask[r * width + j] : (CYL_REAL)share;
            kept[r * width + j] = m * through[r * ld + j];
            through[r * ld + j] = (1 - m) * through[r * ld + j];
        }
}

/* Backward pass of cyl_finish_step: gradients of the outputs of the cell from dL/dh_t and dL/dc_t. */
CYL_TARGET static void CYL_KERNEL(cyl_begin_step_back)(
    const cyl_pass *p, cyl_part *w, const cyl_step *s, ptrdiff_t end) {
    const ptrdiff_t from = CYL_COLUMNS(w->wide, p->P), to = CYL_COLUMNS(w->wide_end, p->P), panel = p->P * CYL_PANEL;
    CYL_REAL *dh = (CYL_REAL *)p->dh, *dy = CYL_ROW(p->dy, s->start, p->P);
    /* Rows that end at this step still hold dL/d(last h): no later step has touched them. */
    CYL_KERNEL(cyl_add_rows)(dh, p->Pp, dy, p->P, w->row, end, from, to);
    if (p->dh_steps)
        CYL_KERNEL(cyl_copy_rows)(CYL_ROW(p->dh_steps, s->start, p->P), p->P, dh, p->Pp, w->row, end, from, to);
    if (p->zoneout_h > 0)
        CYL_KERNEL(cyl_split)
        (dh, p->Pp, (CYL_REAL *)p->dh_retained, p->zone_h ? CYL_ROW(p->zone_h, s->start, p->P) : NULL, p->zoneout_h, p->P,
         w->row, end, from, to);
    if (p->zoneout_c > 0)
        CYL_KERNEL(cyl_split)
        ((CYL_REAL *)p->dc, p->Hp, (CYL_REAL *)p->dc_retained, p->zone_c ? CYL_ROW(p->zone_c, s->start, p->H) : NULL,
         p->zoneout_c, p->H, w->row, end, CYL_COLUMNS(w->unit, p->H), CYL_COLUMNS(w->unit_end, p->H));
    if (!p->w_hr) return;
    CYL_KERNEL(cyl_copy_rows)(dy, p->P, dh, p->Pp, w->row, end, from, to); /* for dW_hr */
    cyl_barrier(w);
    /* dL/dm_t = W_hr^T dL/dh_t */
    if (end > w->row)
        CYL_KERNEL(cyl_product)
        (0, CYL_ROW(p->dm, w->row, p->Hp) + w->unit * CYL_PANEL, p->Hp, CYL_PANEL, dh + w->row * p->Pp, p->Pp,
         end - w->row, (const CYL_REAL *)p->w_hr_t + w->unit * panel, panel, w->unit_end - w->unit, p->P);
    cyl_barrier(w);
    for (ptrdiff_t r = w->row; r < end && from < to; r++)
        memset(dh + r * p->Pp + from, 0, (size_t)(to - from) * sizeof(CYL_REAL));
}

CYL_TARGET static void CYL_KERNEL(cyl_pointwise_bwd)(
    const cyl_pass *p, const cyl_step *s, int stage, ptrdiff_t unit, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows) {
    const ptrdiff_t Hp = p->Hp;
    CYL_TYPED(cyl_backward) a;
    a.B = rows;
    a.H = n;
    a.gate = a.plane = a.ld_h = a.ld_c = a.ld_d = Hp;
    a.ld_gates = p->ld_gates;
    a.ld_extra = p->ld_extra;
    a.clip = (CYL_REAL)p->clip;
    a.gates = CYL_ROW(p->gates, s->start + row, p->ld_gates) + unit;
    a.extra = p->extra ? CYL_ROW(p->extra, s->start + row, p->ld_extra) + unit : NULL;
    a.dh = CYL_ROW(p->w_hr ? p->dm : p->dh, row, Hp) + unit;
    a.dc = p->dc ? CYL_ROW(p->dc, row, Hp) + unit : NULL;
    a.dextra = p->dextra ? CYL_ROW(p->dextra, row, Hp) + unit : NULL;
    a.h_prev = p->w_hr ? NULL : CYL_ROW(p->h, s->h_prev + row, Hp) + unit;
    a.c_prev = p->c ? CYL_ROW(p->c, s->c_prev + row, Hp) + unit : NULL;
    a.cell_parameters = p->cell_parameters ? (const CYL_REAL *)p->cell_parameters + unit : NULL;
    a.d_cell_parameters = p->d_cell_parameters ? (CYL_REAL *)p->d_cell_parameters + unit : NULL;
    CYL_PASTE(cyl_cells, CYL_SUFFIX)[p->cell].backward[stage][CYL_ISA_INDEX](&a);
}

/* Zeros where a row is padded: after an infinity in x or h there may be NaN, which would reach dh. Only what the
 * stage has written: another part may still read that of the stage before. */
CYL_TARGET static void CYL_KERNEL(cyl_clear_padding)(
    const cyl_pass *p, const cyl_step *s, int stage, ptrdiff_t row, ptrdiff_t row_end) {
    const size_t bytes = (size_t)(p->Hp - p->H) * sizeof(CYL_REAL);
    for (int k = 0; k < cyl_cell_shapes[p->cell].products; k++) {
        const cyl_product *q = &cyl_cell_shapes[p->cell].product[k];
        if (q->stage != stage) continue;
        for (ptrdiff_t r = s->start + row; r < s->start + row_end; r++)
            for (ptrdiff_t g = 0; g < q->count; g++) {
                memset(CYL_ROW(p->gates, r, p->ld_gates) + (q->first + g) * p->Hp + p->H, 0, bytes);
                if (q->to_extra) memset(CYL_ROW(p->extra, r, p->ld_extra) + g * p->Hp + p->H, 0, bytes);
            }
    }
}

/* dL/dh_{t-1}, or dL/d(extra), through the products of a stage. */
CYL_TARGET static void CYL_KERNEL(cyl_products_back)(
    const cyl_pass *p, const cyl_part *w, const cyl_step *s, int stage, ptrdiff_t end) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    const ptrdiff_t rows = end - w->row, panel = cell->gates * p->Hp * CYL_PANEL, place = w->wide * CYL_PANEL;
    const ptrdiff_t from = CYL_COLUMNS(w->wide, p->P), to = CYL_COLUMNS(w->wide_end, p->P);
    const CYL_REAL *mask = (const CYL_REAL *)p->mask_h;
    if (rows <= 0) return;
    for (int k = 0; k < cell->products; k++) {
        const cyl_product *q = &cell->product[k];
        if (q->stage != stage) continue;
        const CYL_REAL *dz = q->to_extra ? CYL_ROW(p->extra, s->start, p->ld_extra)
                                         : CYL_ROW(p->gates, s->start, p->ld_gates) + q->first * p->Hp;
        const ptrdiff_t ld = q->to_extra ? p->ld_extra : p->ld_gates;
        const CYL_REAL *w_t = (const CYL_REAL *)p->w_hh_t + w->wide * panel + q->first * p->Hp * CYL_PANEL;
        CYL_REAL *to_d = (CYL_REAL *)(q->from_extra ? p->dextra : mask ? p->dh_masked : p->dh);
        CYL_KERNEL(cyl_product_turned)
        (s->odd, !q->from_extra && !mask, to_d + w->row * p->Pp + place, p->Pp, CYL_PANEL, dz + w->row * ld, ld,
         rows, w_t, panel, w->wide_end - w->wide, q->count * p->Hp);
        if (!mask) continue;
        CYL_KERNEL(cyl_masked)(to_d, to_d, mask, p->Pp, p->P, w->row, end, from, to);
        if (!q->from_extra)
            CYL_KERNEL(cyl_add_rows)((CYL_REAL *)p->dh, p->Pp, to_d, p->Pp, w->row, end, from, to);
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_step_bwd)(const cyl_pass *p, cyl_part *w, const cyl_step *s) {
    const ptrdiff_t end = w->row_end < s->rows ? w->row_end : s->rows;
    CYL_KERNEL(cyl_begin_step_back)(p, w, s, end);
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    for (int stage = cell->stages - 1; stage >= 0; stage--) {
        if (cell->needs_rows) {
            cyl_barrier(w);
            if (w->index == 0) CYL_KERNEL(cyl_pointwise_bwd)(p, s, stage, 0, p->H, 0, s->rows);
        } else {
            for (ptrdiff_t panel = w->unit; panel < w->unit_end && end > w->row; panel++)
                CYL_KERNEL(cyl_pointwise_bwd)(p, s, stage, panel * CYL_PANEL, CYL_PANEL, w->row, end - w->row);
            if (w->unit_end * CYL_PANEL > p->H) CYL_KERNEL(cyl_clear_padding)(p, s, stage, w->row, end);
        }
        cyl_barrier(w);
        CYL_KERNEL(cyl_products_back)(p, w, s, stage, end);
    }
    if (p->zoneout_h > 0)
        CYL_KERNEL(cyl_add_rows)
        ((CYL_REAL *)p->dh, p->Pp, (const CYL_REAL *)p->dh_retained, p->P, w->row, end, CYL_COLUMNS(w->wide, p->P),
         CYL_COLUMNS(w->wide_end, p->P));
    if (p->zoneout_c > 0)
        CYL_KERNEL(cyl_add_rows)
        ((CYL_REAL *)p->dc, p->Hp, (const CYL_REAL *)p->dc_retained, p->H, w->row, end, CYL_COLUMNS(w->unit, p->H),
         CYL_COLUMNS(w->unit_end, p->H));
}

/* Rows of a block in descending time, and the rows of their previous states. */
typedef struct {
    ptrdiff_t count, row[CYL_ROWS_AT_ONCE], h_prev[CYL_ROWS_AT_ONCE];
} CYL_KERNEL(cyl_block);

/* Add the gradients of weights and biases of a block, for the units of this part. */
CYL_TARGET static void CYL_KERNEL(cyl_block_gradients)(
    const cyl_pass *p, const cyl_part *w, const CYL_KERNEL(cyl_block) * block) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    const ptrdiff_t H = p->H, Hp = p->Hp, G = cell->gates, written = cyl_planes_written(p->cell);
    const ptrdiff_t from = w->share * CYL_TILE, to = w->share_end * CYL_TILE < H ? w->share_end * CYL_TILE : H;
    const ptrdiff_t units = to - from, gate_strips = (w->share_end - w->share) * CYL_TILE * block->count;
    CYL_REAL *strips = (CYL_REAL *)p->strips + (G + written) * CYL_ROWS_AT_ONCE * from;
    CYL_REAL *of_extra = strips + G * gate_strips;
    for (ptrdiff_t g = 0; g < G + written; g++) {
        const int extra = g >= G;
        const CYL_REAL *a = extra ? (const CYL_REAL *)p->extra + (g - G) * Hp : (const CYL_REAL *)p->gates + g * Hp;
        CYL_KERNEL(cyl_cut_strips)
        (strips + g * gate_strips, a, extra ? p->ld_extra : p->ld_gates, block->row, block->count, from, to);
    }
    CYL_KERNEL(cyl_add_gradient)
    ((CYL_REAL *)p->dw_ih + from * p->I, p->I, units, p->I, strips, G, gate_strips, H, (const CYL_REAL *)p->x, p->I,
     block->row, block->count);
    for (int k = 0; k < cell->products; k++) {
        const cyl_product *q = &cell->product[k];
        const CYL_REAL *dz = q->to_extra ? of_extra : strips + q->first * gate_strips;
        const CYL_REAL *b = (const CYL_REAL *)(q->from_extra ? p->extra : p->mask_h ? p->h_masked : p->h);
        CYL_KERNEL(cyl_add_gradient)
        ((CYL_REAL *)p->dw_hh + (q->first * H + from) * p->P, p->P, units, p->P, dz, q->count, gate_strips, H, b,
         q->from_extra ? p->ld_extra : p->Pp, q->from_extra || p->mask_h ? block->row : block->h_prev, block->count);
    }
    if (!p->db_ih) return;
    CYL_KERNEL(cyl_add_sums)
    ((CYL_REAL *)p->db_ih, H, (const CYL_REAL *)p->gates, p->ld_gates, Hp, block->row, block->count, G, from, to);
    for (int k = 0; k < cell->products; k++) {
        const cyl_product *q = &cell->product[k];
        const CYL_REAL *dz = q->to_extra ? (const CYL_REAL *)p->extra : (const CYL_REAL *)p->gates + q->first * Hp;
        CYL_KERNEL(cyl_add_sums)
        ((CYL_REAL *)p->db_hh + q->first * H, H, dz, q->to_extra ? p->ld_extra : p->ld_gates, Hp, block->row,
         block->count, q->count, from, to);
    }
}

/* What a block adds to the gradient of the projection, dh being in dy. */
CYL_TARGET static void CYL_KERNEL(cyl_block_projection)(
    const cyl_pass *p, const cyl_part *w, const CYL_KERNEL(cyl_block) * block) {
    const ptrdiff_t planes = cyl_cell_shapes[p->cell].gates + cyl_planes_written(p->cell);
    const ptrdiff_t tiles = cyl_tiles(p->P, CYL_TILE), end = cyl_slice_start(tiles, w->index + 1, w->count) * CYL_TILE;
    const ptrdiff_t from = cyl_slice_start(tiles, w->index, w->count) * CYL_TILE, to = end < p->P ? end : p->P;
    CYL_REAL *strips =
        (CYL_REAL *)p->strips + CYL_ROWS_AT_ONCE * (planes * cyl_tiles(p->H, CYL_TILE) * CYL_TILE + from);
    CYL_KERNEL(cyl_cut_strips)(strips, (const CYL_REAL *)p->dy, p->P, block->row, block->count, from, to);
    CYL_KERNEL(cyl_add_gradient)
    ((CYL_REAL *)p->dw_hr + from * p->H, p->H, to - from, p->H, strips, 1, 0, 0, (const CYL_REAL *)p->m, p->Hp,
     block->row, block->count);
}

/* dL/dx = W_ih^T dz for rows [row, row_end). */
CYL_TARGET static void CYL_KERNEL(cyl_input_gradient)(
    const cyl_pass *p, const cyl_part *w, ptrdiff_t row, ptrdiff_t row_end) {
    const ptrdiff_t K = cyl_cell_shapes[p->cell].gates * p->Hp, rows = row_end - row;
    const ptrdiff_t first = row + rows * w->index / w->count, last = row + rows * (w->index + 1) / w->count;
    if (last > first)
        CYL_KERNEL(cyl_product_columns)
        (0, CYL_ROW(p->dx, first, p->I), p->I, 0, p->I, CYL_ROW(p->gates, first, p->ld_gates), p->ld_gates,
         last - first, (const CYL_REAL *)p->w_ih_t, K * CYL_PANEL, K);
}

/* Gradients of the steps [t, t_end), whose rows begin at `start`, in blocks of descending rows. */
CYL_TARGET static void CYL_KERNEL(cyl_gradients)(
    const cyl_pass *p, cyl_part *w, ptrdiff_t t, ptrdiff_t t_end, ptrdiff_t start, ptrdiff_t end) {
    CYL_KERNEL(cyl_block) block;
    ptrdiff_t step_start = end;
    block.count = 0;
    cyl_join(w);
    while (t_end > t) {
        const ptrdiff_t rows = p->rows[--t_end];
        step_start -= rows;
        const cyl_step s = cyl_step_back_at(p, t_end, step_start);
        for (ptrdiff_t r = rows - 1; r >= 0; r--) {
            block.row[block.count] = step_start + r;
            block.h_prev[block.count++] = s.h_prev + r;
            if (block.count < CYL_ROWS_AT_ONCE && (r > 0 || t_end > t)) continue;
            CYL_KERNEL(cyl_block_gradients)(p, w, &block);
            if (p->w_hr) CYL_KERNEL(cyl_block_projection)(p, w, &block);
            block.count = 0;
        }
    }
    if (!p->dx) return;
    cyl_join(w); /* dx may overwrite x or dy */
    CYL_KERNEL(cyl_input_gradient)(p, w, start, end);
}

/* Recompute the states before steps [t, last) of a checkpoint interval, whose rows end at `end`. */
CYL_TARGET static void CYL_KERNEL(cyl_recompute_states)(
    const cyl_pass *p, const cyl_part *w, ptrdiff_t t, ptrdiff_t last, ptrdiff_t end) {
    const ptrdiff_t Hp = p->Hp, from = w->unit * CYL_PANEL, to = w->unit_end * CYL_PANEL;
    const CYL_REAL *c_prev = CYL_ROW(p->c_checkpoints, t / CYL_SEGMENT * p->B, Hp);
    ptrdiff_t start = end, step = t > 0 ? t - 1 : 0;
    for (ptrdiff_t k = last; k > step; k--) start -= p->rows[k - 1];
    if (t == 0) {
        const ptrdiff_t rows = w->row_end < p->rows[0] ? w->row_end : p->rows[0];
        CYL_KERNEL(cyl_copy_rows)((CYL_REAL *)p->h_recomputed, Hp, p->h_checkpoint, Hp, w->row, rows, from, to);
        CYL_KERNEL(cyl_copy_rows)((CYL_REAL *)p->c_recomputed, Hp, c_prev, Hp, w->row, rows, from, to);
    }
    CYL_TYPED(cyl_forward) a;
    memset(&a, 0, sizeof a);
    a.H = to - from;
    a.gate = a.ld_h = a.ld_c = Hp;
    a.ld_gates = p->ld_gates;
    for (; step + 1 < last; start += p->rows[step++]) { /* of the sequences that go on */
        const ptrdiff_t rows = w->row_end < p->rows[step + 1] ? w->row_end : p->rows[step + 1];
        const ptrdiff_t place = cyl_recomputed_row(p, step + 1) + w->row;
        if (rows <= w->row) return;
        a.B = rows - w->row;
        a.gates = CYL_ROW(p->gates, start + w->row, p->ld_gates) + from;
        a.c_prev = c_prev + w->row * Hp + from;
        a.h = CYL_ROW(p->h_recomputed, place, Hp) + from;
        a.c = CYL_ROW(p->c_recomputed, place, Hp) + from;
        CYL_KERNEL(cyl_lstm_states)(&a, cyl_cell_shapes[p->cell].coupled);
        c_prev = a.c - w->row * Hp - from;
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_pass_bwd)(const cyl_pass *planned, cyl_part *w) {
    const unsigned mode = cyl_flush_subnormals();
    cyl_pass again = *planned;
    if (again.c_checkpoints) again.h = again.h_recomputed, again.c = again.c_recomputed;
    const cyl_pass *p = &again;
    ptrdiff_t t = p->T, start = p->N, span = t;
    while (t > 0) {
        const ptrdiff_t last = t, end = start;
        if (p->c_checkpoints && t == span) {
            span = (t - 1) / CYL_SEGMENT * CYL_SEGMENT;
            CYL_KERNEL(cyl_recompute_states)(p, w, span, t, end);
        }
        while (t > 0 && (t == last || (t != span && end - start + p->rows[t - 1] <= CYL_ROWS_AT_ONCE))) {
            start -= p->rows[--t];
            const cyl_step s = cyl_step_back_at(p, t, start);
            CYL_KERNEL(cyl_step_bwd)(p, w, &s);
        }
        CYL_KERNEL(cyl_gradients)(p, w, t, last, start, end);
    }
    cyl_restore_subnormals(mode);
}

#undef CYL_ROW
#undef CYL_SCRATCH_ROWS
#undef CYL_COLUMNS
