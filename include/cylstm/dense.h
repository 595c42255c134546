/* The dense layer on packed weights: y = b + x W^T for rows of x, and back.
 *
 *     cyl_dense_<f32|f64>[isa](y, x, w, b, rows, inputs, outputs, ldx, from, to)
 *
 * y (rows, outputs), x (rows, inputs) with ldx from row to row, b (outputs) or NULL; w as cyl_pack_rows packs it:
 * panels of CYL_PANEL outputs. Columns [from, to) of y are computed, from being a multiple of CYL_PANEL. Each sum
 * begins with the bias and runs over the inputs in ascending order, so its bits do not depend on how rows and columns
 * are cut.
 *
 *     cyl_dense_back_<f32|f64>[isa](gradients, index, count, barrier_slots)
 *
 * is called by each thread with its index; `barrier_slots` has `count` barrier counters, initially 0, or is NULL for one
 * thread. Each part adds to its elements of dW and db, over rows in descending order, then writes its rows of dx.
 * Results are bit-identical for any number of parts, and for rows divided into several calls in descending order.
 *
 * Back against OpenBLAS, float32, AVX-512 on Zen 4, ms on 1 and 2 threads for rows, inputs, outputs: 6400, 256, 65: 4.3
 * and 2.3 (BLAS 5.7, 2.7); 6400, 256, 256: 17.3 and 8.8 (20.6, 10.0); 12288, 32, 1: 0.076 (0.079) on either.
 */
#ifndef CYLSTM_DENSE_H
#define CYLSTM_DENSE_H

#include "gradient.h"
#include "parts.h"

typedef void (*cyl_dense_function_f32)(float *, const float *, const float *, const float *, ptrdiff_t, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);
typedef void (*cyl_dense_function_f64)(double *, const double *, const double *, const double *, ptrdiff_t, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);

#define CYL_STRIPS_BYTES 98304 /* maximum scratch of a part: strips of 96 outputs in float32 */

typedef struct {
    ptrdiff_t rows, inputs, outputs;
    const void *x, *dy; /* (rows, inputs), (rows, outputs) */
    const void *w_t;    /* W as cyl_pack_columns packs it: (inputs / PANEL, outputs, PANEL) */
    void *dw, *db;      /* (outputs, inputs), (outputs) added to; db or NULL */
    void *dx;           /* (rows, inputs) out, or NULL; may be x */
    void *strips;       /* scratch, cyl_dense_strips() numbers for each part */
} cyl_dense_gradients;

typedef void (*cyl_dense_back_function)(const cyl_dense_gradients *, int, int, cyl_barrier_slot *);

/* What a part adds to: rows of dW from `output`, its columns from `input`, db from `bias`. */
typedef struct {
    ptrdiff_t output, output_end, input, input_end, bias, bias_end;
} cyl_dense_share;

static inline cyl_dense_share cyl_dense_share_of(
    const cyl_dense_gradients *d, ptrdiff_t panel, ptrdiff_t tile, size_t real, int k, int n) {
    const ptrdiff_t panels = cyl_tiles(d->inputs, panel), apart = CYL_SEPARATION / (ptrdiff_t)real;
    /* Divided by inputs, each part copies only its columns of x, but there must be enough of them for equal slices. */
    const int by_inputs = panels >= 4 * n || panels > cyl_tiles(d->outputs, tile);
    cyl_dense_share s;
    s.output = by_inputs ? 0 : cyl_group_slice_start(d->outputs, tile, k, n);
    s.output_end = by_inputs ? d->outputs : cyl_group_slice_start(d->outputs, tile, k + 1, n);
    s.input = by_inputs ? cyl_group_slice_start(d->inputs, panel, k, n) : 0;
    s.input_end = by_inputs ? cyl_group_slice_start(d->inputs, panel, k + 1, n) : d->inputs;
    s.bias = cyl_group_slice_start(d->outputs, apart, k, n);
    s.bias_end = cyl_group_slice_start(d->outputs, apart, k + 1, n);
    return s;
}

/* Outputs whose strips are made together: whole tiles. */
static inline ptrdiff_t cyl_dense_outputs_at_once(ptrdiff_t outputs, ptrdiff_t tile, size_t real) {
    const ptrdiff_t most = CYL_STRIPS_BYTES / (ptrdiff_t)real / CYL_ROWS_AT_ONCE, all = cyl_tiles(outputs, tile) * tile;
    return all < most ? all : most;
}
/* Numbers in a part's `strips`. */
static inline ptrdiff_t cyl_dense_strips(ptrdiff_t outputs, ptrdiff_t tile, size_t real) {
    return CYL_ROWS_AT_ONCE * cyl_dense_outputs_at_once(outputs, tile, real);
}

/* Number of parts of a call for at most n threads. */
static inline int cyl_dense_parts(const cyl_dense_gradients *d, int n, ptrdiff_t panel, ptrdiff_t tile) {
    const ptrdiff_t tiles = cyl_tiles(d->outputs, tile), panels = cyl_tiles(d->inputs, panel);
    const ptrdiff_t pieces = panels > tiles ? panels : tiles;
    const double flop = (d->dx ? 4.0 : 2.0) * (double)d->rows * (double)d->inputs * (double)d->outputs;
    if (n > CYL_MAX_PARTS) n = CYL_MAX_PARTS;
    if (!d->dx && n > pieces) n = (int)pieces;
    return flop < CYL_MIN_FLOP || n < 1 ? 1 : n;
}

#if CYL_PACKED
#define CYL_BODY "dense_body.h"
#include "instantiate.h"

CYL_UNUSED static const cyl_dense_function_f32 cyl_dense_f32[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_dense, f32);
CYL_UNUSED static const cyl_dense_function_f64 cyl_dense_f64[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_dense, f64);
CYL_UNUSED static const cyl_dense_back_function cyl_dense_back_f32[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_dense_back, f32);
CYL_UNUSED static const cyl_dense_back_function cyl_dense_back_f64[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_dense_back, f64);
#else /* the packed path is never taken */
CYL_UNUSED static const cyl_dense_function_f32 cyl_dense_f32[CYL_ISA_COUNT] = {0};
CYL_UNUSED static const cyl_dense_function_f64 cyl_dense_f64[CYL_ISA_COUNT] = {0};
CYL_UNUSED static const cyl_dense_back_function cyl_dense_back_f32[CYL_ISA_COUNT] = {0};
CYL_UNUSED static const cyl_dense_back_function cyl_dense_back_f64[CYL_ISA_COUNT] = {0};
#endif

#endif
