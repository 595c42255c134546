/* LSTM, pointwise (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000), and two variants of it.
 *
 * Gates in the order i f g o, each H wide, with z the pre-activations and b = b_ih + b_hh:
 *     i = sigmoid(z_i + b_i)   f = sigmoid(z_f + b_f)   g = tanh(z_g + b_g)   o = sigmoid(z_o + b_o)
 *     c = f c_prev + i g       h = o tanh(c)
 * Peepholes (Gers and Schmidhuber 2000): i and f also see p_i c_prev and p_f c_prev, o sees p_o c; the cell parameters are
 * p_i, p_f, p_o. Coupled (Greff et al. 2017, CIFG): f = 1 - i, no gate of its own: gates i g o; the cell parameters are p_i, p_o.
 * Backward, with dh and dc given and s = tanh(c):
 *     do = dh s                dc += dh o (1 - s^2) + dz_o p_o
 *     di = dc g   df = dc c_prev   dg = dc i   and dc_prev = dc f + dz_i p_i + dz_f p_f
 *     dz = di i (1 - i), df f (1 - f), dg (1 - g^2), do o (1 - o);   coupled: di = dc (g - c_prev)
 *     dp_i += dz_i c_prev      dp_f += dz_f c_prev      dp_o += dz_o c
 * c and tanh(c) are computed again in the backward pass: one activation of five against
 * a saved plane of H numbers per row and step; and what follows may change c afterwards (zoneout).
 */
#ifndef CYLSTM_LSTM_H
#define CYLSTM_LSTM_H

#include "gates.h"

#define CYL_BODY "lstm_body.h"
#include "instantiate.h"

#endif
