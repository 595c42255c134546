"""Optimiser steps on one vector, returning what the engine writes in place."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sgd(p: Array, g: Array, lr: float) -> Array:
    """The parameters after one step of gradient descent."""
    return p - lr * g


def adam(
    p: Array, g: Array, m: Array, v: Array,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, t: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Parameters and both means after step t = 1, 2, … (Kingma and Ba 2015, algorithm 1)."""
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def clip_by_norm(g: Array, max_norm: float) -> tuple[Array, float]:
    """g scaled to a norm of at most max_norm, and its norm before."""
    norm = float(np.sqrt(np.sum(g**2)))
    return (g * (max_norm / norm) if norm > max_norm else g), norm
