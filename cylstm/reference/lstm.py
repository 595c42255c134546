"""One LSTM layer, forward and back through time, as the equations are written.

T time steps, B batch, I input size, H hidden size. Gates in the order i f g o, each a
block of H rows of the weights.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """Logistic function."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def lstm_forward(
    x: Array, h_0: Array, c_0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array
) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Hidden states of every step, the last states, and what the backward pass reads.

    Parameters
    ----------
    x : (T, B, I)
    h_0, c_0 : (B, H)
    w_ih : (4H, I)
    w_hh : (4H, H)
    b_ih, b_hh : (4H,)

    Returns
    -------
    y : (T, B, H)
    h_n, c_n : (B, H)
    saved : dict
    """
    h, c = h_0, c_0
    y = np.empty((len(x), *h_0.shape))
    steps = []
    for t, x_t in enumerate(x):
        z_i, z_f, z_g, z_o = np.split(x_t @ w_ih.T + h @ w_hh.T + b_ih + b_hh, 4, axis=1)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        h_prev, c_prev = h, c
        c = f * c_prev + i * g
        h = o * np.tanh(c)
        steps.append((i, f, g, o, c, c_prev, h_prev))
        y[t] = h
    return y, h, c, {"x": x, "w_ih": w_ih, "w_hh": w_hh, "steps": steps}


def lstm_backward(dy: Array, dh_n: Array, dc_n: Array, saved: dict[str, Any]) -> dict[str, Array]:
    """Gradients of a loss L from dL/dy (T, B, H) and dL/d(last states) (B, H).

    Returns
    -------
    dict
        dx (T, B, I), dh_0, dc_0 (B, H), dw_ih, dw_hh, db_ih, db_hh.
    """
    x, w_ih, w_hh = saved["x"], saved["w_ih"], saved["w_hh"]
    dw_ih, dw_hh, db = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(len(w_ih))
    dx = np.empty_like(x)
    dh, dc = dh_n, dc_n
    for t in reversed(range(len(x))):
        i, f, g, o, c, c_prev, h_prev = saved["steps"][t]
        dh = dh + dy[t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        dz_i = dc * g * i * (1 - i)
        dz_f = dc * c_prev * f * (1 - f)
        dz_g = dc * i * (1 - g**2)
        dz_o = dh * np.tanh(c) * o * (1 - o)
        dz = np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
        dx[t] = dz @ w_ih
        dw_ih += dz.T @ x[t]
        dw_hh += dz.T @ h_prev
        db += dz.sum(axis=0)
        dh, dc = dz @ w_hh, dc * f
    return {
        "dx": dx, "dh_0": dh, "dc_0": dc,
        "dw_ih": dw_ih, "dw_hh": dw_hh, "db_ih": db, "db_hh": db.copy(),
    }  # fmt: skip
