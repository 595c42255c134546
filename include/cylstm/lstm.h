/* LSTM, pointwise (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000).
 *
 * Gates in the order i f g o, each H wide, with z the pre-activations:
 *     i = sigmoid(z_i + b_i)   f = sigmoid(z_f + b_f)   g = tanh(z_g + b_g)   o = sigmoid(z_o + b_o)
 *     c = f c_prev + i g       h = o tanh(c)
 * Backward, with dh and dc given and s = tanh(c):
 *     do = dh s                dc += dh o (1 - s^2)
 *     di = dc g   df = dc c_prev   dg = dc i   and dc_prev = dc f
 *     dz = di i (1 - i), df f (1 - f), dg (1 - g^2), do o (1 - o)
 * tanh(c) is computed again in the backward pass: one activation of five against
 * a saved plane of H numbers per row and step.
 */
#ifndef CYLSTM_LSTM_H
#define CYLSTM_LSTM_H

#include "activations.h"

#define CYL_BODY "lstm_body.h"
#include "instantiate.h"

#endif
