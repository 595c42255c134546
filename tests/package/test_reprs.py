"""What objects show: how they were constructed or what they hold, never an address; a model's table."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import cylstm
from cylstm import data, losses, optim
from cylstm.classification import Classifier
from cylstm.forecasting import Forecaster
from cylstm.layers.custom import Context
from cylstm.sequences.packing import Packing
from cylstm.text import CharacterModel
from cylstm.training import metrics

MODEL = cylstm.Sequential(cylstm.LSTM(3, 4, seed=0), cylstm.Linear(4, 2, seed=1))
SESSION = cylstm.Session(MODEL, threads=1)


class Halving(optim.Schedule):
    def factor(self, n):
        return 0.5**n


class Twice(cylstm.CustomLayer):
    def __init__(self, features):
        super().__init__(features, features)
        self.features = features


SHOWN = [
    (MODEL, None),
    (SESSION, f"Session({MODEL!r}, threads=1)"),
    (cylstm.Stream(SESSION, 2), f"Stream({SESSION!r}, batch_size=2)"),
    (SESSION.micro_batch(), f"MicroBatch({SESSION!r}, max_batch=16, max_delay=0.001, max_queue=1024)"),
    (
        cylstm.Trainer(MODEL, losses.MSE(), clip_norm=1.0, accumulate=2),
        f"Trainer(model=Sequential(...), loss={losses.MSE()!r}, optimizer=Adam(), clip_norm=1.0, "
        "accumulate=2)",
    ),
    (Twice(3), "Twice(features=3)"),
    (Context(True), "Context(training=bool)"),
    (Packing(3, 2, np.array([1, 3])), "<Packing of 2 sequences, 4 of 6 steps>"),
    (
        optim.SGD(0.1, 0.9, groups={"*bias*": {"weight_decay": 0}}),
        "SGD(lr=0.1, momentum=0.9, groups={'*bias*': {'weight_decay': 0.0}})",
    ),
    (optim.RMSprop(), "RMSprop()"),
    (optim.Adam(1e-3, betas=(0.8, 0.9)), "Adam(betas=(0.8, 0.9))"),
    (optim.AdamW(weight_decay=0.5), "AdamW(weight_decay=0.5)"),
    (optim.StepDecay(3), "StepDecay(every=3)"),
    (optim.ExponentialDecay(0.9, per="step"), "ExponentialDecay(gamma=0.9, per='step')"),
    (optim.CosineDecay(warmup=5), "CosineDecay(warmup=5)"),
    (optim.OneCycle(), "OneCycle()"),
    (optim.ReduceOnPlateau(patience=2), "ReduceOnPlateau(patience=2)"),
    (Halving(), "Halving()"),
    (data.StandardScaler(), "<StandardScaler, not fitted>"),
    (data.MinMaxScaler().fit(np.eye(3)), "<MinMaxScaler, fitted to 3 features>"),
    (data.Vocabulary("characters", "abc"), "<Vocabulary of 3 characters>"),
    (data.Vocabulary("words", ["a", "b"]), "<Vocabulary of 2 words>"),
    (data.Arrays(np.ones((5, 2, 3)), np.ones(5), 2), "<Arrays of 3 minibatches>"),
    (data.Windows(np.arange(20.0), 4, 1), None),
    (data.TokenStream(np.arange(100) % 7, 2, 10), None),
    (Classifier(8, dropout=0.1), "Classifier(hidden_size=8, dropout=0.1)"),
    (Forecaster(3, period=12), "Forecaster(horizon=3, period=12)"),
    (CharacterModel(16), "CharacterModel(hidden_size=16)"),
    (cylstm.Checkpoints("run.ckpt", steps=5), "Checkpoints('run.ckpt', steps=5)"),
    (metrics.RowSum(metrics.mae), None),
]  # fmt: skip


@pytest.mark.parametrize(("thing", "shown"), SHOWN, ids=[type(thing).__name__ for thing, _ in SHOWN])
def test_repr_shows_constructor_or_contents(thing, shown):
    assert " at 0x" not in repr(thing) + str(thing)
    assert type(thing).__name__ in repr(thing)
    assert shown in (None, repr(thing))


def public_classes():
    """Classes of the package's public modules, by their names."""
    found = {}
    for module in pkgutil.walk_packages(cylstm.__path__, "cylstm."):
        parts = module.name.split(".")[1:]
        if any(part.startswith("_") for part in parts) or parts[0] in ("cli", "sklearn", "serve"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(kind) and kind.__module__ == module.name and not name.startswith("_"):
                found[kind] = f"{module.name}.{name}"
    return found


# Internal: of a call, or of a part of the package that users do not get.
INTERNAL = {
    "Chain", "CpuPool", "CpuSlot", "ForecastTraining", "ForkAware", "Graph", "Layout", "Loop", "Masks",
    "Mean", "Measurement", "PackedWeights", "ParameterStore", "Place", "Progress", "RandomWindows",
    "RowWorkspace", "Run", "ScratchArray", "Workspace", "Bidirectional", "ChainWorkspace",
    "HiddenConnection", "InputConnection", "InputDropout", "OutputConnection", "OutputDropout",
    "SharedWeights", "StackBuffers",
}  # fmt: skip


def test_every_public_class_has_a_repr_of_its_own():
    plain = {kind.__name__ for kind in public_classes() if kind.__repr__ is object.__repr__}
    assert plain <= INTERNAL


def test_a_model_prints_as_a_table():
    model = cylstm.Sequential(
        cylstm.Embedding(65, 64),
        cylstm.LSTM(64, 128, 2, bidirectional=True, batch_first=True),
        cylstm.Residual(cylstm.Linear(256, 256), cylstm.Activation("relu")),
        cylstm.Pooling("mean"),
        cylstm.Linear(256, 5),
    )
    assert (
        str(model)
        == """\
layer                                 output       parameters
-------------------------------------------------------------
Sequential                            (B, 5)          665,157
  0 Embedding                         (B, T, 64)        4,160
  1 LSTM (2 layers, both directions)  (B, T, 256)     593,920
  2 Residual                          (B, T, 256)      65,792
    0 Linear                          (B, T, 256)      65,792
    1 Activation (relu)               (B, T, 256)           0
  3 Pooling (mean)                    (B, 256)              0
  4 Linear                            (B, 5)            1,285
-------------------------------------------------------------
665,157 parameters, 2.54 MiB in float32"""
    )
    assert repr(model).startswith("Sequential(Embedding(num_embeddings=65")  # as it is constructed


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_layer_prints_its_sizes_and_counts(kind):
    layer = getattr(cylstm, kind)(2, 3, dtype="float64")
    count = sum(value.size for value in layer.parameters.values())
    lines = str(layer).splitlines()
    assert lines[2].split() == [kind, "(T,", "B,", "3)", str(count)]
    assert lines[-1] == f"{count} parameters, {8 * count} bytes in float64"


def test_a_layer_whose_size_is_open_prints():
    assert "Dropout  (T, B, ?)           0" in str(cylstm.Dropout(0.5))
