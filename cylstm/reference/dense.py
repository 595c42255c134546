"""The dense layer over rows. N rows, I inputs, O outputs."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dense_forward(x: Array, w: Array, b: Array) -> Array:
    """Compute y (N, O) = x (N, I) w^T + b, with w (O, I)."""
    return x @ w.T + b


def dense_backward(dy: Array, x: Array, w: Array) -> dict[str, Array]:
    """Compute dw (O, I), db (O,) and dx (N, I) from dy (N, O)."""
    return {"dw": dy.T @ x, "db": dy.sum(axis=0), "dx": dy @ w}
