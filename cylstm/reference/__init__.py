"""The definitions in NumPy float64, slow and plain: what the engine is checked against.

Nothing here imports the rest of the package. `CELLS` holds each cell's pair:
forward(x, *states, w_ih, w_hh, b_ih, b_hh) -> (y, *last states, saved), and
backward(dy, *gradients of the last states, saved) -> gradients by name.
"""

from functools import partial

from cylstm.reference.dense import dense_backward, dense_forward, mse
from cylstm.reference.gru import gru_backward, gru_forward
from cylstm.reference.lstm import lstm_backward, lstm_forward
from cylstm.reference.optimizers import adam, clip_by_norm, sgd
from cylstm.reference.rnn import rnn_backward, rnn_forward

CELLS = {
    "lstm": (lstm_forward, lstm_backward),
    "rnn_tanh": (rnn_forward, rnn_backward),
    "rnn_relu": (partial(rnn_forward, nonlinearity="relu"), rnn_backward),
    "gru": (gru_forward, gru_backward),
    "gru_reset_before": (partial(gru_forward, reset_after=False), gru_backward),
}

__all__ = [
    "CELLS",
    "adam",
    "clip_by_norm",
    "dense_backward",
    "dense_forward",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "mse",
    "rnn_backward",
    "rnn_forward",
    "sgd",
]
