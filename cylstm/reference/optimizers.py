"""Optimiser steps on one vector, which return what the engine updates in place."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sgd(
    p: Array,
    g: Array,
    m: Array,
    lr: float,
    momentum: float = 0,
    nesterov: bool = False,
    weight_decay: float = 0,
) -> tuple[Array, Array]:
    """Compute parameters and momentum after a step, optionally Nesterov's (Sutskever et al. 2013)."""
    g = g + weight_decay * p
    m = momentum * m + g
    return p - lr * (g + momentum * m if nesterov else m), m


def rmsprop(
    p: Array, g: Array, v: Array, lr: float, alpha: float, eps: float, weight_decay: float
) -> tuple[Array, Array]:
    """Compute parameters and the mean of squares after a step (Hinton 2012, lecture 6e)."""
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g**2
    return p - lr * g / (np.sqrt(v) + eps), v


def adamw(
    p: Array, g: Array, m: Array, v: Array,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, t: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""
    return adam(p * (1 - lr * weight_decay), g, m, v, lr, beta1, beta2, eps, 0.0, t)


def adam(
    p: Array, g: Array, m: Array, v: Array,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, t: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Compute parameters and both means after step t = 1, 2, … (Kingma and Ba 2015, algorithm 1)."""
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def clip_by_norm(g: Array, max_norm: float) -> tuple[Array, float]:
    """Scale g to a norm of at most max_norm; return it with its original norm."""
    norm = float(np.sqrt(np.sum(g**2)))
    return (g * (max_norm / norm) if norm > max_norm else g), norm
