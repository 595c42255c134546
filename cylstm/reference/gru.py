"""One GRU layer, forward and back through time, with the reset gate after or before the product.

T time steps, B batch, I input size, H hidden size. Gates in the order r z n, each a block of H rows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.reference.lstm import sigmoid

Array = NDArray[np.float64]


def gru_forward(
    x: Array, h_0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, reset_after: bool = True
) -> tuple[Array, Array, dict[str, Any]]:
    """Hidden states (T, B, H), the last one, and what the backward pass reads.

    Shapes: x (T, B, I), h_0 (B, H), w_ih (3H, I), w_hh (3H, H), biases (3H,).
    """
    h = h_0
    y = np.empty((len(x), *h_0.shape))
    w_r, w_z, w_n = np.split(w_hh, 3)
    b_r, b_z, b_n = np.split(b_hh, 3)
    steps = []
    for t, x_t in enumerate(x):
        y_r, y_z, y_n = np.split(x_t @ w_ih.T + b_ih, 3, axis=1)
        r = sigmoid(y_r + h @ w_r.T + b_r)
        z = sigmoid(y_z + h @ w_z.T + b_z)
        u = h @ w_n.T + b_n if reset_after else (r * h) @ w_n.T + b_n
        n = np.tanh(y_n + (r * u if reset_after else u))
        steps.append((r, z, n, u, h))
        h = y[t] = (1 - z) * n + z * h
    return y, h, {"x": x, "w_ih": w_ih, "w_hh": w_hh, "steps": steps, "reset_after": reset_after}


def gru_backward(dy: Array, dh_n: Array, saved: dict[str, Any]) -> dict[str, Array]:
    """Gradients dx, dh_0, dw_ih, dw_hh, db_ih, db_hh from dL/dy (T, B, H) and dL/d(last state) (B, H)."""
    x, w_ih, w_hh, reset_after = saved["x"], saved["w_ih"], saved["w_hh"], saved["reset_after"]
    dw_ih, dw_hh, dx, dh = np.zeros_like(w_ih), np.zeros_like(w_hh), np.empty_like(x), dh_n
    db_ih, db_hh = np.zeros(len(w_ih)), np.zeros(len(w_ih))
    w_r, w_z, w_n = np.split(w_hh, 3)
    dw_r, dw_z, dw_n = np.split(dw_hh, 3)  # views
    for t in reversed(range(len(x))):
        r, z, n, u, h_prev = saved["steps"][t]
        dh = dh + dy[t]
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (h_prev - n) * z * (1 - z)
        du = dn * r if reset_after else dn
        if reset_after:
            dr = dn * u * r * (1 - r)
            dw_n += du.T @ h_prev
            through_n = du @ w_n
        else:
            drh = du @ w_n
            dr = drh * h_prev * r * (1 - r)
            dw_n += du.T @ (r * h_prev)
            through_n = drh * r
        dw_r += dr.T @ h_prev
        dw_z += dz.T @ h_prev
        dgates = np.concatenate([dr, dz, dn], axis=1)
        dx[t] = dgates @ w_ih
        dw_ih += dgates.T @ x[t]
        db_ih += dgates.sum(axis=0)
        db_hh += np.concatenate([dr, dz, du], axis=1).sum(axis=0)
        dh = dh * z + dr @ w_r + dz @ w_z + through_n
    return {"dx": dx, "dh_0": dh, "dw_ih": dw_ih, "dw_hh": dw_hh, "db_ih": db_ih, "db_hh": db_hh}
