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
