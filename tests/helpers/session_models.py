"""Models of many kinds for sessions, their sequences, and threads that run them."""

import threading

import numpy as np

import cylstm
from cylstm.layers import states

MODELS = {
    "stack": lambda: cylstm.LSTM(5, 17, 2, proj_size=6, learn_state=True, seed=0),
    "both": lambda: cylstm.GRU(5, 9, 2, bidirectional=True, dropout=0.3, seed=0),
    "batch first": lambda: cylstm.Sequential(
        cylstm.LSTM(5, 8, batch_first=True, zoneout=0.1, seed=0), cylstm.Dropout(0.5),
        cylstm.Linear(8, 3, seed=1),
    ),
    "deep": lambda: cylstm.Sequential(
        cylstm.LayerNorm(5), cylstm.Residual(cylstm.RNN(5, 5, seed=0)),
        cylstm.Sequential(cylstm.LSTM(5, 12, clip=2.0, seed=1), cylstm.Linear(12, 6, seed=2)),
        cylstm.MultiHeadAttention(6, 2, seed=3),
    ),
    "pooled": lambda: cylstm.Sequential(
        cylstm.GRU(5, 8, reverse=True, dtype="float64", seed=0), cylstm.Pooling("mean"),
        cylstm.Linear(8, 2, seed=1, dtype="float64"),
    ),
    "indices": lambda: cylstm.Sequential(cylstm.Embedding(11, 5, seed=0), cylstm.LSTM(5, 7, seed=1)),
    "fields": lambda: cylstm.Sequential(cylstm.Embedding(11, 2, fields=5, seed=0), cylstm.RNN(10, 7, seed=1)),
    "no state": lambda: cylstm.Pooling("max", features=5),
}  # fmt: skip


def sequences(rng, model, T, B):
    """x of T steps and B sequences, in the model's layout."""
    if model.reads_indices:
        x = rng.integers(0, 11, (T, B, model.input_size))
        x = x[..., 0] if model.reads_single_indices else x
    else:
        x = rng.standard_normal((T, B, 5)).astype(model.dtype)
    return np.ascontiguousarray(x.swapaxes(0, 1)) if model.batch_first else x


def same(ours, theirs):
    (y, state), (expected, final) = ours, theirs
    np.testing.assert_array_equal(y, expected, strict=True)
    for part, other in zip(states.arrays(state), states.arrays(final), strict=True):
        np.testing.assert_array_equal(part, other, strict=True)


def run_in_threads(n, work):
    """work(k) in n threads that begin together; what any of them raises is raised."""
    start, errors = threading.Barrier(n), []

    def one(k):
        try:
            start.wait()
            work(k)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=one, args=(k,)) for k in range(n)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
