/* The dense layer for one real type and instruction set; see dense.h. */
CYL_TARGET static void CYL_KERNEL(cyl_dense)(
    CYL_REAL *y, const CYL_REAL *x, const CYL_REAL *w, const CYL_REAL *b, ptrdiff_t rows, ptrdiff_t inputs,
    ptrdiff_t outputs, ptrdiff_t ldx, ptrdiff_t from, ptrdiff_t to) {
    const unsigned mode = cyl_flush_subnormals();
    for (ptrdiff_t r = 0; r < rows && b && from < to; r++)
        memcpy(y + r * outputs + from, b + from, (size_t)(to - from) * sizeof(CYL_REAL));
    if (from < to)
        CYL_KERNEL(cyl_product_columns)
        (b != NULL, y, outputs, from, to, x, ldx, rows, w, inputs * CYL_PANEL, inputs);
    cyl_restore_subnormals(mode);
}

/* The slice of dW and db of a part. */
CYL_TARGET static void CYL_KERNEL(cyl_dense_weights)(
    const cyl_dense_gradients *d, const cyl_dense_share *s, CYL_REAL *strips) {
    const ptrdiff_t I = d->inputs, O = d->outputs;
    const ptrdiff_t at_once = cyl_dense_outputs_at_once(O, CYL_TILE, sizeof(CYL_REAL));
    const CYL_REAL *dy = (const CYL_REAL *)d->dy, *x = (const CYL_REAL *)d->x + s->input;
    ptrdiff_t place[CYL_ROWS_AT_ONCE];
    for (ptrdiff_t end = d->rows; end > 0;) {
        const ptrdiff_t n = end < CYL_ROWS_AT_ONCE ? end : CYL_ROWS_AT_ONCE;
        for (ptrdiff_t k = 0; k < n; k++) place[k] = --end;
        for (ptrdiff_t first = s->output; first < s->output_end; first += at_once) {
            const ptrdiff_t last = s->output_end - first < at_once ? s->output_end : first + at_once;
            CYL_KERNEL(cyl_cut_strips)(strips, dy, O, place, n, first, last);
            CYL_KERNEL(cyl_add_gradient)
            ((CYL_REAL *)d->dw + first * I + s->input, I, last - first, s->input_end - s->input, strips, 1, 0, 0, x,
             I, place, n);
        }
        if (d->db) CYL_KERNEL(cyl_add_sums)((CYL_REAL *)d->db, O, dy, O, 0, place, n, 1, s->bias, s->bias_end);
    }
}

/* dL/dx = W^T dL/dy for rows [row, row_end). */
CYL_TARGET static void CYL_KERNEL(cyl_dense_dx)(const cyl_dense_gradients *d, ptrdiff_t row, ptrdiff_t row_end) {
    const ptrdiff_t I = d->inputs, O = d->outputs;
    for (ptrdiff_t first = row; first < row_end; first += CYL_ROWS_AT_ONCE) { /* which stay in cache for all panels */
        const ptrdiff_t n = row_end - first < CYL_ROWS_AT_ONCE ? row_end - first : CYL_ROWS_AT_ONCE;
        CYL_KERNEL(cyl_product_columns)
        (0, (CYL_REAL *)d->dx + first * I, I, 0, I, (const CYL_REAL *)d->dy + first * O, O, n,
         (const CYL_REAL *)d->w_t, O * CYL_PANEL, O);
    }
}

CYL_TARGET static void CYL_KERNEL(cyl_dense_back)(
    const cyl_dense_gradients *d, int index, int count, cyl_barrier_slot *barrier_slots) {
    const unsigned mode = cyl_flush_subnormals();
    const cyl_dense_share s = cyl_dense_share_of(d, CYL_PANEL, CYL_TILE, sizeof(CYL_REAL), index, count);
    unsigned met = 0;
    CYL_KERNEL(cyl_dense_weights)
    (d, &s, (CYL_REAL *)d->strips + index * cyl_dense_strips(d->outputs, CYL_TILE, sizeof(CYL_REAL)));
    if (d->dx) {
        if (barrier_slots) cyl_barrier_wait(barrier_slots, index, count, &met); /* dx may overwrite x */
        CYL_KERNEL(cyl_dense_dx)(d, cyl_slice_start(d->rows, index, count), cyl_slice_start(d->rows, index + 1, count));
    }
    cyl_restore_subnormals(mode);
}
