"""Source of minibatches from sliding windows over a time series."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm.data import _inputs
from cylstm.data.source import Index, Minibatch, Source, in_batches, order_of, time_major
from cylstm.data.splits import split

Array = NDArray[Any]


class Windows(Source):
    """Sliding windows over a time series; the values that follow a window are its target.

    Parameters
    ----------
    series : array or data frame
        (n, I) in chronological order; (n,) is one column. Not copied: changes to it change the windows.
    length : int
        Rows of a window.
    horizon : int
        Number of rows to predict.
    targets : columns, optional
        Columns to predict: one or several indices, or names if the series is a data frame. By default all.
    stride : int
        Rows between the starts of consecutive windows.
    batch_size : int
        Windows in a minibatch; the last one may be smaller.
    ahead : int
        Rows from the last row of a window to the first predicted one: 1 is the next row.

    Attributes
    ----------
    x : ndarray
        (windows, length, I), a read-only view of the series.
    y : ndarray
        (windows, horizon, V), likewise, for V columns. The target of a minibatch is (B, horizon * V): reshape
        it, or the outputs of a model, to (B, horizon, V).

    Raises
    ------
    ValueError, TypeError
        If the series is not a table of real numbers, is too short for one window, or lacks a target column.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import Windows
    >>> windows = Windows(np.arange(8.0), length=3, horizon=2, batch_size=3)
    >>> windows.x.shape, windows.y.shape
    ((4, 3, 1), (4, 2, 1))
    >>> batch = next(windows.epoch())
    >>> batch.x.shape, batch.x[:, 0, 0], batch.target[0]
    ((3, 3, 1), array([0., 1., 2.]), array([3., 4.]))
    """

    def __init__(
        self,
        series: Any,
        length: int,
        horizon: int = 1,
        targets: Any = None,
        stride: int = 1,
        batch_size: int = 32,
        ahead: int = 1,
    ) -> None:
        self.length, self.horizon = _checks.positive("length", length), _checks.positive("horizon", horizon)
        self.stride, self.ahead = _checks.positive("stride", stride), _checks.positive("ahead", ahead)
        self.batch_size = _checks.positive("batch_size", batch_size)
        array = _checks.real_array("series", series)
        self.series = array[:, None] if array.ndim == 1 else array
        if self.series.ndim != 2 or not self.series.shape[1]:
            raise ValueError(f"series: expected (n, I) or (n,), got {array.shape}")
        first = self.length + self.ahead - 1  # the first row to be predicted
        if len(self.series) < first + self.horizon:
            raise ValueError(
                f"series: expected at least {first + self.horizon} rows for a window of {self.length} and "
                f"{self.horizon} to predict, {self.ahead} ahead, got {len(self.series)}"
            )
        self.columns = _columns(targets, self.series.shape[1], getattr(series, "columns", ()))
        predicted = self.series[first:, _as_slice(self.columns)]
        y = sliding_window_view(predicted, self.horizon, axis=0)[:: self.stride]
        x = sliding_window_view(self.series, self.length, axis=0)[:: self.stride]
        self.x, self.y = x[: len(y)].swapaxes(1, 2), y.swapaxes(1, 2)

    def __len__(self) -> int:
        """Number of minibatches in an epoch."""
        return -(-len(self.x) // self.batch_size)

    @property
    def targets(self) -> Array:
        """All targets in the shape of minibatches, (windows, horizon * V); a copy."""
        return self.y.reshape(len(self.y), -1)

    def check(self) -> None:
        """Raise ValueError for NaN or infinity in the series."""
        _inputs.check_finite("series", self.series, "row, column")

    def split(self, validation: float = 0.1, test: float = 0.0, gap: int = 0) -> tuple["Windows", ...]:
        """Split the series chronologically with `cylstm.data.split` into one `Windows` per part.

        No window or target crosses the boundary between two parts.

        Returns
        -------
        tuple of Windows
            For training, validation and test; parts with fraction 0 are left out.

        Raises
        ------
        ValueError
            If a part is too short for one window.

        Examples
        --------
        >>> import numpy as np
        >>> train, validation = Windows(np.arange(100.0), length=5).split(validation=0.2)
        >>> print(train.y.max(), validation.x.min())
        79.0 80.0
        """
        parts = split(self.series, validation, test, gap)
        return tuple(
            Windows(
                self.series[part],
                self.length,
                self.horizon,
                self.columns,
                self.stride,
                self.batch_size,
                self.ahead,
            )
            for part in parts
        )

    def _plan(self, rng: "np.random.Generator | None") -> list[Index]:
        return in_batches(order_of(len(self.x), rng), self.batch_size)

    def _batch(self, part: Index) -> Minibatch:
        return Minibatch(time_major(self.x, part), self.y[part].reshape(len(part), -1))


def _columns(targets: Any, I: int, names: Sequence[Any]) -> list[int]:
    """Return the indices of the target columns among I columns."""
    if targets is None:
        return list(range(I))
    known = list(names)
    columns = []
    if np.asarray(targets).dtype == bool:
        if np.shape(targets) != (I,):
            raise ValueError(f"targets: expected a mask of {I} columns, got shape {np.shape(targets)}")
        targets = np.flatnonzero(targets)
    for target in [targets] if isinstance(targets, str) or np.ndim(targets) == 0 else targets:
        if target in known:
            if known.count(target) > 1:
                raise ValueError(
                    f"targets: expected a unique column name, got {shown(target)}, which several columns have"
                )
            columns.append(known.index(target))
            continue
        try:
            column = operator.index(target)
        except TypeError:
            column = -1
        if not 0 <= column < I:
            raise ValueError(
                f"targets: expected columns among {shown(known or list(range(I)))}, got {shown(target)}"
            )
        columns.append(column)
    if not columns:
        raise ValueError("targets: expected at least one column, got none")
    return columns


def _as_slice(columns: list[int]) -> slice | list[int]:
    """Convert consecutive columns to a slice, which gives a view instead of a copy."""
    first, count = columns[0], len(columns)
    return slice(first, first + count) if columns == list(range(first, first + count)) else columns
