"""The definitions in NumPy float64, slow and plain: what the engine is checked against.

Nothing here imports the rest of the package. Names and the order of arguments are the engine's.
"""

from cylstm.reference.dense import dense_backward, dense_forward, mse
from cylstm.reference.lstm import lstm_backward, lstm_forward
from cylstm.reference.optimizers import adam, clip_by_norm, sgd

__all__ = [
    "adam",
    "clip_by_norm",
    "dense_backward",
    "dense_forward",
    "lstm_backward",
    "lstm_forward",
    "mse",
    "sgd",
]
