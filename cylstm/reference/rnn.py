"""One step of a vanilla RNN, forward and backward. B batch, I input size, H units."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = dict[str, Array]


def rnn_step(
    x: Array, h: Array, states: tuple[Array, ...], p: Parameters, clip: float, nonlinearity: str = "tanh"
) -> tuple[tuple[Array, ...], Any]:
    """Compute the state after one step, and values saved for the backward step.

    Shapes: x (B, I), h (B, H), w_ih (H, I), w_hh (H, H), biases (H,).
    """
    z = x @ p["w_ih"].T + p["b_ih"] + h @ p["w_hh"].T + p["b_hh"]
    clipped = np.clip(z, -clip, clip)
    y = np.tanh(clipped) if nonlinearity == "tanh" else np.maximum(clipped, 0)
    slope = (1 - y**2 if nonlinearity == "tanh" else ~(y <= 0)) * (abs(z) < clip)
    return (y,), (x, h, slope)


def rnn_step_back(
    dstates: tuple[Array, ...], saved: Any, p: Parameters, gradients: Parameters
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Compute dx, the gradient of h in the product, and that of the previous state; add to the gradients."""
    x, h, slope = saved
    dz = dstates[0] * slope
    gradients["w_ih"] += dz.T @ x
    gradients["w_hh"] += dz.T @ h
    gradients["b_ih"] += dz.sum(axis=0)
    gradients["b_hh"] += dz.sum(axis=0)
    return dz @ p["w_ih"], dz @ p["w_hh"], (np.zeros_like(dz),)
