/* The activations of gates: sigmoid and tanh of pre-activations held within [-clip, clip], as ONNX defines
 * `clip`, and their slopes from the activated value y alone.
 *
 * The slope is 0 where the clip held the pre-activation, which y = f(clip) or f(-clip) tells, f being monotonic.
 * No clip is an infinite one; kernels are also built without its comparisons, a sixth of a step's pointwise work.
 */
#ifndef CYLSTM_GATES_H
#define CYLSTM_GATES_H

#include "activations.h"

/* function(..., H, clips) for the arguments a, with constants where that pays: a panel of units, no clip. */
#define CYL_CHOOSE(function, ...)                                          \
    do {                                                                   \
        if (CYL_TYPED(cyl_clips)(a->clip)) function(__VA_ARGS__, a->H, 1); \
        else if (a->H == CYL_PANEL) function(__VA_ARGS__, CYL_PANEL, 0);   \
        else function(__VA_ARGS__, a->H, 0);                               \
    } while (0)

#define CYL_BODY "gates_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

#endif
