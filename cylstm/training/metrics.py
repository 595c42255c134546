"""What is measured on validation data beside the loss."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]


def accuracy(y: Array, target: Array) -> float:
    """Share of rows whose largest output is that of the target's class; of logits, whose sign is right."""
    if target.ndim == 2 or y.shape[1] == 1:
        return float(((y > 0) == (target.reshape(y.shape) > 0.5)).mean())
    return float((y.argmax(axis=1) == target).mean())


def mae(y: Array, target: Array) -> float:
    """Mean absolute error."""
    return float(np.abs(y - target.reshape(y.shape)).mean())


def mse(y: Array, target: Array) -> float:
    """Mean squared error."""
    return float(np.square(y - target.reshape(y.shape)).mean())


METRICS: dict[str, Metric] = {"accuracy": accuracy, "mae": mae, "mse": mse}


RESERVED = ("epoch", "loss", "validation", "lr", "grad_norm", "seconds")


def named(metrics: Any) -> dict[str, Metric]:
    """Metrics by name, from names, functions, or functions by name."""
    if isinstance(metrics, str):
        metrics = (metrics,)
    pairs = list(metrics.items()) if isinstance(metrics, Mapping) else list(map(_pair, metrics))
    for name, metric in pairs:
        if not callable(metric):
            raise TypeError(f"metrics: expected functions or names, got {type(metric).__name__}")
        if name in RESERVED or [other for other, _ in pairs].count(name) > 1:
            raise ValueError(f"metrics: expected names of their own, got {name!r}; pass a dict of names")
    return dict(pairs)


def _pair(metric: Any) -> tuple[str, Any]:
    if not isinstance(metric, str):
        return getattr(metric, "__name__", "metric"), metric
    if metric not in METRICS:
        raise ValueError(f"metrics: expected functions or some of {', '.join(METRICS)}, got {metric!r}")
    return metric, METRICS[metric]
