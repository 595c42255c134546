/* GRU, pointwise (Cho et al. 2014), with the reset gate after or before the product.
 *
 * Gates in the order r z n, each H wide; y stands for W_ih x + b_ih, u for W_hh h_{t-1} + b_hh.
 *     r = sigmoid(y_r + u_r)   z = sigmoid(y_z + u_z)
 *     n = tanh(y_n + r u_n)                     after: PyTorch, Keras' reset_after
 *     n = tanh(y_n + W_hn (r h_{t-1}) + b_hn)   before: the paper, ONNX' linear_before_reset=0
 *     h = (1 - z) n + z h_{t-1}
 * Backward, with dh given:
 *     dn = dh (1 - z) (1 - n^2)   dz = dh (h_{t-1} - n) z (1 - z)   dh_{t-1} = dh z + products
 *     after:  dr = dn u_n r (1 - r), and u_n receives dn r
 *     before: with e = W_hn^T dn, dr = e h_{t-1} r (1 - r), and dh_{t-1} receives e r
 * `extra` is u_n after, r h_{t-1} before. Before takes two stages: gru_reset, then gru_update.
 */
#ifndef CYLSTM_GRU_H
#define CYLSTM_GRU_H

#include "gates.h"

#define CYL_BODY "gru_body.h"
#include "instantiate.h"

#endif
