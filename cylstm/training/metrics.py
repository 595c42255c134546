"""Metrics of validation data, apart from the loss."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._checks import shown

Array = NDArray[Any]
Metric = Callable[[Any, Any], Any]


def _mean(total: Any, rows: int) -> Any:
    return total / rows


class RowSum:
    """A metric computed from sums over rows, so that only one minibatch is in memory at a time.

    A plain function is called once with the outputs and targets of all validation data. A `RowSum` is called
    with those of each minibatch, and its results are summed.

    Parameters
    ----------
    function : callable
        `function(y, target)` returns the sum over the rows of y (n, V) and target, a number or an array.
    finish : callable, optional
        `finish(total, rows)` returns the metric from the sum over all rows and their number. By default the
        mean, `total / rows`.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.training import RowSum
    >>> @RowSum
    ... def within_one(y, target):
    ...     return (np.abs(y - target) < 1).sum()
    >>> y, target = np.array([[0.0], [2.0], [5.0]]), np.array([[0.5], [4.0], [4.5]])
    >>> round(within_one(y, target), 3)
    0.667
    >>> rmse = RowSum(lambda y, target: np.square(y - target).sum(), lambda total, n: np.sqrt(total / n))
    >>> round(rmse(y, target), 3)
    1.225
    """

    def __init__(self, function: Metric, finish: Callable[[Any, int], Any] | None = None) -> None:
        for name, value in (("function", function), ("finish", _mean if finish is None else finish)):
            if not callable(value):
                raise TypeError(f"{name}: expected a function, got {type(value).__name__}")
        self.function, self.finish = function, _mean if finish is None else finish
        functools.update_wrapper(self, function, updated=())

    def __repr__(self) -> str:
        """Return the constructor call."""
        from cylstm._reprs import as_constructed

        return as_constructed(self)

    def __call__(self, y: Array, target: Array) -> float:
        """Compute the metric of these rows."""
        return float(self.finish(self.function(y, target), len(y)))


@RowSum
def accuracy(y: Array, target: Array) -> float:
    """Fraction of rows whose largest output is the target's class; for binary logits, of correct signs."""
    if target.ndim == 2 or y.shape[1] == 1:
        return float(((y > 0) == (_target_like("accuracy", y, target) > 0.5)).mean(axis=1).sum())
    return float((y.argmax(axis=1) == target).sum())


@RowSum
def mae(y: Array, target: Array) -> float:
    """Mean absolute error."""
    return float(np.abs(y - _target_like("mae", y, target)).mean(axis=1, dtype=np.float64).sum())


@RowSum
def mse(y: Array, target: Array) -> float:
    """Mean squared error."""
    return float(np.square(y - _target_like("mse", y, target)).mean(axis=1, dtype=np.float64).sum())


def _target_like(name: str, y: Array, target: Array) -> Array:
    """The target, reshaped to the shape of y."""
    if target.size != y.size:
        raise ValueError(
            f"metrics: {name} expected as many targets as outputs, {y.shape}, got {target.shape}"
        )
    return target.reshape(y.shape)


METRICS: dict[str, Metric] = {"accuracy": accuracy, "mae": mae, "mse": mse}


RESERVED = ("epoch", "loss", "validation", "lr", "grad_norm", "seconds")


def named(metrics: Any) -> dict[str, Metric]:
    """Metrics by name, from names, functions or a mapping of these."""
    if isinstance(metrics, str):
        metrics = (metrics,)
    pairs = list(metrics.items()) if isinstance(metrics, Mapping) else list(map(_pair, metrics))
    for name, metric in pairs:
        if not callable(metric):
            raise TypeError(f"metrics: expected functions or names, got {type(metric).__name__}")
        if name in RESERVED or [other for other, _ in pairs].count(name) > 1:
            raise ValueError(
                f"metrics: expected unique, unreserved names, got {shown(name)}; pass a dict of names"
            )
    return dict(pairs)


def _pair(metric: Any) -> tuple[str, Any]:
    if not isinstance(metric, str):
        return getattr(metric, "__name__", "metric"), metric
    if metric not in METRICS:
        raise ValueError(f"metrics: expected functions or some of {', '.join(METRICS)}, got {shown(metric)}")
    return metric, METRICS[metric]


class Measurement:
    """Metrics over minibatches: the sums of each `RowSum`, and all rows for other metrics.

    Rows are arrays y (n, V) and target or, if targets belong to whole sequences, lists of arrays. All metrics
    get the same arrays, which are read-only.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = metrics
        self.rows = 0
        self._sums: dict[str, Any] = {}
        self._rows: list[tuple[Any, Any]] = []

    def add(self, y: Any, target: Any) -> None:
        """Add the valid rows of a minibatch."""
        if not len(y):
            return
        self.rows += len(y)
        needs_rows = not all(isinstance(metric, RowSum) for metric in self.metrics.values())
        if needs_rows and isinstance(target, list):
            target = [np.array(labels) for labels in target]  # the source may reuse its memory
        elif needs_rows:
            target = np.array(target)
        y, target = _read_only(y), _read_only(target)
        for name, metric in self.metrics.items():
            if isinstance(metric, RowSum):
                total = np.asarray(metric.function(y, target), np.float64)
                self._sums[name] = self._sums.get(name, 0.0) + total
        if needs_rows:
            self._rows.append((y, target))

    def results(self) -> dict[str, float]:
        """All metrics by name; NaN without rows."""
        if not self.rows:
            return dict.fromkeys(self.metrics, np.nan)
        y, target = (
            (_joined(parts) for parts in zip(*self._rows, strict=True)) if self._rows else (None, None)
        )
        return {
            name: _number(name, metric.finish(self._sums[name], self.rows))
            if isinstance(metric, RowSum)
            else _number(name, metric(y, target))
            for name, metric in self.metrics.items()
        }


def _joined(parts: tuple[Any, ...]) -> Any:
    if isinstance(parts[0], list):
        return [array for part in parts for array in part]
    return _read_only(np.concatenate(parts))


def _read_only(value: Any) -> Any:
    """A read-only view of an array, or of each array in a list."""
    if isinstance(value, list):
        return [_read_only(part) for part in value]
    view = np.asarray(value).view()
    view.flags.writeable = False
    return view


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metrics: expected a number of {name}, got {shown(value)}") from None
