/* Vanilla RNN, pointwise (Elman 1990): h = phi(z + b), phi being tanh or max(0, .).
 *
 * Backward: dz = dh (1 - h^2) for tanh, dh where h > 0, infinity and NaN too, for relu. A NaN stays one.
 */
#ifndef CYLSTM_RNN_H
#define CYLSTM_RNN_H

#include "gates.h"

#define CYL_BODY "rnn_body.h"
#include "instantiate.h"

#endif
