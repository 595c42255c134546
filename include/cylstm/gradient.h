/* Gradients of weights: what the backward passes of the packed path sum over rows.
 *
 *     cyl_cut_strips      columns of gradients of outputs side by side, a tile's in one strip
 *     cyl_add_gradient    dW += strips^T . b: tiles of dW stay in registers for a block of rows
 *     cyl_add_sums        db += column sums
 *
 * Callers go through the rows from the last to the first in blocks of at most CYL_ROWS_AT_ONCE. Every sum goes on in
 * the gradient's own element, so its bits do not depend on how the rows are cut into blocks, or into calls made from
 * the last rows to the first.
 */
#ifndef CYLSTM_GRADIENT_H
#define CYLSTM_GRADIENT_H

#include "product.h"

#define CYL_ROWS_AT_ONCE 256 /* whose gradients stay in cache */

#if CYL_PACKED
#define CYL_BODY "gradient_body.h"
#include "instantiate.h"
#endif

#endif
