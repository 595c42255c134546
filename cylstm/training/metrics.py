"""What is measured on validation data beside the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]


def accuracy(y: Array, target: Array) -> float:
    """Share of rows whose largest output is that of the target's class; of one logit, whose sign is right."""
    if y.shape[1] == 1:
        return float(((y[:, 0] > 0) == (target.reshape(-1) > 0.5)).mean())
    return float((y.argmax(axis=1) == target).mean())


def mae(y: Array, target: Array) -> float:
    """Mean absolute error."""
    return float(np.abs(y - target.reshape(y.shape)).mean())


def mse(y: Array, target: Array) -> float:
    """Mean squared error."""
    return float(np.square(y - target.reshape(y.shape)).mean())


METRICS: dict[str, Metric] = {"accuracy": accuracy, "mae": mae, "mse": mse}


def metric_of(metric: Any) -> tuple[str, Metric]:
    """Name and function of what a caller names, gives as a function, or as a pair of both."""
    if isinstance(metric, tuple):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ValueError(f"metrics: expected functions or some of {', '.join(METRICS)}, got {metric!r}")
        return metric, METRICS[metric]
    if not callable(metric):
        raise TypeError(f"metrics: expected functions or names, got {type(metric).__name__}")
    return getattr(metric, "__name__", "metric"), metric
