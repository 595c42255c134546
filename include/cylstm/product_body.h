/* Products over packed panels for one real type and instruction set; see product.h. */
#define CYL_V CYL_KERNEL(cyl_vector)
#define CYL_LANES (CYL_VECTOR_BYTES * 8 / CYL_REAL_BITS)
typedef CYL_REAL CYL_V __attribute__((vector_size(CYL_VECTOR_BYTES), aligned(sizeof(CYL_REAL)), may_alias));

#if CYL_VECTOR_BYTES == 64 && CYL_REAL_BITS == 32
#define CYL_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#elif CYL_VECTOR_BYTES == 64
#define CYL_FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#elif CYL_VECTOR_BYTES == 32 && CYL_REAL_BITS == 32
#define CYL_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#elif CYL_VECTOR_BYTES == 32
#define CYL_FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#else
#define CYL_FMA(a, b, c) ((a) * (b) + (c))
#endif
#define CYL_AT(p) (*(CYL_V *)(p))
#define CYL_AT_CONST(p) (*(const CYL_V *)(p))

CYL_TARGET CYL_INLINE CYL_V CYL_KERNEL(cyl_splat)(CYL_REAL x) {
    const CYL_V zero = {0};
    return x - zero;
}

/* c (rows, PANEL) = or += sum over k < K of a[m, k] b[k], with a[m, k] at a + m row + k step, b[k] at b + k ldb. */
CYL_TARGET CYL_INLINE void CYL_KERNEL(cyl_tile)(
    const int rows, const int add, CYL_REAL *c, ptrdiff_t ldc, const CYL_REAL *a, ptrdiff_t row,
    const ptrdiff_t step, const CYL_REAL *b, const ptrdiff_t ldb, ptrdiff_t K) {
    const CYL_V zero = {0};
#define CYL_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define CYL_BEGIN(m)                                                              \
    CYL_V left##m = zero, right##m = zero;                                        \
    if (m < rows && add) {                                                        \
        left##m = CYL_AT(c + m * ldc);                                            \
        right##m = CYL_AT(c + m * ldc + CYL_LANES);                               \
    }
#define CYL_STEP(m)                                                               \
    if (m < rows) {                                                               \
        const CYL_V x = CYL_KERNEL(cyl_splat)(a[m * row + k * step]);             \
        left##m = CYL_FMA(x, b0, left##m);                                        \
        right##m = CYL_FMA(x, b1, right##m);                                      \
    }
#define CYL_END(m)                                                                \
    if (m < rows) {                                                               \
        CYL_AT(c + m * ldc) = left##m;                                            \
        CYL_AT(c + m * ldc + CYL_LANES) = right##m;                               \
    }
    CYL_EACH(CYL_BEGIN)
    for (ptrdiff_t k = 0; k < K; k++) {
        const CYL_V b0 = CYL_AT_CONST(b + k * ldb), b1 = CYL_AT_CONST(b + k * ldb + CYL_LANES);
        __builtin_prefetch((const char *)(b + k * ldb) + 2048);
        CYL_EACH(CYL_STEP)
    }
    CYL_EACH(CYL_END)
#undef CYL_EACH
#undef CYL_BEGIN
#undef CYL_STEP
#undef CYL_END
}

#define CYL_CASE(n, add, row, step, ldb) \
    case n: CYL_KERNEL(cyl_tile)(n, add, c, ldc, a, row, step, b, ldb, K); break;
#define CYL_CASES(add, row, step, ldb)                                      \
    switch (rows) {                                                         \
        CYL_CASE(1, add, row, step, ldb) CYL_CASE(2, add, row, step, ldb)   \
        CYL_CASE(3, add, row, step, ldb) CYL_CASE(4, add, row, step, ldb)   \
        CYL_CASE(5, add, row, step, ldb) CYL_CASE(6, add, row, step, ldb)   \
        CYL_CASE(7, add, row, step, ldb) CYL_CASE(8, add, row, step, ldb)   \
        CYL_CASE(9, add, row, step, ldb) CYL_CASE(10, add, row, step, ldb)  \
        CYL_CASE(11, add, row, step, ldb) CYL_CASE(12, add, row, step, ldb) \
    default: break;                                                         \
    }

/* A tile of a row-major a. */
CYL_TARGET static void CYL_KERNEL(cyl_tile_rows)(
    int rows, int add, CYL_REAL *c, ptrdiff_t ldc, const CYL_REAL *a, ptrdiff_t lda, const CYL_REAL *b, ptrdiff_t K) {
    if (add)
        CYL_CASES(1, lda, 1, CYL_PANEL)
    else
        CYL_CASES(0, lda, 1, CYL_PANEL)
}

/* A tile added to, of a strip whose row k holds the CYL_TILE numbers a[., k], and rows of b that are ldb apart. */
CYL_TARGET static void CYL_KERNEL(cyl_tile_strip)(
    int rows, CYL_REAL *c, ptrdiff_t ldc, const CYL_REAL *a, const CYL_REAL *b, ptrdiff_t ldb, ptrdiff_t K) {
    CYL_CASES(1, 1, CYL_TILE, ldb)
}
#undef CYL_CASE
#undef CYL_CASES

/* One row times two panels at once: four sums, as many as hide the latency of an addition behind reads from L2. */
CYL_TARGET static void CYL_KERNEL(cyl_two_panels)(
    int add, CYL_REAL *c, ptrdiff_t apart, const CYL_REAL *a, const CYL_REAL *b, ptrdiff_t panel, ptrdiff_t K) {
    const CYL_V zero = {0};
#define CYL_EACH(X) X(0) X(1)
#define CYL_BEGIN(m)                                                 \
    CYL_V left##m = zero, right##m = zero;                           \
    if (add) {                                                       \
        left##m = CYL_AT(c + m * apart);                             \
        right##m = CYL_AT(c + m * apart + CYL_LANES);                \
    }
#define CYL_STEP(m)                                                                                    \
    left##m = CYL_FMA(x, CYL_AT_CONST(b + m * panel + k * CYL_PANEL), left##m);                        \
    right##m = CYL_FMA(x, CYL_AT_CONST(b + m * panel + k * CYL_PANEL + CYL_LANES), right##m);
#define CYL_END(m)                                      \
    CYL_AT(c + m * apart) = left##m;                    \
    CYL_AT(c + m * apart + CYL_LANES) = right##m;
    CYL_EACH(CYL_BEGIN)
    for (ptrdiff_t k = 0; k < K; k++) {
        const CYL_V x = CYL_KERNEL(cyl_splat)(a[k]);
        CYL_EACH(CYL_STEP)
    }
    CYL_EACH(CYL_END)
#undef CYL_EACH
#undef CYL_BEGIN
#undef CYL_STEP
#undef CYL_END
}

CYL_TARGET static void CYL_KERNEL(cyl_product)(
    int add, CYL_REAL *c, ptrdiff_t ldc, ptrdiff_t apart, const CYL_REAL *a, ptrdiff_t lda, ptrdiff_t rows,
    const CYL_REAL *b, ptrdiff_t panel, ptrdiff_t panels, ptrdiff_t K) {
    /* Rows that are 4 KiB apart share a set of the L1 cache: 6 of them stay there, 12 do not. */
    const ptrdiff_t most = lda * (ptrdiff_t)sizeof(CYL_REAL) % 4096 ? CYL_TILE : 6, tiles = (rows + most - 1) / most;
    ptrdiff_t j = 0;
    if (rows == 1)
        for (; j + 2 <= panels; j += 2)
            CYL_KERNEL(cyl_two_panels)(add, c + j * apart, apart, a, b + j * panel, panel, K);
    for (; j < panels; j++)
        for (ptrdiff_t i = 0; i < tiles; i++) {
            const ptrdiff_t first = rows * i / tiles, last = rows * (i + 1) / tiles;
            CYL_KERNEL(cyl_tile_rows)
            ((int)(last - first), add, c + first * ldc + j * apart, ldc, a + first * lda, lda, b + j * panel, K);
        }
}

/* The same, one row's panels from the last to the first if `down`: what was read last is still in cache. */
CYL_TARGET static void CYL_KERNEL(cyl_product_turned)(
    int down, int add, CYL_REAL *c, ptrdiff_t ldc, ptrdiff_t apart, const CYL_REAL *a, ptrdiff_t lda, ptrdiff_t rows,
    const CYL_REAL *b, ptrdiff_t panel, ptrdiff_t panels, ptrdiff_t K) {
    const ptrdiff_t at_once = rows == 1 ? 2 : panels;
    for (ptrdiff_t done = 0; done < panels; done += at_once) {
        const ptrdiff_t n = panels - done < at_once ? panels - done : at_once;
        const ptrdiff_t first = down ? panels - done - n : done;
        CYL_KERNEL(cyl_product)(add, c + first * apart, ldc, apart, a, lda, rows, b + first * panel, panel, n, K);
    }
}

/* Columns [from, to) of c, whose last panel need not be whole; from is a multiple of PANEL. */
CYL_TARGET static void CYL_KERNEL(cyl_product_columns)(
    int add, CYL_REAL *c, ptrdiff_t ldc, ptrdiff_t from, ptrdiff_t to, const CYL_REAL *a, ptrdiff_t lda,
    ptrdiff_t rows, const CYL_REAL *b, ptrdiff_t panel, ptrdiff_t K) {
    const ptrdiff_t whole = (to - from) / CYL_PANEL, rest = (to - from) % CYL_PANEL;
    const CYL_REAL *last = b + (from / CYL_PANEL + whole) * panel;
    CYL_REAL *out = c + from + whole * CYL_PANEL;
    if (whole > 0)
        CYL_KERNEL(cyl_product)
        (add, c + from, ldc, CYL_PANEL, a, lda, rows, b + from / CYL_PANEL * panel, panel, whole, K);
    if (rest <= 0) return;
    for (ptrdiff_t first = 0; first < rows; first += CYL_TILE) {
        const ptrdiff_t n = rows - first < CYL_TILE ? rows - first : CYL_TILE;
        CYL_REAL kept[12 * CYL_PANEL];
        for (ptrdiff_t m = 0; m < n && add; m++)
            memcpy(kept + m * CYL_PANEL, out + (first + m) * ldc, (size_t)rest * sizeof(CYL_REAL));
        CYL_KERNEL(cyl_tile_rows)((int)n, add, kept, CYL_PANEL, a + first * lda, lda, last, K);
        for (ptrdiff_t m = 0; m < n; m++)
            memcpy(out + (first + m) * ldc, kept + m * CYL_PANEL, (size_t)rest * sizeof(CYL_REAL));
    }
}

#undef CYL_V
#undef CYL_LANES
#undef CYL_FMA
#undef CYL_AT
#undef CYL_AT_CONST
