/* Packing of weights for one real type; see pass.h. */

/* Rows of w (units, K) as panels: out (panels, K, panel), zeros beyond the last unit; `apart` from panel to panel. */
static inline void CYL_TYPED(cyl_pack_rows)(
    CYL_REAL *out, ptrdiff_t apart, ptrdiff_t panel, const CYL_REAL *w, ptrdiff_t units, ptrdiff_t K) {
    for (ptrdiff_t first = 0; first < units; first += panel, out += apart) {
        const ptrdiff_t n = units - first < panel ? units - first : panel;
        const CYL_REAL *rows = w + first * K;
        for (ptrdiff_t k = 0; k < K; k++) {
            for (ptrdiff_t u = 0; u < n; u++) out[k * panel + u] = rows[u * K + k];
            for (ptrdiff_t u = n; u < panel; u++) out[k * panel + u] = 0;
        }
    }
}

/* Columns of w (K, columns) as panels of K_padded rows, zeros beyond the last column and row; `apart` likewise. */
static inline void
CYL_TYPED(cyl_pack_columns)(CYL_REAL *out, ptrdiff_t apart, ptrdiff_t panel, const CYL_REAL *w, ptrdiff_t K,
    ptrdiff_t columns, ptrdiff_t K_padded) {
    for (ptrdiff_t first = 0; first < columns; first += panel, out += apart) {
        const ptrdiff_t n = columns - first < panel ? columns - first : panel;
        for (ptrdiff_t k = 0; k < K; k++) {
            memcpy(out + k * panel, w + k * columns + first, (size_t)n * sizeof(CYL_REAL));
            for (ptrdiff_t u = n; u < panel; u++) out[k * panel + u] = 0;
        }
        for (ptrdiff_t k = K * panel; k < K_padded * panel; k++) out[k] = 0;
    }
}
