/* The cells: one row each, and the contract that their two functions share.
 *
 * A cell is a pointwise pass over one time step, after the engine has formed the
 * pre-activations with its GEMMs, and the same pass backward. Sizes: B rows,
 * H units, G gates. All arrays are row-major, owned by the caller, and do not
 * overlap. The functions cannot fail, allocate nothing and keep no state.
 *
 *     cyl_<cell>_fwd_<f32|f64>_<isa>(const cyl_forward_<f32|f64> *)
 *     cyl_<cell>_bwd_<f32|f64>_<isa>(const cyl_backward_<f32|f64> *)
 *
 * The table is indexed by cell and instruction set: cyl_cells_f32[CYL_LSTM].forward[isa].
 */
#ifndef CYLSTM_CELLS_H
#define CYLSTM_CELLS_H

#include "platform.h"

#define CYL_BODY "cells_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

#include "lstm.h"

typedef enum { CYL_LSTM = 0, CYL_CELL_COUNT = 1 } cyl_cell_kind;

#define CYL_CELL(cell, type) {CYL_ISA_ROW(cyl_##cell##_fwd, type), CYL_ISA_ROW(cyl_##cell##_bwd, type)}
CYL_UNUSED static const cyl_cell_f32 cyl_cells_f32[CYL_CELL_COUNT] = {CYL_CELL(lstm, f32)};
CYL_UNUSED static const cyl_cell_f64 cyl_cells_f64[CYL_CELL_COUNT] = {CYL_CELL(lstm, f64)};

#endif
