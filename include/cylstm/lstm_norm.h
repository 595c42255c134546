/* LSTM with layer normalisation, pointwise (Ba et al. 2016, equations 20 to 22).
 *
 * With x' = W_ih x and u = W_hh h_{t-1}, each 4H wide, and N(v) = (v - mean) / sqrt(variance + eps) over a row:
 *     z = a_x N(x') + a_h N(u) + b      i, f, g, o from z as in lstm.h
 *     c = f c_prev + i g                h = o tanh(a_c N(c) + b_c)
 * The paper's biases of the two norms of z are one with b. The cell parameters are a_x, a_h, b (4 H each), a_c, b_c.
 * `extra` is u and a copy of x', 8 H wide, from which the backward pass takes the means and variances again:
 * two sums over a row instead of saved numbers.
 * Backward, dv = r (a dy - mean(a dy) - N mean(a dy N)) for y = a N(v) and r = 1 / sqrt(variance + eps).
 */
#ifndef CYLSTM_LSTM_NORM_H
#define CYLSTM_LSTM_NORM_H

#include "gates.h"

#include <math.h>

#define CYL_NORM_EPS 1e-5 /* PyTorch's */

#define CYL_BODY "lstm_norm_body.h"
#include "instantiate.h"

#endif
