"""`Forecaster`: time series forecasting."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from cylstm.classification.network import Cell
from cylstm.data import StandardScaler
from cylstm.losses import MSE, Loss, Quantile
from cylstm.sklearn import _windows
from cylstm.sklearn._base import NetworkEstimator, Samples
from cylstm.sklearn._series import Series, Shape, covariates_of, series_of

Array = NDArray[Any]


class _WithQuantiles:
    """A method that is available only with quantiles.

    Unlike that of scikit-learn's `available_if`, the AttributeError explains the reason.
    """

    def __init__(self, method: Any) -> None:
        self._method, self.__doc__ = method, method.__doc__

    def __get__(self, forecaster: "Forecaster | None", owner: Any = None) -> Any:
        """Return the method, bound if accessed on an instance."""
        if forecaster is not None and forecaster.quantiles is None:
            raise AttributeError(
                f"{self._method.__name__}: expected a forecaster with quantiles, got quantiles=None; pass "
                "quantiles=(0.1, 0.5, 0.9) to the constructor, and fit"
            )
        return self._method.__get__(forecaster, owner)


class Forecaster(NetworkEstimator):
    """Forecaster of time series with one or more channels: an LSTM, GRU or RNN.

    X is a series in chronological order, and there is no y: `fit(X)` trains on a series, and `predict(X)`
    forecasts the rows after the given one, which may be the same, a longer or another series. Several series
    are a list or a three-dimensional array, and train one network.

    At each row, the network reads up to `window` rows and outputs the changes from that row to the next
    `horizon` rows. An output of 0 after scaling is a forecast of the mean drift.

    Parameters
    ----------
    horizon : int
        Number of rows to forecast.
    window : int
        Number of past rows that a forecast depends on.
    quantiles : sequence of float or None
        Ascending, including 0.5, which `predict` returns. The first and the last one are the prediction
        interval. None: forecast the mean, without an interval.
    cell, hidden_size, num_layers, dropout, epochs, batch_size, learning_rate, clip_norm
        As in `SequenceClassifier`.
    validation_fraction : float, optional
        Fraction of the rows to hold out at the end of each series. Training stops after `patience` epochs
        without improvement of their loss, and the best weights are restored. None: train on all rows for all
        epochs.
    patience, random_state, n_jobs, verbose
        As in `SequenceClassifier`.

    Attributes
    ----------
    n_features_in_ : int
        Channels.
    feature_names_in_, history_
        As in `SequenceClassifier`.
    model_ : Sequential
        The network, with its scalers, for `cylstm.save`.

    Notes
    -----
    Quantiles are trained with the pinball loss (Koenker and Bassett 1978) and sorted (Chernozhukov et al.
    2010). The inputs of each row include the covariates of that row and of the next `horizon` rows.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.sklearn import Forecaster
    >>> series = np.sin(np.arange(200) / 3)
    >>> forecaster = Forecaster(horizon=4, window=20, hidden_size=16, epochs=30, random_state=0)
    >>> ahead = forecaster.fit(series[:180]).predict(series[:180])
    >>> bool(np.abs(ahead - series[180:184]).max() < 0.2)
    True
    """

    _shape: Shape

    def __init__(
        self,
        horizon: int = 1,
        *,
        window: int = 48,
        quantiles: Any = (0.1, 0.5, 0.9),
        cell: Cell = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.1,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        validation_fraction: float | None = 0.2,
        patience: int = 10,
        clip_norm: float | None = 1.0,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            cell=cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_fraction=validation_fraction,
            patience=patience,
            clip_norm=clip_norm,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.horizon = horizon
        self.window = window
        self.quantiles = quantiles

    def _loss(self) -> Loss:
        return Quantile(self._shape.quantiles) if self._shape.quantiles else MSE()

    def fit(self, X: Any, y: None = None, covariates: Any = None) -> "Forecaster":
        """Train a new network.

        Parameters
        ----------
        X : array, data frame, or list of arrays
            (n, channels) or (n,); or several series, (series, n, channels) or a list. Series of at most
            `horizon` rows are ignored.
        y : None
            Ignored; present for API consistency.
        covariates : array, data frame or list of arrays, optional
            (n, K) or (n,), for each row of X: values known in advance, such as calendar features or prices.

        Raises
        ------
        ValueError, TypeError
            If shapes do not match, there are too few rows, a value is NaN or infinite, or a parameter is
            invalid.
        """
        series, known = self._series(X, covariates, reset=True)
        self._reset_random()
        fraction, shape, longest = self._held_out_fraction(), self._shape, max(map(len, series.parts))
        split = [_windows.split_rows(len(part), shape.horizon, fraction) for part in series.parts]
        train_ends, held_out_ends = ([ends[i] for ends in split] for i in (0, 1))
        if fraction and not (any(train_ends) and any(held_out_ends)):
            raise ValueError(
                f"validation_fraction: expected more than horizon = {shape.horizon} training rows, and "
                f"{shape.horizon} to hold out, got {fraction:g} of {longest} rows; pass None to hold out none"
            )
        self._initialize(series.parts, known, train_ends)
        train = self._samples(series.parts, known, train_ends)
        self._train_all(train, self._samples(series.parts, known, held_out_ends) if fraction else None)
        return self

    def partial_fit(self, X: Any, y: None = None, covariates: Any = None) -> "Forecaster":
        """Train for one epoch on these rows, at a constant learning rate and with the initial scaling.

        Same arguments and errors as `fit`.
        """
        first = not hasattr(self, "model_")
        series, known = self._series(X, covariates, reset=first)
        ends = [_windows.split_rows(len(part), self._shape.horizon, 0)[0] for part in series.parts]
        if first:
            self._reset_random()
            self._initialize(series.parts, known, ends)
        self._train(self._samples(series.parts, known, ends), None, 1)
        return self

    def _initialize(self, parts: list[Array], known: list[Any], ends: list[range]) -> None:
        """Create a network with scalers fitted to the training rows."""
        shape, used = self._shape, [(v, k, e) for v, k, e in zip(parts, known, ends, strict=True) if e]
        scalers = {
            "x": StandardScaler().fit([_windows.features(v, k, shape.horizon)[: len(e)] for v, k, e in used]),
            "y": StandardScaler().fit([_windows.changes(v, shape.horizon)[: len(e)] for v, _, e in used]),
        }
        outputs = shape.horizon * shape.channels * max(1, len(shape.quantiles))
        self._create_model(scalers, outputs, "last", False, 0.0)

    def _samples(self, parts: list[Array], known: list[Any], ends: list[range]) -> Samples:
        """Create windows that end with these rows, and the scaled changes that follow."""
        x, y = [], []
        for values, covariates, rows in zip(parts, known, ends, strict=True):
            x += self._windows(values, covariates, rows)
            y.append(self.model_.scalers["y"].transform(_windows.changes(values, self._shape.horizon)[rows]))
        return x, np.concatenate(y)

    def _windows(self, values: Array, covariates: Array | None, ends: range) -> list[Array]:
        rows = self._scaled(_windows.features(values, covariates, self._shape.horizon))
        assert isinstance(rows, np.ndarray)
        return _windows.windows(rows, ends, self._shape.window)

    def _series(self, X: Any, covariates: Any, reset: bool) -> tuple[Series, list[Array | None]]:
        """Check training data."""
        series = series_of(self, X, reset)
        known = covariates_of(covariates, series, 0, None if reset else self._shape.covariates)
        if reset:
            columns = 0 if known[0] is None else known[0].shape[1]
            channels = series.parts[0].shape[1]
            self._shape = Shape.of(self.horizon, self.window, channels, columns, self.quantiles)
        horizon, longest = self._shape.horizon, max(map(len, series.parts))
        if longest <= horizon:
            raise ValueError(
                f"X: expected more rows than horizon = {horizon}, got n_samples={longest}; pass a smaller "
                "horizon"
            )
        enough = [i for i, part in enumerate(series.parts) if len(part) > horizon]
        parts = [series.parts[i] for i in enough]
        return series._replace(parts=parts), [known[i] for i in enough]

    def _levels(self, x: list[Array], last: Array) -> Array:
        """Forecast (n, horizon, channels, quantiles) from windows ending with rows `last` (n, channels)."""
        shape, n = self._shape, len(x)
        outputs = self._outputs(x).reshape(n, shape.horizon * shape.channels, -1).swapaxes(1, 2)
        steps = self.model_.scalers["y"].inverse(outputs).reshape(n, -1, shape.horizon, shape.channels)
        return np.sort(np.moveaxis(steps, 1, -1) + last[:, None, :, None], axis=-1)

    def _ahead(self, X: Any, covariates: Any) -> tuple[Series, Array]:
        """Return the series, and forecasts (series, horizon, channels, quantiles) after their ends."""
        check_is_fitted(self)
        series = series_of(self, X, False)
        known = covariates_of(covariates, series, self._shape.horizon, self._shape.covariates)
        x: list[Array] = []
        for values, covariate in zip(series.parts, known, strict=True):
            x += self._windows(values, covariate, range(len(values) - 1, len(values)))
        return series, self._levels(x, np.stack([values[-1] for values in series.parts]))

    def _middle(self, levels: Array) -> Array:
        quantiles = self._shape.quantiles
        middle: Array = levels[..., quantiles.index(0.5) if quantiles else 0]
        return middle

    def predict(self, X: Any, covariates: Any = None) -> Array:
        """Forecast the rows after X: the median, or the mean without quantiles.

        Parameters
        ----------
        X : array, data frame, or list of arrays
            As in `fit`; a series may have any number of rows.
        covariates : array, data frame or list of arrays, optional
            (n + horizon, K), for the rows of X and the rows to forecast.

        Returns
        -------
        ndarray
            (horizon, channels), or (horizon,) for X without a channel axis; with a leading axis for several
            series.

        Raises
        ------
        ValueError, TypeError
            If shapes differ from those of `fit`, or a value is NaN or infinite.
        """
        series, levels = self._ahead(X, covariates)
        return series.formed(self._middle(levels))

    @_WithQuantiles
    def predict_interval(self, X: Any, covariates: Any = None) -> tuple[Array, Array]:
        """Forecast the lowest and the highest quantile for the rows after X.

        Same arguments and errors as `predict`, and two arrays of the shape of its result. Quantiles 0.1 and
        0.9 are the bounds of an 80 % prediction interval.
        """
        series, levels = self._ahead(X, covariates)
        return series.formed(levels[..., 0]), series.formed(levels[..., -1])

    @_WithQuantiles
    def predict_quantiles(self, X: Any, covariates: Any = None) -> Array:
        """Forecast all quantiles for the rows after X, on an additional last axis.

        Same arguments and errors as `predict`.
        """
        series, levels = self._ahead(X, covariates)
        return series.formed(levels)

    def score(self, X: Any, y: None = None, covariates: Any = None) -> float:
        """Compute R² of forecasts from every row of X with a full window, as `sklearn.metrics.r2_score`.

        A series that is too short has one forecast, from the last row with `horizon` rows after it. The score
        is the mean over channels and the horizon.

        Parameters
        ----------
        X, y, covariates
            As in `fit`.
        """
        check_is_fitted(self)
        series, known = self._series(X, covariates, reset=False)
        horizon, window = self._shape.horizon, self._shape.window
        x: list[Array] = []
        last, true = [], []
        for values, covariate in zip(series.parts, known, strict=True):
            m = len(values) - horizon
            ends = range(min(window, m) - 1, m)
            x += self._windows(values, covariate, ends)
            last.append(values[ends])
            true.append(_windows.changes(values, horizon)[ends])
        rows, n = np.concatenate(last), len(x)
        levels = np.concatenate(true).reshape(n, horizon, -1) + rows[:, None]
        forecasts = self._middle(self._levels(x, rows))
        return float(r2_score(levels.reshape(n, -1), forecasts.reshape(n, -1)))

    def __sklearn_tags__(self) -> Any:
        """Declare that y is not required, and support for three-dimensional X."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.three_d_array = True
        return tags
