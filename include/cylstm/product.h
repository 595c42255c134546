/* Matrix products with packed weights.
 *
 * A matrix (K, columns) is packed as panels of CYL_PANEL columns, two vector registers: panel j holds its K rows
 * one after the other, K CYL_PANEL numbers; columns beyond the last are 0 there.
 *
 *     cyl_product            c (rows, panels) = or += a (rows, K) . b, panels of c `apart` from each other
 *     cyl_product_columns    the same for columns that need not fill their last panel
 *     cyl_tile_strip         c += a^T b over K rows of both: gradients of weights
 *
 * Every result is summed over k in ascending order by fused multiply-adds, from 0 or from what c held: so its bits
 * do not depend on how rows, panels and k are cut. (On the scalar path the compiler may fuse or not, but it does the
 * same in every tile.) A tile of 6 rows and 2 vectors (12 with AVX-512) keeps all sums in registers and reads 2 vectors
 * of b for 12 (24) multiply-adds.
 */
#ifndef CYLSTM_PRODUCT_H
#define CYLSTM_PRODUCT_H

#include "platform.h"

/* Numbers in a panel, rows of a tile: CYL_PANEL and CYL_TILE of instantiate.h. */
static inline ptrdiff_t cyl_panel(int isa, size_t real) { return ((ptrdiff_t)32 << isa) / (ptrdiff_t)real; }
static inline ptrdiff_t cyl_tile(int isa) { return isa == CYL_AVX512 ? 12 : 6; }

#if CYL_PACKED
#define CYL_BODY "product_body.h"
#include "instantiate.h"
#endif

#endif
