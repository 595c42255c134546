"""Series as a network sees them: what is known at each row, and the changes from there on."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]


def features(values: Array, covariates: Array | None, horizon: int) -> Array:
    """(m, F): values (n, C), their last change, and the covariates (r, K) of the row and the `horizon` next.

    m is n, or the rows whose covariates are known that far ahead, r - horizon.
    """
    last = np.diff(values, axis=0, prepend=values[:1])
    if covariates is None:
        return np.column_stack([values, last])
    ahead = sliding_window_view(covariates, horizon + 1, axis=0)
    m = len(ahead)
    return np.column_stack([values[:m], last[:m], ahead.reshape(m, -1)])


def changes(values: Array, horizon: int) -> Array:
    """(n - horizon, horizon * C), from each row to the next ones."""
    ahead = sliding_window_view(values[1:], horizon, axis=0).swapaxes(1, 2)
    result: Array = (ahead - values[:-horizon, None]).reshape(len(ahead), -1)
    return result


def windows(rows: Array, ends: range, window: int) -> list[Array]:
    """Views of rows (m, F): the `window` rows up to each end, or as many as there are."""
    return [rows[max(0, end + 1 - window) : end + 1] for end in ends]


def division(n: int, horizon: int, share: float) -> tuple[range, range]:
    """Rows of a series of n to forecast from: to learn, and those held out.

    All that is to be forecast from the latter comes after all that is forecast in learning: the last
    `share` of the rows.
    """
    cut = n - round(n * share) if share else n
    return range(max(0, cut - horizon)), range(max(0, cut - 1), n - horizon) if share else range(0)
