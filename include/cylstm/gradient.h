/* Gradients of weights: what the backward passes of the packed path sum over rows.
 *
 *     cyl_cut_strips      columns of gradients of outputs side by side, a tile's in one strip
 *     cyl_add_gradient    dW += strips^T . b: tiles of dW stay in registers for a block of rows
 *     cyl_add_sums        db += column sums
 *
 * Callers process rows in descending order, in blocks of at most CYL_ROWS_AT_ONCE. Sums are accumulated in the
 * elements of the gradient, so results are bit-identical for any division of the rows into blocks, or into calls in
 * descending order.
 */
#ifndef CYLSTM_GRADIENT_H
#define CYLSTM_GRADIENT_H

#include "product.h"

#define CYL_ROWS_AT_ONCE 256 /* rows whose gradients stay in cache */

#if CYL_PACKED
#define CYL_BODY "gradient_body.h"
#include "instantiate.h"
#endif

#endif
