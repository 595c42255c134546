"""Validation of one or several series with covariates."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm.data import _inputs as arrays
from cylstm.losses import Quantile
from cylstm.sklearn import _inputs

Array = NDArray[Any]


class Shape(NamedTuple):
    """The shape of a forecaster's network, fixed at `fit` even if parameters change later."""

    horizon: int
    window: int
    channels: int
    covariates: int
    quantiles: tuple[float, ...]  # none for the mean

    @classmethod
    def of(cls, horizon: Any, window: Any, channels: int, covariates: int, quantiles: Any) -> "Shape":
        """Check the parameters and create a shape."""
        horizon, window = _checks.positive("horizon", horizon), _checks.positive("window", window)
        if quantiles is None:
            return cls(horizon, window, channels, covariates, ())
        levels = Quantile(quantiles).quantiles
        if 0.5 not in levels or sorted(set(levels)) != list(levels):
            raise ValueError(f"quantiles: expected ascending numbers with 0.5, got {shown(quantiles)}")
        return cls(horizon, window, channels, covariates, levels)


class Series(NamedTuple):
    """Series in float64, and the layout in which they were passed."""

    parts: list[Array]  # (n_i, channels)
    several: bool
    vectors: bool  # without a channel axis

    def formed(self, forecasts: Array) -> Array:
        """Convert forecasts (series, horizon, channels, ...) to that layout."""
        forecasts = forecasts[:, :, 0] if self.vectors else forecasts
        return forecasts if self.several else forecasts[0]


def series_of(estimator: Any, X: Any, reset: bool) -> Series:
    """Convert X to series; check the number of channels against `fit`, or store it with `reset`."""
    if _inputs.is_list(X):
        vectors = len(_shape(X[0])) == 1
        return _checked(estimator, Series(_inputs.listed("X", X), True, vectors), reset)
    array = _inputs.numbers(estimator, "X", X)
    if array.ndim == 3:
        return _checked(estimator, Series(list(_inputs.solid(estimator, array)), True, False), reset)
    if array.ndim == 1 and (reset or estimator.n_features_in_ == 1):
        vector = _inputs.alone(estimator, array, ensure_2d=False)
        return _checked(estimator, Series([vector[:, None]], False, True), reset)
    return Series([_inputs.table(estimator, X, array, reset).astype(np.float64)], False, False)


def _shape(part: Any) -> tuple[int, ...]:
    return part.shape if hasattr(part, "shape") else np.shape(part)


def _checked(estimator: Any, series: Series, reset: bool) -> Series:
    """Convert to float64 and check the number of channels."""
    channels = series.parts[0].shape[1]
    if reset:
        _inputs.note_channels(estimator, channels)
    elif channels != estimator.n_features_in_:
        raise ValueError(
            f"X: expected series of {estimator.n_features_in_} channels, as {type(estimator).__name__} was "
            f"fitted with, got {channels}"
        )
    return series._replace(parts=[part.astype(np.float64) for part in series.parts])


def covariates_of(covariates: Any, series: Series, ahead: int, columns: int | None) -> list[Array | None]:
    """Check covariates (n_i + ahead, K) of each series, where K = `columns` if known; None for none."""
    if covariates is None:
        if columns:
            raise ValueError(f"covariates: expected {columns} columns, as in fit, got None")
        return [None] * len(series.parts)
    if columns == 0:
        raise ValueError("covariates: expected None, as in fit, got some")
    given = list(covariates) if series.several else [covariates]
    if len(given) != len(series.parts):
        raise ValueError(f"covariates: expected covariates of {len(series.parts)} series, got {len(given)}")
    found: list[Array | None] = []
    for i, (value, part) in enumerate(zip(given, series.parts, strict=True)):
        name = f"covariates[{i}]" if series.several else "covariates"
        array = _checks.real_array(name, value)
        array = array[:, None] if array.ndim == 1 else array
        columns = columns or array.shape[-1]
        if array.shape != (len(part) + ahead, columns):
            rows = f"{len(part)} rows of X" + (f" and {ahead} after them" if ahead else "")
            raise ValueError(
                f"{name}: expected {(len(part) + ahead, columns)}, for the {rows}, got {array.shape}"
            )
        arrays.check_finite(name, array, "row, column")
        found.append(array.astype(np.float64))
    return found
