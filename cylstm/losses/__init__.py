"""Losses: a value, and its gradient with respect to a model's outputs.

`value, dy = loss(y, target, lengths=None)`, for `model.backward(dy)`. All of them take the same layouts,
ragged batches, and all steps or the last:

- numbers: `MSE`, `MAE`, `Huber`, and `Quantile` for a spread of forecasts,
- yes or no: `BinaryCrossEntropy`,
- one class of several: `CrossEntropy`,
- labels without alignment, as in speech: `CTC`.

`LOSSES` holds all of them by name; `loss.config` is what one was constructed with.
"""

from cylstm.losses.base import LOSSES, Loss
from cylstm.losses.classification import CrossEntropy
from cylstm.losses.ctc import CTC
from cylstm.losses.regression import MAE, MSE, BinaryCrossEntropy, Huber, Quantile

__all__ = [
    "CTC",
    "LOSSES",
    "MAE",
    "MSE",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Huber",
    "Loss",
    "Quantile",
]
