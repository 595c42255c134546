/* The dense layer on packed weights: y = b + x W^T for rows of x.
 *
 *     cyl_dense_<f32|f64>[isa](y, x, w, b, rows, inputs, outputs, ldx, from, to)
 *
 * y (rows, outputs), x (rows, inputs) with ldx from row to row, b (outputs) or NULL; w as cyl_pack_rows packs it:
 * panels of CYL_PANEL outputs. Columns [from, to) of y are computed, from being a multiple of CYL_PANEL. Each sum begins with
 * the bias and runs over the inputs in ascending order, so its bits do not depend on how rows and columns are cut.
 */
#ifndef CYLSTM_DENSE_H
#define CYLSTM_DENSE_H

#include "product.h"

typedef void (*cyl_dense_function_f32)(
    float *, const float *, const float *, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t,
    ptrdiff_t);
typedef void (*cyl_dense_function_f64)(
    double *, const double *, const double *, const double *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t,
    ptrdiff_t);

#if CYL_PACKED
#define CYL_BODY "dense_body.h"
#include "instantiate.h"

CYL_UNUSED static const cyl_dense_function_f32 cyl_dense_f32[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_dense, f32);
CYL_UNUSED static const cyl_dense_function_f64 cyl_dense_f64[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_dense, f64);
#else /* the packed path is never taken */
CYL_UNUSED static const cyl_dense_function_f32 cyl_dense_f32[CYL_ISA_COUNT] = {0};
CYL_UNUSED static const cyl_dense_function_f64 cyl_dense_f64[CYL_ISA_COUNT] = {0};
#endif

#endif
