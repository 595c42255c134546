/* Optimiser steps on a part of a flat vector of parameters p, from its gradient g.
 *
 *     cyl_<optimizer>_<f32|f64>[isa](p, g, m, v, n, k)
 *
 * p, m and v (n numbers each) are updated in place in one pass; m and v are not read where an optimiser
 * has none, and may then be NULL. k holds its coefficients, in the order of the enums below.
 *
 * Limit: memory. Adam reads four vectors and writes three, 28 bytes a parameter in float32: 350 thousand parameters, as
 * of an LSTM of 256 units, take 0.1 ms out of L3.
 */
#ifndef CYLSTM_OPTIMIZERS_H
#define CYLSTM_OPTIMIZERS_H

#include <math.h>

#include "platform.h"

typedef enum { CYL_SGD = 0, CYL_RMSPROP = 1, CYL_ADAM = 2, CYL_OPTIMIZER_COUNT = 3 } cyl_optimizer;

/* The slope is g + DECAY p, an L2 penalty; SHRINK multiplies p instead (Loshchilov and Hutter 2019). */
enum { CYL_RATE = 0, CYL_DECAY = 1, CYL_SHRINK = 2, CYL_FIRST_OPTION = 3 };
enum { CYL_MOMENTUM = CYL_FIRST_OPTION, CYL_NESTEROV = CYL_FIRST_OPTION + 1 };
enum { CYL_ALPHA = CYL_FIRST_OPTION, CYL_RMS_EPS = CYL_FIRST_OPTION + 1 };
enum {
    CYL_BETA1 = CYL_FIRST_OPTION,
    CYL_BETA2 = CYL_FIRST_OPTION + 1,
    CYL_EPS = CYL_FIRST_OPTION + 2,
    CYL_ROOT = CYL_FIRST_OPTION + 3
};
enum { CYL_COEFFICIENTS = CYL_FIRST_OPTION + 4 };

typedef void (*cyl_optimizer_f32)(float *, const float *, float *, float *, ptrdiff_t, const double *);
typedef void (*cyl_optimizer_f64)(double *, const double *, double *, double *, ptrdiff_t, const double *);

#define CYL_BODY "optimizers_body.h"
#include "instantiate.h"

#define CYL_OPTIMIZERS(type) {CYL_ISA_ROW(cyl_sgd, type), CYL_ISA_ROW(cyl_rmsprop, type), CYL_ISA_ROW(cyl_adam, type)}
CYL_UNUSED static const cyl_optimizer_f32 cyl_optimizers_f32[CYL_OPTIMIZER_COUNT][CYL_ISA_COUNT] = CYL_OPTIMIZERS(f32);
CYL_UNUSED static const cyl_optimizer_f64 cyl_optimizers_f64[CYL_OPTIMIZER_COUNT][CYL_ISA_COUNT] = CYL_OPTIMIZERS(f64);

#endif
