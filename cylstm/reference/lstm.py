"""One step of an LSTM and its variants, forward and backward, written like the equations.

B batch, I input size, H units, P width of h. Gates in the order i f g o, or i g o where f is
1 - i, each a block of H rows of the weights.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = dict[str, Array]
EPS = 1e-5  # epsilon of layer normalisation


def sigmoid(x: Array) -> Array:
    """Logistic function."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def lstm_step(
    x: Array, h: Array, states: tuple[Array, ...], p: Parameters, clip: float, coupled: bool = False
) -> tuple[tuple[Array, ...], Any]:
    """Compute the states after one step, before the projection of h, and values saved for the backward step.

    Shapes: x (B, I), h (B, P), states h (B, P) and c (B, H), w_ih (G H, I), w_hh (G H, P),
    biases (G H,), peepholes weight_ci, weight_cf, weight_co (H,) if there are any.
    """
    c_prev = states[1]
    z = x @ p["w_ih"].T + h @ p["w_hh"].T + p["b_ih"] + p["b_hh"]
    z_i, *z_f, z_g, z_o = np.split(z, 3 if coupled else 4, axis=1)
    z_i = z_i + p.get("weight_ci", 0) * c_prev
    i, g = sigmoid(np.clip(z_i, -clip, clip)), np.tanh(np.clip(z_g, -clip, clip))
    forget = z_i if coupled else z_f[0] + p.get("weight_cf", 0) * c_prev
    f = 1 - i if coupled else sigmoid(np.clip(forget, -clip, clip))
    c = f * c_prev + i * g
    z_o = z_o + p.get("weight_co", 0) * c
    o = sigmoid(np.clip(z_o, -clip, clip))
    inside = [abs(z_k) < clip for z_k in (z_i, forget, z_g, z_o)]
    return (o * np.tanh(c), c), (x, h, c_prev, i, f, g, o, c, inside, coupled)


def lstm_step_back(
    dstates: tuple[Array, ...], saved: Any, p: Parameters, gradients: Parameters
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Compute dx, the gradient of h in the products, and those of previous states; add to the gradients."""
    dh, dc = dstates
    x, h, c_prev, i, f, g, o, c, inside, coupled = saved
    dz_o = dh * np.tanh(c) * o * (1 - o) * inside[3]
    dc = dc + dh * o * (1 - np.tanh(c) ** 2) + dz_o * p.get("weight_co", 0)
    dz_i = dc * (g - c_prev if coupled else g) * i * (1 - i) * inside[0]
    dz_f = dc * c_prev * f * (1 - f) * inside[1]
    dz_g = dc * i * (1 - g**2) * inside[2]
    dc_prev = dc * f + dz_i * p.get("weight_ci", 0)
    if not coupled:
        dc_prev = dc_prev + dz_f * p.get("weight_cf", 0)
    for name, value in (("weight_ci", dz_i * c_prev), ("weight_cf", dz_f * c_prev), ("weight_co", dz_o * c)):
        if name in p:
            gradients[name] += value.sum(axis=0)
    dz = np.concatenate([dz_i, dz_g, dz_o] if coupled else [dz_i, dz_f, dz_g, dz_o], axis=1)
    gradients["w_ih"] += dz.T @ x
    gradients["w_hh"] += dz.T @ h
    gradients["b_ih"] += dz.sum(axis=0)
    gradients["b_hh"] += dz.sum(axis=0)
    return dz @ p["w_ih"], dz @ p["w_hh"], (np.zeros_like(dc_prev), dc_prev)


def normalize(v: Array) -> tuple[Array, Array]:
    """Normalise rows to mean 0 and variance 1; return them with their scale (Ba et al. 2016, equation 3)."""
    scale = 1 / np.sqrt(v.var(axis=1, keepdims=True) + EPS)
    return (v - v.mean(axis=1, keepdims=True)) * scale, scale


def normalize_back(dn: Array, n: Array, scale: Array) -> Array:
    """Compute dL/dv from dL/d(normalised v)."""
    mean = dn.mean(axis=1, keepdims=True)
    result: Array = scale * (dn - mean - n * (dn * n).mean(axis=1, keepdims=True))
    return result


def lstm_norm_step(
    x: Array, h: Array, states: tuple[Array, ...], p: Parameters, clip: float
) -> tuple[tuple[Array, ...], Any]:
    """Like `lstm_step`, with layer normalisation (Ba et al. 2016, equations 20 to 22).

    Gains norm_ih, norm_hh (4H,) and norm_c (H,), biases bias (4H,) and bias_c (H,).
    """
    (n_x, scale_x), (n_h, scale_h) = normalize(x @ p["w_ih"].T), normalize(h @ p["w_hh"].T)
    z = p["norm_ih"] * n_x + p["norm_hh"] * n_h + p["bias"]
    inside = abs(z) < clip
    z_i, z_f, z_g, z_o = np.split(np.clip(z, -clip, clip), 4, axis=1)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
    c = f * states[1] + i * g
    n_c, scale_c = normalize(c)
    s = np.tanh(p["norm_c"] * n_c + p["bias_c"])
    saved = (x, h, states[1], i, f, g, o, s, inside, (n_x, scale_x), (n_h, scale_h), (n_c, scale_c))
    return (o * s, c), saved


def lstm_norm_step_back(
    dstates: tuple[Array, ...], saved: Any, p: Parameters, gradients: Parameters
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Like `lstm_step_back`."""
    dh, dc = dstates
    x, h, c_prev, i, f, g, o, s, inside, norm_x, norm_h, norm_c = saved
    ds = dh * o * (1 - s**2)
    gradients["norm_c"] += (ds * norm_c[0]).sum(axis=0)
    gradients["bias_c"] += ds.sum(axis=0)
    dc = dc + normalize_back(ds * p["norm_c"], *norm_c)
    parts = [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2), dh * s * o * (1 - o)]
    dz = np.concatenate(parts, axis=1) * inside
    gradients["norm_ih"] += (dz * norm_x[0]).sum(axis=0)
    gradients["norm_hh"] += (dz * norm_h[0]).sum(axis=0)
    gradients["bias"] += dz.sum(axis=0)
    dx, dh = normalize_back(dz * p["norm_ih"], *norm_x), normalize_back(dz * p["norm_hh"], *norm_h)
    gradients["w_ih"] += dx.T @ x
    gradients["w_hh"] += dh.T @ h
    return dx @ p["w_ih"], dh @ p["w_hh"], (np.zeros_like(dc), dc * f)
