/* One recurrent layer in one direction on the packed path, forward and back through time.
 *
 * Sizes: T steps, B sequences, N rows (valid steps of all), I inputs, H units, P width of h (H, or that of the
 * projection), G gates, E extra planes. Rows are packed as in cylstm/packing.py: rows[t] of them at step t, descending.
 * H and P are padded to whole panels, Hp and Pp; what the padding holds is 0 and stays so.
 *
 *     cyl_pass_fwd_<f32|f64>[isa](pass, part)     gates and states of every step
 *     cyl_pass_bwd_<f32|f64>[isa](pass, part)     gradients; the gates become those of the pre-activations
 *
 * are called once by each thread with its part of the work (`cyl_divide`). A step computes, for every panel of units,
 * the products of all gates in a scratch buffer that stays in L1, then the pointwise function of the cell. Products
 * of x come first in the sum, then those of h; for small batches, products of x are computed for several steps at
 * once. In the backward pass, the gradients of a block of rows are used while they are in cache: for dh, the weights
 * and dx. Gradients of weights are accumulated in place over rows in descending time.
 *
 * Activation checkpointing: the states of an LSTM follow from its gates and the previous c. Optionally, the forward
 * pass saves c once per interval of CYL_SEGMENT steps, and the backward pass recomputes the states of an interval. This
 * saves two planes and costs 1 to 4 % of the training time, since gates are read from memory twice (Zen 4). Intervals
 * of 16 steps cost more; prefetching gates did not help.
 *
 * Work is divided by rows without barriers if the weights fit into L2, else by units with a barrier at every step.
 * Results are bit-identical for any number of parts.
 *
 * Tried without gain, on Zen 4: prefetching at batch 1 (-10 to -30 % once the weights leave L2), one, four or eight
 * panels at once there instead of two (within 5 %); alternating the order of weights also between calls of a stream;
 * moving workers off the caller's CPU; tiles of 8 rows, or of 6 for rows 2 KiB apart.
 */
#ifndef CYLSTM_PASS_H
#define CYLSTM_PASS_H

#include "cells.h"
#include "gradient.h"
#include "parts.h"

#define CYL_BODY "pack_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

typedef struct {
    int cell, trains;
    double clip, zoneout_h, zoneout_c;
    ptrdiff_t T, B, N, I, H, P, Hp, Pp;
    ptrdiff_t ld_gates, ld_extra, rows_of_gates;
    const ptrdiff_t *rows; /* (T) */
    /* Packed weights: panels of units, gates of a panel side by side; `_t` for the products of the backward pass. */
    const void *w_ih, *w_hh, *w_hr;            /* (Hp/PANEL, G, I|P, PANEL); (Pp/PANEL, H, PANEL) */
    const void *w_ih_t, *w_hh_t, *w_hr_t;      /* (I|P panels, G Hp, PANEL); (Hp/PANEL, P, PANEL) */
    const void *b_ih, *b_hh, *cell_parameters; /* (G, Hp), (G, Hp), (K, Hp) or NULL */
    const void *x;                             /* (N, I) */
    void *gates; /* (N, ld_gates) gate g from column g Hp on; in inference rows_of_gates rows, scratch */
    void *extra; /* (N, ld_extra), in inference (B, ld_extra), or NULL */
    void *h, *c; /* (B+N, Pp); (B+N, Hp), in inference and with c_checkpoints (2 B, Hp), or NULL */
    void *h_checkpoint, *c_checkpoints; /* (B, Hp), (spans of CYL_SEGMENT steps, B, Hp), or NULL: all states are kept */
    void *m;                            /* (N, Hp) h before its projection; (B, Hp) in inference; or NULL */
    void *h_masked;                     /* (N, Pp) or NULL: no recurrent dropout */
    const void *mask_h, *zone_h, *zone_c; /* (B, P), (N, P), (N, H), or NULL */
    void *dy;                             /* (N, P) in; with a projection then dL/d(its result) */
    void *dh, *dc;                        /* (B, Pp), (B, Hp) in: of the last states; out: of the first */
    void *h_recomputed, *c_recomputed;    /* (2 CYL_SEGMENT, B, Hp) scratch, with c_checkpoints */
    void *dextra, *dm, *dh_masked;        /* (B, Hp), (B, Hp), (B, Pp) scratch, or NULL */
    void *dh_retained, *dc_retained;      /* (B, P), (B, H) scratch of zoneout, or NULL */
    void *dh_steps;                       /* (N, P) out, or NULL */
    void *dx;                             /* (N, I) out, or NULL; may be x or dy */
    void *dw_ih, *dw_hh, *dw_hr;          /* (G H, I), (G H, P), (P, H) added to */
    void *d_cell_parameters;              /* (K, Hp) added to, or NULL */
    void *db_ih, *db_hh;                  /* (G H) added to, or NULL */
    void *strips;                         /* scratch, cyl_strips() numbers */
} cyl_pass;

typedef struct {
    int index, count;           /* of parts */
    ptrdiff_t row, row_end;     /* sequences */
    ptrdiff_t unit, unit_end;   /* panels of units in the steps */
    ptrdiff_t wide, wide_end;   /* panels of h, P wide, in the steps */
    ptrdiff_t share, share_end; /* tiles of units whose weight gradients this part computes */
    unsigned met;
    cyl_barrier_slot *barrier_slots; /* barrier within steps; NULL if parts are rows, or there is one part */
    cyl_barrier_slot *join_slots;    /* barrier between steps; NULL if there is one part */
    unsigned joined;
} cyl_part;

typedef void (*cyl_pass_function)(const cyl_pass *, cyl_part *);
typedef struct {
    cyl_pass_function forward[CYL_ISA_COUNT], backward[CYL_ISA_COUNT];
} cyl_pass_functions;

#define CYL_NEAR 512e3    /* bytes of weights that stay in the private cache of a core */
#define CYL_FEW_ROWS 16   /* with fewer rows per step, products of x are computed for several steps at once */
#define CYL_ROWS_AHEAD 32 /* number of rows of such a product */
#define CYL_SEGMENT 8     /* steps of a checkpoint interval, within which states are recomputed */

#if CYL_PACKED
static inline void cyl_barrier(cyl_part *w) {
    if (w->barrier_slots) cyl_barrier_wait(w->barrier_slots, w->index, w->count, &w->met);
}
static inline void cyl_join(cyl_part *w) {
    if (w->join_slots) cyl_barrier_wait(w->join_slots, w->index, w->count, &w->joined);
}

#endif

/* Position of step t: its first packed row, its number of rows, and the rows of states; `once`: of per-step planes. */
typedef struct {
    ptrdiff_t start, rows, h_prev, h, c_prev, c, once;
    int odd;
} cyl_step;

static inline cyl_step cyl_step_at(const cyl_pass *p, ptrdiff_t t, ptrdiff_t start) {
    cyl_step s;
    s.start = start;
    s.rows = p->rows[t];
    s.h = p->B + start;
    s.h_prev = t ? s.h - p->rows[t - 1] : 0;
    s.c_prev = p->trains && !p->c_checkpoints ? s.h_prev : t % 2 * p->B;
    s.c = p->trains && !p->c_checkpoints ? s.h : (t + 1) % 2 * p->B;
    s.once = p->trains ? start : 0;
    s.odd = t % 2 != 0;
    return s;
}

/* Recomputed states in the backward pass: two intervals alternate, so that a part may start the next one while another
 * part still reads the current one. */
static inline ptrdiff_t cyl_recomputed_row(const cyl_pass *p, ptrdiff_t t) { return t % (2 * CYL_SEGMENT) * p->B; }
static inline cyl_step cyl_step_back_at(const cyl_pass *p, ptrdiff_t t, ptrdiff_t start) {
    cyl_step s = cyl_step_at(p, t, start);
    if (p->c_checkpoints) s.h_prev = s.c_prev = cyl_recomputed_row(p, t);
    return s;
}

/* Number of weights that a step reads. */
static inline double cyl_weights(const cyl_pass *p) {
    return (double)cyl_cell_shapes[p->cell].gates * (double)p->Hp * (double)(p->I + p->P);
}

/* Whether two passes like p are faster in parallel than one after the other on n threads each: if the latter needs
 * barriers at every step, and the weights fit into the cache of one core. */
static inline int cyl_side_by_side(const cyl_pass *p, int n, size_t real) {
    return n > 1 && n < 4 && p->B < 4 * n && cyl_weights(p) * (double)real <= CYL_NEAR &&
           2 * cyl_weights(p) * (double)p->N >= CYL_MIN_FLOP;
}

/* Divide a call into parts for at most n threads; return their number. `barrier_slots` has 2 n elements. */
static inline int cyl_divide(const cyl_pass *p, int n, ptrdiff_t panel, ptrdiff_t tile, size_t real, int backward,
    cyl_part *parts, cyl_barrier_slot *barrier_slots) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[p->cell];
    const ptrdiff_t units = p->Hp / panel, wide = p->Pp / panel, tiles = cyl_tiles(p->H, tile);
    const double step = 2 * cyl_weights(p) * (double)p->N / (double)(p->T ? p->T : 1);
    const int sums = backward && cell->cell_parameters;
    const int by_rows = !cell->needs_rows && !sums && p->B >= 4 * n && cyl_weights(p) * (double)real <= CYL_NEAR;
    const ptrdiff_t group =
        CYL_SEPARATION / (panel * (ptrdiff_t)real) > 1 ? CYL_SEPARATION / (panel * (ptrdiff_t)real) : 1;
    const ptrdiff_t pieces = by_rows ? p->B : cyl_tiles(units < wide ? units : wide, group);
    if (n > CYL_MAX_PARTS) n = CYL_MAX_PARTS;
    if (n > pieces) n = (int)pieces;
    /* Waking a thread takes 40 us, a barrier 0.2 us: smaller calls run on one thread. */
    if (step * (double)p->T < CYL_MIN_FLOP || (!by_rows && step < 4e4) || n < 1) n = 1;
    for (int k = 0; k < 2 * n; k++) barrier_slots[k].count = 0;
    ptrdiff_t row = 0;
    double before = 0;
    for (int k = 0; k < n; k++) {
        cyl_part *w = &parts[k];
        w->index = k;
        w->count = n;
        w->row = by_rows ? row : 0;
        if (by_rows) { /* equal numbers of valid steps; sequences are in descending order of length */
            ptrdiff_t t = p->T;
            while (row < p->B && (k == n - 1 || before < (double)p->N * (k + 1) / n)) {
                while (t > 0 && p->rows[t - 1] <= row) t--;
                before += (double)t;
                row++;
            }
        }
        w->row_end = by_rows ? row : p->B;
        w->unit = by_rows ? 0 : cyl_group_slice_start(units, group, k, n);
        w->unit_end = by_rows ? units : cyl_group_slice_start(units, group, k + 1, n);
        w->wide = by_rows ? 0 : cyl_group_slice_start(wide, group, k, n);
        w->wide_end = by_rows ? wide : cyl_group_slice_start(wide, group, k + 1, n);
        w->share = cyl_slice_start(tiles, k, n);
        w->share_end = cyl_slice_start(tiles, k + 1, n);
        w->met = w->joined = 0;
        w->barrier_slots = by_rows || n == 1 ? NULL : barrier_slots;
        w->join_slots = n == 1 ? NULL : barrier_slots + n;
    }
    return n;
}

/* Number of extra planes that products write, and size of `strips`. */
static inline ptrdiff_t cyl_planes_written(int cell) {
    ptrdiff_t planes = 0;
    for (int k = 0; k < cyl_cell_shapes[cell].products; k++)
        if (cyl_cell_shapes[cell].product[k].to_extra) planes += cyl_cell_shapes[cell].product[k].count;
    return planes;
}
static inline ptrdiff_t cyl_strips(int cell, ptrdiff_t tile, ptrdiff_t H, ptrdiff_t P) {
    const ptrdiff_t planes = cyl_cell_shapes[cell].gates + cyl_planes_written(cell);
    return CYL_ROWS_AT_ONCE * tile * (planes * cyl_tiles(H, tile) + cyl_tiles(P, tile));
}

#if CYL_PACKED
#define CYL_BODY "pass_body.h"
#include "instantiate.h"

CYL_UNUSED static const cyl_pass_functions cyl_passes_f32 = {
    CYL_ISA_ROW(cyl_pass_fwd, f32), CYL_BACKWARD_ROW(cyl_pass_bwd, f32)};
CYL_UNUSED static const cyl_pass_functions cyl_passes_f64 = {
    CYL_ISA_ROW(cyl_pass_fwd, f64), CYL_BACKWARD_ROW(cyl_pass_bwd, f64)};
#else /* the packed path is never taken */
CYL_UNUSED static const cyl_pass_functions cyl_passes_f32 = {{0}, {0}}, cyl_passes_f64 = {{0}, {0}};
#endif

#endif
