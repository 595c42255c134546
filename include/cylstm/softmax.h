/* Softmax of a row, and the logarithm of its denominator.
 *
 *     double cyl_softmax_<f32|f64>[isa](y, x, n, scale)
 *
 * y[n] <- scale exp(x[j]) / sum_k exp(x[k]); returns log(sum_k exp(x[k])). y may be x; n >= 1. The largest x is
 * subtracted first, so finite x never overflow. -inf is a probability of 0; a NaN or inf, or a row of -inf only,
 * gives NaN throughout.
 *
 * Three passes over a row that is still in L1: the largest, exp, the sum and its division. 6400 rows of 65 float32 take
 * 0.56 ms with AVX-512 and 0.59 with AVX2 (EPYC, one core), half of it exp. Tried: exp and sum in one loop, 5 %
 * faster, not worth its second copy for the rest of a row; adding the lanes by halves, slower, for it waits for stores.
 */
#ifndef CYLSTM_SOFTMAX_H
#define CYLSTM_SOFTMAX_H

#include "activations.h"

#include <math.h>

#define CYL_BODY "softmax_body.h"
#include "instantiate.h"

typedef double (*cyl_softmax_function_f32)(float *, const float *, ptrdiff_t, float);
typedef double (*cyl_softmax_function_f64)(double *, const double *, ptrdiff_t, double);
CYL_UNUSED static const cyl_softmax_function_f32 cyl_softmax_f32[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_softmax, f32);
CYL_UNUSED static const cyl_softmax_function_f64 cyl_softmax_f64[CYL_ISA_COUNT] = CYL_ISA_ROW(cyl_softmax, f64);

#endif
