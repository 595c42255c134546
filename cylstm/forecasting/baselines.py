"""Simple forecasts to compare a model with.

Each function takes the values (N,), the number `n` of training rows, and the
horizon, and returns forecasts (N, horizon): element [t, h-1] is made at row t for row t+h
from rows up to t. What cannot be forecast is NaN.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks

Array = NDArray[np.float64]


def persistence(values: Any, n: int, horizon: int) -> Array:
    """Repeat the current value.

    >>> persistence(np.array([1.0, 2.0]), 2, 3)
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    return np.repeat(_vector(values)[:, None], _checks.positive("horizon", horizon), axis=1)


def seasonal_naive(values: Any, n: int, horizon: int, period: int) -> Array:
    """The last known value of the same season."""
    values, horizon = _vector(values), _checks.positive("horizon", horizon)
    period = _checks.positive("period", period)
    forecasts = np.full((len(values), horizon), np.nan)
    for h in range(1, horizon + 1):
        back = -h % period  # rows from t back to the last one of the season of t + h
        forecasts[back:, h - 1] = values[: max(0, len(values) - back)]
    return forecasts


def autoregression(values: Any, n: int, horizon: int, lags: int) -> Array:
    """AR(lags) with an intercept: a separate least-squares fit for each horizon, on targets before row n.

    The horizons share most of their rows, which are reduced by one QR decomposition.
    """
    values, horizon = _vector(values), _checks.positive("horizon", horizon)
    lags = _checks.positive("lags", lags)
    forecasts = np.full((len(values), horizon), np.nan)
    if len(values) < lags:
        return forecasts
    windows = np.lib.stride_tricks.sliding_window_view(values, lags)
    regressors = np.column_stack([np.ones(len(windows)), windows])  # made at rows lags-1, lags, …
    shared = max(0, n - horizon - lags + 1)
    q, triangle = np.linalg.qr(regressors[:shared])
    for h in range(1, horizon + 1):
        known = n - h - lags + 1
        if known > lags:
            targets = values[lags - 1 + h : n]
            rows = np.concatenate([triangle, regressors[shared:known]])
            reduced = np.concatenate([q.T @ targets[:shared], targets[shared:]])
            weights = np.linalg.lstsq(rows, reduced, rcond=None)[0]
            forecasts[lags - 1 :, h - 1] = regressors @ weights
    return forecasts


def seasonal_means(values: Any, n: int, period: int) -> Array:
    """Mean of each season over the first n rows, (period,)."""
    values, period = _vector(values), _checks.positive("period", period)
    return np.array([values[:n][season::period].mean() for season in range(period)])


def climatology(values: Any, n: int, horizon: int, period: int) -> Array:
    """The mean of the season."""
    values, horizon = _vector(values), _checks.positive("horizon", horizon)
    seasons = np.arange(len(values))[:, None] + np.arange(1, horizon + 1)
    means: Array = seasonal_means(values, n, period)[seasons % period]
    return means


def autoregression_of_anomalies(values: Any, n: int, horizon: int, lags: int, period: int) -> Array:
    """The mean of the season, plus AR(lags) of the anomalies."""
    values = _vector(values)
    means = seasonal_means(values, n, period)
    anomalies = values - means[np.arange(len(values)) % period]
    return autoregression(anomalies, n, horizon, lags) + climatology(values, n, horizon, period)


def rmse(forecasts: Array, values: Any, n: int) -> Array:
    """Root mean squared error by horizon, of forecasts whose targets are rows n and later.

    The forecasts start at row n-1, so that the first one-step target is row n.
    """
    return np.array([np.sqrt(np.mean(d**2)) if d.size else np.nan for d in _errors(forecasts, values, n)])


def mae(forecasts: Array, values: Any, n: int) -> Array:
    """Mean absolute error by horizon, of the same forecasts."""
    return np.array([np.mean(np.abs(d)) if d.size else np.nan for d in _errors(forecasts, values, n)])


def _errors(forecasts: Array, values: Any, n: int) -> list[Array]:
    """Errors of the forecasts whose targets are rows n and later, by horizon."""
    values, forecasts = _vector(values), _checks.real_array("forecasts", forecasts)
    N, horizon = forecasts.shape
    last = [max(n - 1, N - h) for h in range(1, horizon + 1)]  # the row after the last one with a target
    return [forecasts[n - 1 : end, h] - values[n + h : end + h + 1] for h, end in enumerate(last)]


def _vector(values: Any) -> Array:
    """(N,) in float64."""
    array = _checks.real_array("values", values)
    if array.ndim != 1:
        raise ValueError(f"values: expected (N,), got {array.shape}")
    return array.astype(np.float64, copy=False)
