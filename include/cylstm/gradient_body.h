/* Gradients of weights and biases for one real type and instruction set; see gradient.h. */

/* Strips of columns [from, to) of rows of a (., ld), CYL_TILE wide: strip i holds count rows of CYL_TILE numbers.
 * Within a larger function GCC would keep the pointers of its loops in memory. */
CYL_TARGET __attribute__((noinline)) static void CYL_KERNEL(cyl_cut_strips)(
    CYL_REAL *out, const CYL_REAL *a, ptrdiff_t ld, const ptrdiff_t *place, ptrdiff_t count, ptrdiff_t from,
    ptrdiff_t to) {
    for (ptrdiff_t first = from; first < to; first += CYL_TILE, out += count * CYL_TILE) {
        const ptrdiff_t n = to - first < CYL_TILE ? to - first : CYL_TILE;
        for (ptrdiff_t k = 0; k < count; k++) {
            const CYL_REAL *row = a + place[k] * ld + first;
            if (n == CYL_TILE) /* a length that the compiler knows */
                memcpy(out + k * CYL_TILE, row, CYL_TILE * sizeof(CYL_REAL));
            else
                for (ptrdiff_t m = 0; m < n; m++) out[k * CYL_TILE + m] = row[m];
        }
    }
}

/* dw (units, columns), with ldw from row to row, += strips^T . b, b's rows being those of `place`, `columns` wide,
 * descending. A panel of them is copied together for its tiles, unless there is one only. */
CYL_TARGET static void CYL_KERNEL(cyl_add_gradient)(
    CYL_REAL *dw, ptrdiff_t ldw, ptrdiff_t units, ptrdiff_t columns, const CYL_REAL *strips, ptrdiff_t gates,
    ptrdiff_t gate_strips, ptrdiff_t gate_rows, const CYL_REAL *b, ptrdiff_t ldb, const ptrdiff_t *place,
    ptrdiff_t count) {
    CYL_REAL panel[CYL_ROWS_AT_ONCE * CYL_PANEL] __attribute__((aligned(64))), tile[12 * CYL_PANEL];
    const int one_tile = gates == 1 && units <= CYL_TILE && place[0] - place[count - 1] == count - 1;
    for (ptrdiff_t from = 0; from < columns; from += CYL_PANEL) {
        const ptrdiff_t n = columns - from < CYL_PANEL ? columns - from : CYL_PANEL;
        if (one_tile && n == CYL_PANEL) {
            CYL_KERNEL(cyl_tile_strip)((int)units, dw + from, ldw, strips, b + place[0] * ldb + from, -ldb, count);
            continue;
        }
        if (n < CYL_PANEL) memset(panel, 0, (size_t)(count * CYL_PANEL) * sizeof(CYL_REAL));
        for (ptrdiff_t k = 0; k < count; k++)
            memcpy(panel + k * CYL_PANEL, b + place[k] * ldb + from, (size_t)n * sizeof(CYL_REAL));
        for (ptrdiff_t g = 0; g < gates; g++)
            for (ptrdiff_t first = 0; first < units; first += CYL_TILE) {
                const ptrdiff_t m = units - first < CYL_TILE ? units - first : CYL_TILE;
                const CYL_REAL *a = strips + g * gate_strips + first * count;
                CYL_REAL *out = dw + (g * gate_rows + first) * ldw + from;
                if (n == CYL_PANEL) {
                    CYL_KERNEL(cyl_tile_strip)((int)m, out, ldw, a, panel, CYL_PANEL, count);
                    continue;
                }
                memset(tile, 0, sizeof tile);
                for (ptrdiff_t r = 0; r < m; r++)
                    memcpy(tile + r * CYL_PANEL, out + r * ldw, (size_t)n * sizeof(CYL_REAL));
                CYL_KERNEL(cyl_tile_strip)((int)m, tile, CYL_PANEL, a, panel, CYL_PANEL, count);
                for (ptrdiff_t r = 0; r < m; r++)
                    memcpy(out + r * ldw, tile + r * CYL_PANEL, (size_t)n * sizeof(CYL_REAL));
            }
    }
}

/* db (gates, units) += rows of dz, units [from, to); four at once, for a sum waits long on its way through memory. */
CYL_TARGET static void CYL_KERNEL(cyl_add_sums)(
    CYL_REAL *db, ptrdiff_t units, const CYL_REAL *dz, ptrdiff_t ld, ptrdiff_t gate, const ptrdiff_t *place,
    ptrdiff_t count, ptrdiff_t gates, ptrdiff_t from, ptrdiff_t to) {
    for (ptrdiff_t g = 0; g < gates; g++, db += units, dz += gate) {
        ptrdiff_t k = 0;
        for (; k + 4 <= count; k += 4) {
            const CYL_REAL *z0 = dz + place[k] * ld, *z1 = dz + place[k + 1] * ld;
            const CYL_REAL *z2 = dz + place[k + 2] * ld, *z3 = dz + place[k + 3] * ld;
            CYL_IVDEP
            for (ptrdiff_t j = from; j < to; j++) db[j] = db[j] + z0[j] + z1[j] + z2[j] + z3[j];
        }
        for (; k < count; k++) {
            const CYL_REAL *z = dz + place[k] * ld;
            CYL_IVDEP
            for (ptrdiff_t j = from; j < to; j++) db[j] += z[j];
        }
    }
}
