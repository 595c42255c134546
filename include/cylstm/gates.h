/* The activations of gates: sigmoid and tanh of pre-activations held within [-clip, clip], as ONNX defines
 * `clip`, and their slopes from the activated value y alone.
 *
 * The slope is 0 where the clip held the pre-activation, which y = f(clip) or f(-clip) tells, f being monotonic.
 * Without a clip (infinity) these are 0 and 1, or 1, where the slope of sigmoid and tanh is 0 anyway: no second
 * code path.
 */
#ifndef CYLSTM_GATES_H
#define CYLSTM_GATES_H

#include "activations.h"

#define CYL_BODY "gates_body.h"
#include "instantiate_reals.h"
#undef CYL_BODY

#endif
