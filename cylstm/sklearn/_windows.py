"""Inputs and targets of a forecasting network: features of each row, and future changes."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]


def features(values: Array, covariates: Array | None, horizon: int) -> Array:
    """Compute features (m, F): values (n, C), their last change, and current and next `horizon` covariates.

    m is n, or with covariates (r, K) the number of rows whose next covariates are known, r - horizon.
    """
    last = np.diff(values, axis=0, prepend=values[:1])
    if covariates is None:
        return np.column_stack([values, last])
    ahead = sliding_window_view(covariates, horizon + 1, axis=0)
    m = len(ahead)
    return np.column_stack([values[:m], last[:m], ahead.reshape(m, -1)])


def changes(values: Array, horizon: int) -> Array:
    """Compute the changes from each row to the next `horizon` rows, (n - horizon, horizon * C)."""
    ahead = sliding_window_view(values[1:], horizon, axis=0).swapaxes(1, 2)
    result: Array = (ahead - values[:-horizon, None]).reshape(len(ahead), -1)
    return result


def windows(rows: Array, ends: range, window: int) -> list[Array]:
    """Return views of rows (m, F): up to `window` rows that end with each of `ends`."""
    return [rows[max(0, end + 1 - window) : end + 1] for end in ends]


def split_rows(n: int, horizon: int, fraction: float) -> tuple[range, range]:
    """Split the forecast origins of a series of n rows into training and held-out origins.

    Held-out targets, the last `fraction` of the rows, come after all training targets.
    """
    cut = n - round(n * fraction) if fraction else n
    return range(max(0, cut - horizon)), range(max(0, cut - 1), n - horizon) if fraction else range(0)
