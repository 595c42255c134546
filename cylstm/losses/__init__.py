"""Loss functions, which return a value and its gradient with respect to a model's outputs.

`value, dy = loss(y, target, lengths=None)`, for `model.backward(dy)`. All losses accept the same layouts and
ragged batches, and average over all steps or the last one:

- regression: `MSE`, `MAE`, `Huber`, and `Quantile` for probabilistic forecasts,
- binary classification: `BinaryCrossEntropy`,
- multiclass classification: `CrossEntropy`,
- sequence labels without alignment, as in speech recognition: `CTC`.

`LOSSES` maps names to classes; `loss.config` holds the constructor arguments.
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
