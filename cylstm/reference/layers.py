"""Layers other than recurrent ones, for one sequence x (T,F)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def embedding(x: NDArray[np.intp], weight: Array) -> Array:
    """Look up rows of weight (V,E) by indices x (T)."""
    return np.array([weight[i] for i in x]).reshape(len(x), weight.shape[1])


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Ba, Kiros and Hinton 2016, equation 4, over the features of each step."""
    y = np.empty_like(x)
    for t, a in enumerate(x):
        mean = a.sum() / len(a)
        sigma = np.sqrt(((a - mean) ** 2).sum() / len(a) + eps)
        y[t] = weight / sigma * (a - mean) + bias
    return y


def pooling(x: Array, how: str) -> Array:
    """Pool a sequence to one row (F); zeros for an empty sequence."""
    if len(x) == 0:
        return np.zeros(x.shape[1])
    half = x.shape[1] // 2
    if how == "ends":
        return np.concatenate([x[-1, :half], x[0, half:]])
    result: Array = {"last": x[-1], "mean": x.sum(axis=0) / len(x), "max": x.max(axis=0)}[how]
    return result


def attention(scores: Array, values: Array, first: int, causal: bool) -> Array:
    """Compute y_t = sum_j a_tj v_j with a_t = softmax(e_t) from scores e (Q,T) and values v (T,F).

    The query of row q is step first + q; with `causal`, it attends to no later step.
    """
    y = np.zeros((len(scores), values.shape[1]))
    for q, e in enumerate(scores):
        seen = first + q + 1 if causal else len(e)
        a = np.exp(e[:seen] - e[:seen].max())
        a /= a.sum()
        for j in range(seen):
            y[q] += a[j] * values[j]
    return y


def multiplicative_scores(queries: Array, x: Array, weight: Array) -> Array:
    """e_tj = q_t W x_j (Luong et al. 2015, the general score)."""
    return np.array([[q @ weight @ k for k in x] for q in queries]).reshape(len(queries), len(x))


def additive_scores(
    queries: Array, x: Array, query_weight: Array, key_weight: Array, bias: Array, score: Array
) -> Array:
    """e_tj = v tanh(W_q q_t + W_k x_j + b) (Bahdanau et al. 2015, appendix A.1.2)."""
    e = [[score[0] @ np.tanh(query_weight @ q + key_weight @ k + bias) for k in x] for q in queries]
    return np.array(e).reshape(len(queries), len(x))


def multi_head_attention(
    queries: Array, x: Array, p: dict[str, Array], heads: int, first: int, causal: bool
) -> Array:
    """Vaswani et al. 2017, section 3.2.2, with the parameters p of torch.nn.MultiheadAttention."""
    F = x.shape[1]
    d = F // heads
    weights, biases = np.split(p["in_proj_weight"], 3), np.split(p["in_proj_bias"], 3)
    Q, K, V = (a @ w.T + b for a, w, b in zip((queries, x, x), weights, biases, strict=True))
    head_of = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        head_of.append(attention(Q[:, part] @ K[:, part].T / np.sqrt(d), V[:, part], first, causal))
    y: Array = np.concatenate(head_of, axis=1) @ p["out_proj.weight"].T + p["out_proj.bias"]
    return y


def erfc(z: float) -> float:
    """Complementary error function: 2 / sqrt(pi) times the integral of exp(-(z + s)^2) over s >= 0."""
    if z < 0:
        return 2 - erfc(-z)
    nodes, weights = np.polynomial.legendre.leggauss(80)  # on [-1, 1]; exp(-s^2) is below 1e-21 at s = 7
    s = 3.5 * (nodes + 1)
    return float(2 / np.sqrt(np.pi) * np.exp(-z * z) * (3.5 * weights @ np.exp(-s * s - 2 * z * s)))


def activation(x: Array, kind: str, a: Any = None, b: Any = None) -> Array:
    """Apply an elementwise function, or softmax over rows; a and b are alpha and beta of ONNX operators."""
    if kind in ("softmax", "log_softmax"):
        rows = [[float(np.exp(v - row.max())) for v in row] for row in x]
        p = np.array([[v / sum(row) for v in row] for row in rows]).reshape(x.shape)
        return p if kind == "softmax" else np.asarray(np.log(p))
    functions: dict[str, Callable[[float], float]] = {
        "relu": lambda v: max(v, 0.0),
        "tanh": np.tanh,
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "leaky_relu": lambda v: v if v >= 0 else a * v,
        "elu": lambda v: v if v >= 0 else a * np.expm1(v),
        "selu": lambda v: b * (v if v >= 0 else a * np.expm1(v)),
        "gelu": lambda v: v * 0.5 * erfc(-v / np.sqrt(2)),
        "silu": lambda v: v / (1 + np.exp(-v)),
        "softplus": lambda v: np.log1p(np.exp(v)),
        "softsign": lambda v: v / (1 + abs(v)),
        "hard_sigmoid": lambda v: min(1.0, max(0.0, a * v + b)),
        "affine": lambda v: a * v + b,
        "scaled_tanh": lambda v: a * np.tanh(b * v),
        "thresholded_relu": lambda v: v if v > a else 0.0,
    }
    return np.array([functions[kind](float(v)) for v in x.flat]).reshape(x.shape)
