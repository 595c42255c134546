"""`SequenceRegressor`: regression on sequences."""

from typing import Any

from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import check_array

from cylstm.data import StandardScaler
from cylstm.losses import MSE, Loss
from cylstm.sklearn import _inputs
from cylstm.sklearn._sequences import SequenceEstimator

Array = NDArray[Any]


class SequenceRegressor(RegressorMixin, SequenceEstimator):
    """Regressor of sequences: an LSTM, GRU or RNN whose states are pooled over time.

    Channels of X and columns of y are standardised with statistics of the training data. The loss is the mean
    squared error.

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, pooling, dropout, epochs, batch_size, learning_rate
        As in `SequenceClassifier`.
    validation_fraction, patience, clip_norm, random_state, n_jobs, verbose
        As in `SequenceClassifier`.

    Attributes
    ----------
    n_features_in_, feature_names_in_, model_, history_
        As in `SequenceClassifier`. Outputs of `model_` are scaled; `model_.scalers["y"].inverse` undoes it.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.sklearn import SequenceRegressor
    >>> X = np.random.default_rng(0).standard_normal((200, 6, 2))
    >>> y = X.sum(axis=(1, 2))
    >>> regressor = SequenceRegressor(hidden_size=16, random_state=0).fit(X[:150], y[:150])
    >>> regressor.predict(X[150:]).shape, regressor.score(X[150:], y[150:]) > 0.9
    ((50,), True)
    """

    def _loss(self) -> Loss:
        return MSE()

    def _checked_y(self, y: Any) -> Array:
        array: Array = check_array(
            _inputs.numbers(self, "y", y), ensure_2d=False, estimator=self, input_name="y"
        )
        if array.ndim not in (1, 2):
            raise ValueError(f"y: expected (n,) or (n, outputs), got {array.shape}")
        return array

    def _learn_y(self, y: Array) -> int:
        self._one_axis = y.ndim == 1
        return 1 if y.ndim == 1 else y.shape[1]

    def _scalers(self, y: Array) -> dict[str, StandardScaler]:
        return {"y": StandardScaler().fit(y)}

    def _target(self, y: Array) -> Array:
        scaled: Array = self.model_.scalers["y"].transform(y)
        return scaled.reshape(len(y), -1)

    def partial_fit(self, X: Any, y: Any) -> "SequenceRegressor":
        """Train for one epoch on these samples, at a constant learning rate and with the initial scaling.

        Same arguments and errors as `fit`.
        """
        self._train_epoch(X, y)
        return self

    def predict(self, X: Any) -> Array:
        """Predict (n,) or (n, outputs), as y in `fit`."""
        outputs = self._predicted(X)
        values: Array = self.model_.scalers["y"].inverse(outputs)
        return values[:, 0] if self._one_axis else values

    def __sklearn_tags__(self) -> Any:
        """Declare support for several outputs."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
