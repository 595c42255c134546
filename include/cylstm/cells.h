/* The cells: one row each, and the contract that their functions share.
 *
 * One time step of a cell is one or two stages. A stage is some products with the
 * recurrent weights, which the caller forms, and then a pointwise function over
 * B rows of H units. The row of a cell says which products: `count` gates of W_hh from gate `first`
 * on, multiplied with h_{t-1} or with the cell's `extra` plane, added to the gates or put into the first
 * columns of `extra`, whose rows are E H long. Backward the stages run in reverse order, each function
 * before its products. The product of x with W_ih, over all gates and steps, is in `gates` beforehand.
 * The cell parameters are those that no product reads (peepholes, norms); the cell adds to their gradients itself.
 *
 * All arrays are row-major, owned by the caller, and do not overlap. The functions
 * cannot fail, allocate nothing and keep no state.
 *
 *     cyl_<cell>_fwd_<f32|f64>_<isa>(const cyl_forward_<f32|f64> *)
 *     cyl_<cell>_bwd_<f32|f64>_<isa>(const cyl_backward_<f32|f64> *)
 *
 * The tables are indexed by cell; cyl_cells_f32[cell].forward[stage][isa].
 */
#ifndef CYLSTM_CELLS_H
#define CYLSTM_CELLS_H

#include "platform.h"

#define CYL_MAX_STAGES 2
#define CYL_MAX_PRODUCTS 2

#define CYL_BODY "cells_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

#include "gru.h"
#include "lstm.h"
#include "lstm_norm.h"
#include "rnn.h"

typedef struct {
    int stage;        /* before the pointwise function of which it is formed */
    int first, count; /* gates of W_hh */
    int from_extra;   /* source: extra (1) or h_{t-1} (0) */
    int to_extra;     /* destination: extra, overwritten (1), or the gates, added to (0) */
} cyl_product;

typedef struct {
    const char *name; /* in a model file, before _l0 */
    int planes;       /* size in units of H */
} cyl_cell_parameter;

typedef struct {
    int gates, states, extra, cell_parameters, stages, products; /* extra, cell_parameters: in units of H */
    cyl_product product[CYL_MAX_PRODUCTS];
    int needs_rows;                       /* the function sums over units, so it is called with whole rows */
    int coupled;                          /* of an LSTM: f is 1 - i and has no gate */
    int biases;                           /* b_ih and b_hh can be added to the gates */
    const cyl_cell_parameter *parameters; /* those, in the order in which the cell finds them, up to a NULL name */
} cyl_cell_shape;

typedef enum {
    CYL_LSTM = 0,
    CYL_RNN_TANH = 1,
    CYL_RNN_RELU = 2,
    CYL_GRU = 3,
    CYL_GRU_RESET_BEFORE = 4,
    CYL_LSTM_PEEPHOLE = 5,
    CYL_LSTM_COUPLED = 6,
    CYL_LSTM_COUPLED_PEEPHOLE = 7,
    CYL_LSTM_NORM = 8,
    CYL_CELL_COUNT = 9
} cyl_cell_kind;

CYL_UNUSED static const cyl_cell_parameter cyl_no_parameters[] = {{NULL, 0}};
CYL_UNUSED static const cyl_cell_parameter cyl_peepholes[] = {
    {"weight_ci", 1}, {"weight_cf", 1}, {"weight_co", 1}, {NULL, 0}};
CYL_UNUSED static const cyl_cell_parameter cyl_coupled_peepholes[] = {{"weight_ci", 1}, {"weight_co", 1}, {NULL, 0}};
CYL_UNUSED static const cyl_cell_parameter cyl_norms[] = {
    {"norm_ih", 4}, {"norm_hh", 4}, {"bias", 4}, {"norm_c", 1}, {"bias_c", 1}, {NULL, 0}};

CYL_UNUSED static const cyl_cell_shape cyl_cell_shapes[CYL_CELL_COUNT] = {
    /* gates, states, extra, cell_parameters, stages, products, {{stage, first, count, from_extra, to_extra}, ...}, needs_rows,
     * coupled, biases, parameters */
    /* CYL_LSTM */
    {4, 2, 0, 0, 1, 1, {{0, 0, 4, 0, 0}, {0, 0, 0, 0, 0}}, 0, 0, 1, cyl_no_parameters},
    /* CYL_RNN_TANH */
    {1, 1, 0, 0, 1, 1, {{0, 0, 1, 0, 0}, {0, 0, 0, 0, 0}}, 0, 0, 1, cyl_no_parameters},
    /* CYL_RNN_RELU */
    {1, 1, 0, 0, 1, 1, {{0, 0, 1, 0, 0}, {0, 0, 0, 0, 0}}, 0, 0, 1, cyl_no_parameters},
    /* CYL_GRU */
    {3, 1, 1, 0, 1, 2, {{0, 0, 2, 0, 0}, {0, 2, 1, 0, 1}}, 0, 0, 1, cyl_no_parameters},
    /* CYL_GRU_RESET_BEFORE */
    {3, 1, 1, 0, 2, 2, {{0, 0, 2, 0, 0}, {1, 2, 1, 1, 0}}, 0, 0, 1, cyl_no_parameters},
    /* CYL_LSTM_PEEPHOLE */
    {4, 2, 0, 3, 1, 1, {{0, 0, 4, 0, 0}, {0, 0, 0, 0, 0}}, 0, 0, 1, cyl_peepholes},
    /* CYL_LSTM_COUPLED */
    {3, 2, 0, 0, 1, 1, {{0, 0, 3, 0, 0}, {0, 0, 0, 0, 0}}, 0, 1, 1, cyl_no_parameters},
    /* CYL_LSTM_COUPLED_PEEPHOLE */
    {3, 2, 0, 2, 1, 1, {{0, 0, 3, 0, 0}, {0, 0, 0, 0, 0}}, 0, 1, 1, cyl_coupled_peepholes},
    /* CYL_LSTM_NORM */
    {4, 2, 8, 14, 1, 1, {{0, 0, 4, 0, 1}, {0, 0, 0, 0, 0}}, 1, 0, 0, cyl_norms},
};

#define CYL_ONE_STAGE(cell, type)                                                                     \
    {                                                                                                 \
        {CYL_ISA_ROW(cyl_##cell##_fwd, type), {0}}, { CYL_BACKWARD_ROW(cyl_##cell##_bwd, type), {0} } \
    }
#define CYL_TWO_STAGES(first, second, type)                                                       \
    {                                                                                             \
        {CYL_ISA_ROW(cyl_##first##_fwd, type), CYL_ISA_ROW(cyl_##second##_fwd, type)}, {          \
            CYL_BACKWARD_ROW(cyl_##first##_bwd, type), CYL_BACKWARD_ROW(cyl_##second##_bwd, type) \
        }                                                                                         \
    }
#define CYL_CELLS(type)                                                                                            \
    {CYL_ONE_STAGE(lstm, type), CYL_ONE_STAGE(rnn_tanh, type), CYL_ONE_STAGE(rnn_relu, type),                      \
        CYL_ONE_STAGE(gru, type), CYL_TWO_STAGES(gru_reset, gru_update, type), CYL_ONE_STAGE(lstm_peephole, type), \
        CYL_ONE_STAGE(lstm_coupled, type), CYL_ONE_STAGE(lstm_coupled_peephole, type), CYL_ONE_STAGE(lstm_norm, type)}
CYL_UNUSED static const cyl_cell_f32 cyl_cells_f32[CYL_CELL_COUNT] = CYL_CELLS(f32);
CYL_UNUSED static const cyl_cell_f64 cyl_cells_f64[CYL_CELL_COUNT] = CYL_CELLS(f64);

#endif
