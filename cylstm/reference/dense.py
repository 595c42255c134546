"""The dense layer over rows, and the mean squared error. N rows, I inputs, O outputs."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dense_forward(x: Array, w: Array, b: Array) -> Array:
    """y (N, O) = x (N, I) w^T + b, with w (O, I)."""
    return x @ w.T + b


def dense_backward(dy: Array, x: Array, w: Array) -> dict[str, Array]:
    """dw (O, I), db (O,) and dx (N, I) from dy (N, O)."""
    return {"dw": dy.T @ x, "db": dy.sum(axis=0), "dx": dy @ w}


def mse(y: Array, target: Array) -> tuple[float, Array]:
    """Mean of (y - target)^2, and its gradient with respect to y."""
    return float(np.mean((y - target) ** 2)), 2 * (y - target) / y.size
