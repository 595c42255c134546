"""Small models and data for the tests of training."""

import numpy as np

import cylstm
from cylstm import losses, optim


def series(n=120, T=9, I=2, seed=0):
    """Samples whose target follows from the sequence."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, T, I)).astype(np.float32)
    return x, np.tanh(x.sum(axis=1)[:, :1])


def pooled(seed=0, dtype="float32", **options):
    return cylstm.Sequential(
        cylstm.GRU(2, 6, dtype=dtype, seed=seed, **options),
        cylstm.Dropout(0.2, seed=seed + 1),
        cylstm.Pooling("last"),
        cylstm.Linear(6, 1, dtype=dtype, seed=seed + 2),
    )


def tagger(seed=0, V=4, dtype="float32", **options):
    return cylstm.Sequential(
        cylstm.Embedding(V, 5, dtype=dtype, seed=seed),
        cylstm.LSTM(5, 7, 2, dropout=0.1, dtype=dtype, seed=seed + 1, **options),
        cylstm.Dropout(0.1, seed=seed + 2),
        cylstm.LayerNorm(7, dtype=dtype),
        cylstm.Linear(7, V, dtype=dtype, seed=seed + 3),
    )


def tagged(n=50, V=4, seed=0):
    """Ragged sequences of ids; the target is the id before."""
    rng = np.random.default_rng(seed)
    x = [rng.integers(0, V, rng.integers(1, 14)) for _ in range(n)]
    return x, [np.concatenate([[0], ids[:-1]]) for ids in x]


def trained(model=None, train=None, fit=None, **options):
    model = tagger() if model is None else model
    options = {"seed": 1, "clip_norm": 1.0} | options
    trainer = cylstm.Trainer(model, losses.CrossEntropy(), optim.Adam(0.01), **options)
    history = trainer.fit(tagged() if train is None else train, progress=False, **{"epochs": 2} | (fit or {}))
    return model, history
