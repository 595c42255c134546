"""Estimators with the scikit-learn API, based on `cylstm.Trainer`.

`SequenceClassifier` and `SequenceRegressor` predict one target per sequence, `Forecaster` predicts the next
rows of a series. They support cloning, pickling, parameter search and pipelines. Requires scikit-learn
(`pip install "cylstm[sklearn]"`), which `import cylstm` does not load.

Examples
--------
Classify sequences of different lengths by their frequency:

>>> import numpy as np
>>> from cylstm.sklearn import SequenceClassifier
>>> rng = np.random.default_rng(0)
>>> X = [np.sin(np.arange(20 + i % 7) * (0.3 + i % 2 / 2) + rng.uniform(0, 6)) for i in range(60)]
>>> y = ["slow", "fast"] * 30
>>> classifier = SequenceClassifier(hidden_size=16, epochs=20, random_state=0).fit(X[:40], y[:40])
>>> classifier.score(X[40:], y[40:])
1.0

Forecast a series of two channels with 80 % prediction intervals:

>>> from cylstm.sklearn import Forecaster
>>> t = np.arange(300)
>>> series = np.column_stack([np.sin(t / 4), np.cos(t / 4)]) + rng.normal(0, 0.1, (300, 2))
>>> forecaster = Forecaster(horizon=3, window=24, hidden_size=16, epochs=10, random_state=0).fit(series)
>>> lower, upper = forecaster.predict_interval(series)
>>> forecaster.predict(series).shape, bool((lower <= upper).all())
((3, 2), True)
"""

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sklearn":
        raise
    raise ModuleNotFoundError(
        'cylstm.sklearn: expected scikit-learn to be installed; pip install "cylstm[sklearn]"', name="sklearn"
    ) from None

from cylstm.sklearn.classifier import SequenceClassifier
from cylstm.sklearn.forecaster import Forecaster
from cylstm.sklearn.regressor import SequenceRegressor

__all__ = ["Forecaster", "SequenceClassifier", "SequenceRegressor"]
