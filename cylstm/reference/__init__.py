"""Reference implementations in NumPy float64, slow and simple, to test the engine against.

This package does not import the rest of cylstm. `CELLS` maps each cell to a pair of functions:
step(x, h, states, p, clip) -> (new states, saved), and
back(gradients of the new states, saved, p, gradients of p) -> (dx, dh, gradients of the previous states).
`layer_forward` and `layer_backward` unroll them over time.
"""

from functools import partial

from cylstm.reference.dense import dense_backward, dense_forward
from cylstm.reference.gru import gru_step, gru_step_back
from cylstm.reference.layer import layer_backward, layer_forward
from cylstm.reference.losses import (
    binary_cross_entropy,
    cross_entropy,
    ctc,
    huber,
    log_softmax,
    mae,
    mse,
    quantile,
)
from cylstm.reference.lstm import lstm_norm_step, lstm_norm_step_back, lstm_step, lstm_step_back
from cylstm.reference.optimizers import adam, adamw, clip_by_norm, rmsprop, sgd
from cylstm.reference.rnn import rnn_step, rnn_step_back

CELLS = {
    "lstm": (lstm_step, lstm_step_back),
    "rnn_tanh": (rnn_step, rnn_step_back),
    "rnn_relu": (partial(rnn_step, nonlinearity="relu"), rnn_step_back),
    "gru": (gru_step, gru_step_back),
    "gru_reset_before": (partial(gru_step, reset_after=False), gru_step_back),
    "lstm_peephole": (lstm_step, lstm_step_back),
    "lstm_coupled": (partial(lstm_step, coupled=True), lstm_step_back),
    "lstm_coupled_peephole": (partial(lstm_step, coupled=True), lstm_step_back),
    "lstm_norm": (lstm_norm_step, lstm_norm_step_back),
}

__all__ = [
    "CELLS",
    "adam",
    "adamw",
    "binary_cross_entropy",
    "clip_by_norm",
    "cross_entropy",
    "ctc",
    "dense_backward",
    "dense_forward",
    "huber",
    "layer_backward",
    "layer_forward",
    "log_softmax",
    "mae",
    "mse",
    "quantile",
    "rmsprop",
    "sgd",
]
