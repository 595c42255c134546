/* exp, tanh and sigmoid without branches, tables or libm, so that a loop over
 * them vectorises, and every instruction set shares one definition.
 *
 *     float  cyl_exp_f32(float),  cyl_tanh_f32(float),  cyl_sigmoid_f32(float)
 *     double cyl_exp_f64(double), cyl_tanh_f64(double), cyl_sigmoid_f64(double)
 *     void   cyl_<function>_array_<f32|f64>_<isa>(y, x, n)   y[n] <- f(x[n])
 *
 * Accuracy over the whole range, in units in the last place; measured by
 * tests/engine/test_activations.py on every instruction set:
 *
 *                  float32   float64
 *     exp             2         2      subnormal results within 1 subnormal
 *     sigmoid         3         3      subnormal results may be 0
 *     tanh            3         3      relative, down to the smallest subnormal
 *
 * NaN gives NaN, infinities give the limits, tanh(-0) is -0. y may be x.
 *
 * Method: x = n ln2 + r with |r| <= ln2/2 (Cody and Waite 1980), expm1(r) by its
 * Taylor polynomial, 2^n put together in the exponent bits. tanh is
 * -m / (2 + m) with m = expm1(-2|x|), which keeps the relative accuracy near 0
 * that 2 sigmoid(2x) - 1 loses.
 */
#ifndef CYLSTM_ACTIVATIONS_H
#define CYLSTM_ACTIVATIONS_H

#include "platform.h"

#ifdef __FAST_MATH__
#error "cylstm: compile without -ffast-math, which removes the rounding that exp relies on"
#endif

#define CYL_BODY "activations_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

#define CYL_BODY "activations_array_body.h"
#include "instantiate.h"

/* The array functions by activation and instruction set: cyl_activations_f32[CYL_TANH][isa]. */
typedef enum { CYL_EXP = 0, CYL_SIGMOID = 1, CYL_TANH = 2, CYL_ACTIVATION_COUNT = 3 } cyl_activation;

#define CYL_ACTIVATIONS(type) \
    {CYL_ISA_ROW(cyl_exp_array, type), CYL_ISA_ROW(cyl_sigmoid_array, type), CYL_ISA_ROW(cyl_tanh_array, type)}
typedef void (*cyl_activation_f32)(float *, const float *, ptrdiff_t);
typedef void (*cyl_activation_f64)(double *, const double *, ptrdiff_t);
CYL_UNUSED static const cyl_activation_f32 cyl_activations_f32[CYL_ACTIVATION_COUNT][CYL_ISA_COUNT] =
    CYL_ACTIVATIONS(f32);
CYL_UNUSED static const cyl_activation_f64 cyl_activations_f64[CYL_ACTIVATION_COUNT][CYL_ISA_COUNT] =
    CYL_ACTIVATIONS(f64);

#endif
