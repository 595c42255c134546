"""Losses over N valid rows: value and gradient with respect to y (N, V), or (T, V) for CTC."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Result = tuple[float, Array]


def mse(y: Array, target: Array) -> Result:
    """Mean of (y - target)^2, and its gradient with respect to y."""
    return float(np.mean((y - target) ** 2)), 2 * (y - target) / y.size


def mae(y: Array, target: Array) -> Result:
    """Mean of |y - target|."""
    return float(np.mean(np.abs(y - target))), np.sign(y - target) / y.size


def huber(y: Array, target: Array, delta: float) -> Result:
    """Mean of d^2 / 2 up to d = |y - target| = delta, and of delta (d - delta / 2) beyond (Huber 1964)."""
    d = np.abs(y - target)
    values = np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))
    return float(np.mean(values)), np.clip(y - target, -delta, delta) / y.size


def quantile(y: Array, target: Array, quantiles: Array) -> Result:
    """Mean of the pinball loss of y (N, columns Q) and target (N, columns) (Koenker and Bassett 1978)."""
    below = np.repeat(target, len(quantiles), axis=1) - y
    q = np.tile(quantiles, target.shape[1])
    values = np.maximum(q * below, (q - 1) * below)
    slopes = np.where(below > 0, -q, np.where(below < 0, 1 - q, 0.0))
    return float(np.mean(values)), slopes / y.size


def binary_cross_entropy(y: Array, target: Array, pos_weight: Array) -> Result:
    """Mean of -p z log s - (1 - z) log(1 - s), with s = sigmoid(y) and z the target."""
    log_yes, log_no = -np.logaddexp(0, -y), -np.logaddexp(0, y)
    values = -pos_weight * target * log_yes - (1 - target) * log_no
    slopes = (1 - target) * np.exp(log_yes) - pos_weight * target * np.exp(log_no)
    return float(np.mean(values)), slopes / y.size


def log_softmax(y: Array) -> Array:
    """log(exp(y_v) / sum_k exp(y_k)) of each row of y (N,V)."""
    shifted = y - y.max(axis=1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_p


def cross_entropy(
    y: Array, labels: Labels, weight: Array, ignore_index: int | None, label_smoothing: float
) -> tuple[float, Array, float]:
    """Sum of -q log p, divided by the sum of the label weights, which is also returned.

    q is the smoothed label (Szegedy et al. 2016) times class weights, combined as in PyTorch. If the weights
    sum to 0, the sum is not divided.
    """
    V = y.shape[1]
    p = np.exp(log_softmax(y))
    counts = np.ones(len(y), bool) if ignore_index is None else labels != ignore_index
    q = np.zeros_like(y)
    for row in np.flatnonzero(counts):
        q[row] = label_smoothing / V * weight
        q[row, labels[row]] += (1 - label_smoothing) * weight[labels[row]]
    total = float(weight[labels[counts]].sum())
    divisor = total or 1.0
    value = -np.sum(q[counts] * log_softmax(y)[counts]) / divisor
    return float(value), (p * q.sum(axis=1, keepdims=True) - q) / divisor, total


def ctc(y: Array, labels: Labels, blank: int) -> Result:
    """Compute -log p(labels) of one sequence by the recursions of Graves et al. 2006, sections 4.1 and 4.2.

    Both alpha and beta include the emission at t, which is divided out once.
    """
    T, log_p = len(y), log_softmax(y)
    extended = [blank]
    for label in labels:
        extended += [int(label), blank]
    S = len(extended)
    alpha, beta = np.empty((2, T, S))
    for t in range(T):
        for s in range(S):
            before = [alpha[t - 1, k] for k in _sources(extended, s)] if t else [0.0] * (s < 2)
            alpha[t, s] = log_p[t, extended[s]] + np.logaddexp.reduce([-np.inf, *before])
    for t in reversed(range(T)):
        for s in range(S):
            to = [k for k in range(S) if s in _sources(extended, k)]
            after = [beta[t + 1, k] for k in to] if t < T - 1 else [0.0] * (s >= S - 2)
            beta[t, s] = log_p[t, extended[s]] + np.logaddexp.reduce([-np.inf, *after])
    total = np.logaddexp.reduce(alpha[-1, -2:])
    dy = np.exp(log_p)
    for t in range(T):
        for s in range(S):
            dy[t, extended[s]] -= np.exp(alpha[t, s] + beta[t, s] - log_p[t, extended[s]] - total)
    return -float(total), dy


def _sources(extended: list[int], s: int) -> list[int]:
    """Return possible positions at the previous step: the same, the previous, or the one before a blank."""
    skips = s >= 2 and extended[s] != extended[s - 2]
    return [k for k in (s, s - 1, *((s - 2,) if skips else ())) if k >= 0]
