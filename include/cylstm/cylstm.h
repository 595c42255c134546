/* Models trained in Python, served from C: no Python, no allocation, no I/O, no globals.
 *
 *     cyl_model model;                                  // of a file of cylstm.save, read into memory or mapped
 *     int error = cyl_model_open(&model, bytes, size);  // 0, or a code for cyl_error_text
 *
 *     size_t needed = cyl_model_memory(&model, T, B);   // for at most T steps of B sequences
 *     cyl_runner runner;
 *     error = cyl_runner_plan(&runner, &model, buffer, size, T, B);
 *
 *     error = cyl_run(&runner, y, x, T);                // whole sequences, from their beginning
 *     error = cyl_steps(&runner, y, x, 1);              // further steps, from where the last ones ended
 *     cyl_reset(&runner);                               // the next steps are the first ones
 *     void *state = cyl_state(&runner, &size);          // where it is: to be copied, or written to
 *
 * Arrays are row-major and, like the model, float or double (model.real is 4 or 8): x (T, B, model.I), y
 * (T, B, model.O), time first whatever `batch_first` says; y (B, model.O) if model.pools. If model.reads_indices, x is
 * int64_t. x and y do not overlap. Bytes, model and buffer have to stay while a runner is used; bytes start at a
 * multiple of 8, as memory of malloc or mmap does. Runners share a model and its bytes, each has a buffer of its own:
 * so one for each thread.
 *
 * Supported: Sequential and Residual of LSTM, GRU, RNN with all their options, Linear, Embedding, LayerNorm, Dropout,
 * Pooling. Refused are Activation, recurrent layers with other activations, and attention. Scalers are for the caller,
 * as in Python.
 *
 * Compiled by the same compiler with -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math (with -std=c99 GCC would
 * not fuse multiplications and additions otherwise), results are the bits of Python's packed path on the same CPU;
 * whatever the flags, they agree to rounding. GCC and clang, little-endian machines.
 */
#ifndef CYLSTM_CYLSTM_H
#define CYLSTM_CYLSTM_H

#define CYL_FORWARD_ONLY /* unless pass.h was included before */

#include "dense.h"
#include "model.h"
#include "pass.h"

#if !CYL_PACKED
#error "cylstm.h: needs GCC or clang"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "cylstm.h: needs a little-endian machine, for files are"
#endif

#define CYL_ALIGNMENT 128
#define CYL_GAP 32 /* numbers between rows of gates, as in planning.py */

/* Of a layer, in each direction: weights as pass.h and dense.h read them, and the states, (B, P) and (B, H). */
typedef struct {
    void *w_ih[2], *w_hh[2], *w_hr[2], *b_ih[2], *b_hh[2], *cell_parameters[2], *h[2], *c[2];
} cyl_ready;

typedef struct {
    const cyl_model *model;
    ptrdiff_t T, B;
    ptrdiff_t *rows; /* (T) all B */
    cyl_ready *ready;
    void *state;
    size_t state_size;
    /* Shared by all layers: rows between layers in turn, rows in reversed order, what a pass needs besides. */
    void *turn[2], *reversed, *residual[CYL_MAX_NESTED], *gates, *extra, *m, *h, *c;
} cyl_runner;

/* Memory cut from a buffer one piece after the other; base NULL: only counted. */
typedef struct {
    char *base;
    size_t used;
    int too_much;
} cyl_cutter;

static inline void *cyl_cut(cyl_cutter *c, size_t rows, size_t width, size_t size) {
    const size_t most = PTRDIFF_MAX - 2 * CYL_ALIGNMENT - c->used;
    const size_t begin = c->used;
    if (c->too_much || (rows && width && (rows > most / width || rows * width > most / size))) {
        c->too_much = 1;
        return NULL;
    }
    c->used += (rows * width * size + CYL_ALIGNMENT - 1) / CYL_ALIGNMENT * CYL_ALIGNMENT;
    return c->base ? c->base + begin : NULL;
}

/* The widest that each kind of shared rows has to be, in numbers. */
typedef struct {
    size_t rows, reversed, gates, extra, m, h, c, residual[CYL_MAX_NESTED];
} cyl_widths;

/* n units in whole panels. */
static inline size_t cyl_padded(const cyl_model *m, ptrdiff_t n) {
    const ptrdiff_t panel = cyl_panel(m->isa, m->real);
    return (size_t)(cyl_tiles(n, panel) * panel);
}

static inline void cyl_widen(size_t *width, size_t other) {
    if (*width < other) *width = other;
}

/* Cut a recurrent layer's weights. */
static inline void cyl_cut_stack(cyl_cutter *c, const cyl_model *m, const cyl_layer *layer, cyl_ready *ready) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[layer->cell];
    const size_t G = (size_t)cell->gates, Hp = cyl_padded(m, layer->H), Pp = cyl_padded(m, layer->P), real = m->real;
    for (int d = 0; d < layer->directions; d++) {
        ready->w_ih[d] = cyl_cut(c, G * Hp, (size_t)layer->I, real);
        ready->w_hh[d] = cyl_cut(c, G * Hp, (size_t)layer->P, real);
        ready->b_ih[d] = cyl_cut(c, G, Hp, real);
        ready->b_hh[d] = cyl_cut(c, G, Hp, real);
        if (layer->P != layer->H) ready->w_hr[d] = cyl_cut(c, Pp, (size_t)layer->H, real);
        if (cell->cell_parameters) ready->cell_parameters[d] = cyl_cut(c, (size_t)cell->cell_parameters, Hp, real);
    }
}

static inline void cyl_widen_for(cyl_widths *w, const cyl_model *m, const cyl_layer *layer) {
    cyl_widen(&w->rows, (size_t)layer->O);
    if (layer->kind == CYL_LAYER_RESIDUAL) cyl_widen(&w->residual[layer->nested], (size_t)layer->I);
    if (layer->kind != CYL_LAYER_RECURRENT) return;
    const cyl_cell_shape *cell = &cyl_cell_shapes[layer->cell];
    const size_t Hp = cyl_padded(m, layer->H);
    if (layer->reverse || layer->directions == 2) cyl_widen(&w->reversed, (size_t)layer->I);
    cyl_widen(&w->gates, (size_t)cell->gates * Hp + CYL_GAP);
    cyl_widen(&w->extra, (size_t)cell->extra * Hp);
    cyl_widen(&w->h, cyl_padded(m, layer->P));
    if (layer->P != layer->H) cyl_widen(&w->m, Hp);
    if (cell->states == 2) cyl_widen(&w->c, Hp);
}

/* Cut a runner for T steps of B sequences from a buffer at base, or count: bytes, 0 if there are too many. */
static inline size_t cyl_lay_out(cyl_runner *r, const cyl_model *m, char *base, ptrdiff_t T, ptrdiff_t B) {
    cyl_cutter c = {NULL, 0, 0};
    cyl_widths w;
    const size_t steps = (size_t)T, b = (size_t)B, real = m->real;
    c.base = base;
    memset(&w, 0, sizeof w);
    r->model = m, r->T = T, r->B = B;
    if (steps > (PTRDIFF_MAX - b) / b) return 0;
    const size_t N = steps * b;
    r->ready = (cyl_ready *)cyl_cut(&c, (size_t)m->layers, 1, sizeof(cyl_ready));
    r->rows = (ptrdiff_t *)cyl_cut(&c, steps, 1, sizeof(ptrdiff_t));
    r->state = cyl_cut(&c, 0, 0, real);
    for (int k = 0; k < m->layers; k++) {
        const cyl_layer *layer = &m->layer[k];
        cyl_ready counted, *ready = base ? &r->ready[k] : &counted;
        memset(ready, 0, sizeof *ready);
        for (int d = 0; layer->kind == CYL_LAYER_RECURRENT && d < layer->directions; d++) {
            ready->h[d] = cyl_cut(&c, b, (size_t)layer->P, real);
            if (cyl_cell_shapes[layer->cell].states == 2) ready->c[d] = cyl_cut(&c, b, (size_t)layer->H, real);
        }
        if (base) r->state_size = (size_t)(base + c.used - (char *)r->state);
    }
    for (int k = 0; k < m->layers; k++) {
        const cyl_layer *layer = &m->layer[k];
        cyl_ready counted, *ready = base ? &r->ready[k] : &counted;
        if (layer->kind == CYL_LAYER_RECURRENT) cyl_cut_stack(&c, m, layer, ready);
        if (layer->kind == CYL_LAYER_LINEAR)
            ready->w_ih[0] = cyl_cut(&c, cyl_padded(m, layer->O), (size_t)layer->I, real);
        cyl_widen_for(&w, m, layer);
    }
    for (int k = 0; k < 2; k++) r->turn[k] = cyl_cut(&c, N, w.rows, real);
    for (int k = 0; k < CYL_MAX_NESTED; k++) r->residual[k] = cyl_cut(&c, N, w.residual[k], real);
    r->reversed = cyl_cut(&c, N, w.reversed, real);
    r->gates = cyl_cut(&c, b > CYL_ROWS_AHEAD ? b : CYL_ROWS_AHEAD, w.gates, real);
    r->extra = cyl_cut(&c, b, w.extra, real);
    r->m = cyl_cut(&c, b, w.m, real);
    r->h = cyl_cut(&c, b + N, w.h, real);
    r->c = cyl_cut(&c, 2 * b, w.c, real);
    return c.too_much ? 0 : c.used + CYL_ALIGNMENT;
}

/* Bytes that a runner for at most T steps of B sequences needs; 0: T or B below 1, or more than there can be. */
static inline size_t cyl_model_memory(const cyl_model *m, ptrdiff_t T, ptrdiff_t B) {
    cyl_runner counted;
    return T < 1 || B < 1 ? 0 : cyl_lay_out(&counted, m, NULL, T, B);
}

#define CYL_BODY "model_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

/* The next steps are the first ones: states as the model has learned them, or zeros. */
static inline void cyl_reset(cyl_runner *r) {
    const cyl_model *m = r->model;
    memset(r->state, 0, r->state_size);
    for (int k = 0; k < m->layers; k++)
        for (int d = 0; m->layer[k].learns && d < m->layer[k].directions; d++)
            for (int s = 0; s < cyl_cell_shapes[m->layer[k].cell].states; s++) {
                const size_t width = (size_t)(s ? m->layer[k].H : m->layer[k].P) * m->real;
                char *rows = (char *)(s ? r->ready[k].c[d] : r->ready[k].h[d]);
                for (size_t b = 0; b < (size_t)r->B; b++)
                    memcpy(rows + b * width, cyl_parameter(m, &m->layer[k], s ? CYL_C_0 : CYL_H_0, d), width);
            }
}

/* Make a runner for at most T steps of B sequences in the caller's buffer: cut memory and pack weights, once. */
static inline int cyl_runner_plan(
    cyl_runner *r, const cyl_model *m, void *buffer, size_t size, ptrdiff_t T, ptrdiff_t B) {
    const size_t needed = cyl_model_memory(m, T, B);
    memset(r, 0, sizeof *r);
    if (!needed) return CYL_BAD_SIZE;
    if (!buffer || size < needed) return CYL_TOO_LITTLE_MEMORY;
    char *base = (char *)buffer + (CYL_ALIGNMENT - (uintptr_t)buffer % CYL_ALIGNMENT) % CYL_ALIGNMENT;
    cyl_lay_out(r, m, base, T, B);
    for (ptrdiff_t t = 0; t < T; t++) r->rows[t] = B;
    if (m->real == 4) cyl_pack_model_f32(r);
    else cyl_pack_model_f64(r);
    cyl_reset(r);
    return CYL_OK;
}

/* T further steps of every sequence, from the state that the last ones left. */
static inline int cyl_go_on(cyl_runner *r, void *y, const void *x, ptrdiff_t T) {
    const cyl_model *m = r->model;
    if (T < 1 || T > r->T) return CYL_BAD_SIZE;
    for (ptrdiff_t k = 0; m->reads_indices && k < T * r->B * m->I; k++)
        if (((const int64_t *)x)[k] < 0 || ((const int64_t *)x)[k] >= m->layer[0].symbols) return CYL_BAD_INDEX;
    if (m->real == 4) cyl_run_model_f32(r, y, x, T);
    else cyl_run_model_f64(r, y, x, T);
    return CYL_OK;
}

/* The same for models that read forward only and do not pool. */
static inline int cyl_steps(cyl_runner *r, void *y, const void *x, ptrdiff_t T) {
    return r->model->causal ? cyl_go_on(r, y, x, T) : CYL_NOT_CAUSAL;
}

/* Whole sequences of T steps, from their beginning; afterwards the state is the one behind them. */
static inline int cyl_run(cyl_runner *r, void *y, const void *x, ptrdiff_t T) {
    cyl_reset(r);
    return cyl_go_on(r, y, x, T);
}

/* The state of all sequences, *size bytes: to be kept, or to be taken up again by a runner of the same model and B. */
static inline void *cyl_state(const cyl_runner *r, size_t *size) {
    *size = r->state_size;
    return r->state;
}

#endif
