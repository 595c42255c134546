"""`Forecaster`: the next rows of a series."""

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
    """A method of forecasters that have quantiles; of others an AttributeError, whose message says why.

    That of scikit-learn's `available_if` says only that there is no such attribute.
    """

    def __init__(self, method: Any) -> None:
        self._method, self.__doc__ = method, method.__doc__

    def __get__(self, forecaster: "Forecaster | None", owner: Any = None) -> Any:
        """The method, bound if it is that of a forecaster."""
        if forecaster is not None and forecaster.quantiles is None:
            raise AttributeError(
                f"{self._method.__name__}: expected a forecaster with quantiles, got quantiles=None; pass "
                "quantiles=(0.1, 0.5, 0.9) to the constructor, and fit"
            )
        return self._method.__get__(forecaster, owner)


class Forecaster(NetworkEstimator):
    """The next rows of a series of one or several channels, by an LSTM, GRU or RNN.

    X is the series itself, its rows in order of time, and there is no y: `fit(X)` learns how a series goes
    on, `predict(X)` continues the one it is given, which may be the same, a longer or another one. Several
    series are a list or have three axes; one network learns from all.

    At each row the network reads the `window` rows up to it (fewer at the beginning) and says how far the
    next ones are from it, so that one that says nothing is the forecast of a mean drift.

    Parameters
    ----------
    horizon : int
        Rows to forecast.
    window : int
        Rows that a forecast looks back at.
    quantiles : sequence of float or None
        Ascending and with 0.5, which `predict` gives; the outer ones are the interval. None: the mean, and no
        interval.
    cell, hidden_size, num_layers, dropout, epochs, batch_size, learning_rate, clip_norm
        As in `SequenceClassifier`.
    validation_fraction : float, optional
        Share of the rows, the last ones of each series, that are held out: forecasts of them end the training
        after `patience` epochs without a lower loss, and choose the weights. None: all rows are learnt
        from, in all epochs.
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
    Quantiles are learnt by the pinball loss (Koenker and Bassett 1978) and sorted (Chernozhukov et al. 2010).
    Each row is read with its own covariates and those of the next `horizon` rows.

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
            (n, channels) or (n,); or several series: (series, n, channels) or a list, of which those with
            no more than `horizon` rows are left out.
        y : None
            Not used; scikit-learn passes it.
        covariates : array, data frame or list of arrays, optional
            (n, K) or (n,), for each row of X: what is known in advance, such as calendar, prices, plans.

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, there are too few rows, something is NaN or infinite, or a parameter is not
            as described.
        """
        series, known = self._series(X, covariates, reset=True)
        self._reset_random()
        share, shape, longest = self._share(), self._shape, max(map(len, series.parts))
        divided = [_windows.division(len(part), shape.horizon, share) for part in series.parts]
        learnt, judged = ([ends[i] for ends in divided] for i in (0, 1))
        if share and not (any(learnt) and any(judged)):
            raise ValueError(
                f"validation_fraction: expected more than horizon = {shape.horizon} rows to learn from, and "
                f"{shape.horizon} to hold out, got {share:g} of {longest} rows; pass None to hold out none"
            )
        self._begin_with(series.parts, known, learnt)
        train = self._samples(series.parts, known, learnt)
        self._train_all(train, self._samples(series.parts, known, judged) if share else None)
        return self

    def partial_fit(self, X: Any, y: None = None, covariates: Any = None) -> "Forecaster":
        """One epoch on these rows, with the scaling of the first ones, at a constant learning rate.

        Takes and raises what `fit` does.
        """
        first = not hasattr(self, "model_")
        series, known = self._series(X, covariates, reset=first)
        ends = [_windows.division(len(part), self._shape.horizon, 0)[0] for part in series.parts]
        if first:
            self._reset_random()
            self._begin_with(series.parts, known, ends)
        self._train(self._samples(series.parts, known, ends), None, 1)
        return self

    def _begin_with(self, parts: list[Array], known: list[Any], ends: list[range]) -> None:
        """A network for these series, scaled by the rows that are learnt from."""
        shape, learnt = self._shape, [(v, k, e) for v, k, e in zip(parts, known, ends, strict=True) if e]
        scalers = {
            "x": StandardScaler().fit(
                [_windows.features(v, k, shape.horizon)[: len(e)] for v, k, e in learnt]
            ),
            "y": StandardScaler().fit([_windows.changes(v, shape.horizon)[: len(e)] for v, _, e in learnt]),
        }
        outputs = shape.horizon * shape.channels * max(1, len(shape.quantiles))
        self._begin(scalers, outputs, "last", False, 0.0)

    def _samples(self, parts: list[Array], known: list[Any], ends: list[range]) -> Samples:
        """Windows up to these rows, and the scaled changes from there on."""
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
        """What is learnt from, checked."""
        series = series_of(self, X, reset)
        known = covariates_of(covariates, series, 0, None if reset else self._shape.covariates)
        if reset:
            columns = 0 if known[0] is None else known[0].shape[1]
            channels = series.parts[0].shape[1]
            self._shape = Shape.of(self.horizon, self.window, channels, columns, self.quantiles)
        horizon, longest = self._shape.horizon, max(map(len, series.parts))
        if longest <= horizon:
            raise ValueError(
                f"X: expected more rows than horizon = {horizon}, got n_samples={longest}; choose a smaller "
                "horizon"
            )
        enough = [i for i, part in enumerate(series.parts) if len(part) > horizon]
        parts = [series.parts[i] for i in enough]
        return series._replace(parts=parts), [known[i] for i in enough]

    def _levels(self, x: list[Array], last: Array) -> Array:
        """Forecasts (n, horizon, channels, quantiles) for windows that end with rows last (n, channels)."""
        shape, n = self._shape, len(x)
        outputs = self._outputs(x).reshape(n, shape.horizon * shape.channels, -1).swapaxes(1, 2)
        steps = self.model_.scalers["y"].inverse(outputs).reshape(n, -1, shape.horizon, shape.channels)
        return np.sort(np.moveaxis(steps, 1, -1) + last[:, None, :, None], axis=-1)

    def _ahead(self, X: Any, covariates: Any) -> tuple[Series, Array]:
        """The series, and forecasts (series, horizon, channels, quantiles) after the end of each."""
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
        """The rows after the last one of X: the medians, or without quantiles the means.

        Parameters
        ----------
        X : array, data frame, or list of arrays
            As in `fit`; a series may have any number of rows.
        covariates : array, data frame or list of arrays, optional
            (n + horizon, K): of the rows of X and of those to be forecast.

        Returns
        -------
        ndarray
            (horizon, channels), or (horizon,) for X without an axis for channels; for several series
            with an axis for these before.

        Raises
        ------
        ValueError, TypeError
            If shapes are not those of `fit`, or something is NaN or infinite.
        """
        series, levels = self._ahead(X, covariates)
        return series.formed(self._middle(levels))

    @_WithQuantiles
    def predict_interval(self, X: Any, covariates: Any = None) -> tuple[Array, Array]:
        """The least and the largest of the quantiles for the rows after the last one of X.

        Takes and raises what `predict` does; each of the two has the shape that `predict` returns. With the
        quantiles 0.1 and 0.9, 80 % of all values should be between.
        """
        series, levels = self._ahead(X, covariates)
        return series.formed(levels[..., 0]), series.formed(levels[..., -1])

    @_WithQuantiles
    def predict_quantiles(self, X: Any, covariates: Any = None) -> Array:
        """All quantiles for the rows after the last one of X, on an axis after those of `predict`.

        Takes and raises what `predict` does.
        """
        series, levels = self._ahead(X, covariates)
        return series.formed(levels)

    def score(self, X: Any, y: None = None, covariates: Any = None) -> float:
        """R² of forecasts from every row of X with a whole window before it, as `sklearn.metrics.r2_score`.

        Where a series is too short for that: of the forecast from its last row with `horizon` rows after it.
        The mean over channels and rows ahead.

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
        """That there is no y, and that several series may have three axes."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.three_d_array = True
        return tags
