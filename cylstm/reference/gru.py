"""One step of a GRU, forward and backward, with the reset gate after or before the matrix product.

B batch, I input size, H units. Gates in the order r z n, each a block of H rows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.reference.lstm import sigmoid

Array = NDArray[np.float64]
Parameters = dict[str, Array]


def gru_step(
    x: Array, h: Array, states: tuple[Array, ...], p: Parameters, clip: float, reset_after: bool = True
) -> tuple[tuple[Array, ...], Any]:
    """Compute the state after one step, and values saved for the backward step.

    Shapes: x (B, I), h (the operand of the recurrent product) and the state (B, H), w_ih (3H, I), w_hh (3H,
    H), biases (3H,).
    """
    w_r, w_z, w_n = np.split(p["w_hh"], 3)
    b_r, b_z, b_n = np.split(p["b_hh"], 3)
    y_r, y_z, y_n = np.split(x @ p["w_ih"].T + p["b_ih"], 3, axis=1)
    z_r, z_z = y_r + h @ w_r.T + b_r, y_z + h @ w_z.T + b_z
    r, z = sigmoid(np.clip(z_r, -clip, clip)), sigmoid(np.clip(z_z, -clip, clip))
    u = h @ w_n.T + b_n if reset_after else (r * h) @ w_n.T + b_n
    z_n = y_n + (r * u if reset_after else u)
    n = np.tanh(np.clip(z_n, -clip, clip))
    inside = [abs(value) < clip for value in (z_r, z_z, z_n)]
    return ((1 - z) * n + z * states[0],), (x, h, states[0], r, z, n, u, inside, reset_after)


def gru_step_back(
    dstates: tuple[Array, ...], saved: Any, p: Parameters, gradients: Parameters
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Compute dx, the gradient of h in the products, and that of the previous state; add to the gradients."""
    dh = dstates[0]
    x, h, h_prev, r, z, n, u, inside, reset_after = saved
    w_r, w_z, w_n = np.split(p["w_hh"], 3)
    dw_r, dw_z, dw_n = np.split(gradients["w_hh"], 3)  # views
    dn = dh * (1 - z) * (1 - n**2) * inside[2]
    dz = dh * (h_prev - n) * z * (1 - z) * inside[1]
    du = dn * r if reset_after else dn
    if reset_after:
        dr = dn * u * r * (1 - r) * inside[0]
        dw_n += du.T @ h
        through_n = du @ w_n
    else:
        drh = du @ w_n
        dr = drh * h * r * (1 - r) * inside[0]
        dw_n += du.T @ (r * h)
        through_n = drh * r
    dw_r += dr.T @ h
    dw_z += dz.T @ h
    dgates = np.concatenate([dr, dz, dn], axis=1)
    gradients["w_ih"] += dgates.T @ x
    gradients["b_ih"] += dgates.sum(axis=0)
    gradients["b_hh"] += np.concatenate([dr, dz, du], axis=1).sum(axis=0)
    return dgates @ p["w_ih"], dr @ w_r + dz @ w_z + through_n, (dh * z,)
