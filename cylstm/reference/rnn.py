"""One vanilla RNN layer, forward and back through time. T steps, B batch, I input size, H hidden size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rnn_forward(
    x: Array, h_0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, nonlinearity: str = "tanh"
) -> tuple[Array, Array, dict[str, Any]]:
    """Hidden states (T, B, H), the last one, and what the backward pass reads.

    Shapes: x (T, B, I), h_0 (B, H), w_ih (H, I), w_hh (H, H), biases (H,).
    """
    h = h_0
    y = np.empty((len(x), *h_0.shape))
    for t, x_t in enumerate(x):
        z = x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh
        h = y[t] = np.tanh(z) if nonlinearity == "tanh" else np.maximum(z, 0)
    return y, h, {"x": x, "h_0": h_0, "y": y, "w_ih": w_ih, "w_hh": w_hh, "nonlinearity": nonlinearity}


def rnn_backward(dy: Array, dh_n: Array, saved: dict[str, Any]) -> dict[str, Array]:
    """Gradients dx, dh_0, dw_ih, dw_hh, db_ih, db_hh from dL/dy (T, B, H) and dL/d(last state) (B, H)."""
    x, y, w_ih, w_hh = saved["x"], saved["y"], saved["w_ih"], saved["w_hh"]
    dw_ih, dw_hh, db, dx, dh = (
        np.zeros_like(w_ih),
        np.zeros_like(w_hh),
        np.zeros(len(w_ih)),
        np.empty_like(x),
        dh_n,
    )
    for t in reversed(range(len(x))):
        h_prev = y[t - 1] if t else saved["h_0"]
        dz = (dh + dy[t]) * (1 - y[t] ** 2 if saved["nonlinearity"] == "tanh" else y[t] > 0)
        dx[t] = dz @ w_ih
        dw_ih += dz.T @ x[t]
        dw_hh += dz.T @ h_prev
        db += dz.sum(axis=0)
        dh = dz @ w_hh
    return {"dx": dx, "dh_0": dh, "dw_ih": dw_ih, "dw_hh": dw_hh, "db_ih": db, "db_hh": db.copy()}
