"""cylstm trains and runs LSTM, GRU and RNN networks on CPUs.

NumPy in, NumPy out, with PyTorch's names and shapes::

    model = cylstm.Sequential(cylstm.LSTM(1, 32), cylstm.Linear(32, 1))
    y, state = model(x)  # x (T, B, 1) -> y (T, B, 1)
"""

import importlib
from typing import TYPE_CHECKING, Any

from cylstm import init
from cylstm._version import __version__
from cylstm.layers import activated as _activated  # noqa: F401 - registers its layers, for files
from cylstm.layers.activation import Activation
from cylstm.layers.attention import AdditiveAttention, MultiHeadAttention, MultiplicativeAttention
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.pooling import Pooling
from cylstm.layers.residual import Residual
from cylstm.layers.sequential import Sequential
from cylstm.rnn import GRU, LSTM, RNN
from cylstm.session import Session
from cylstm.stream import Stream
from cylstm.threads import get_num_threads, num_threads, set_num_threads
from cylstm.versions import show_versions

if TYPE_CHECKING:
    from cylstm import convert, data, datasets, diagnostics, losses, optim
    from cylstm.convert import from_keras, from_onnx, from_torch
    from cylstm.embedding import get_include
    from cylstm.files import ModelFileError, load, save
    from cylstm.micro_batch import QueueFull
    from cylstm.training import Checkpoints, Trainer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AdditiveAttention",
    "Checkpoints",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "ModelFileError",
    "MultiHeadAttention",
    "MultiplicativeAttention",
    "Pooling",
    "QueueFull",
    "Residual",
    "Sequential",
    "Session",
    "Stream",
    "Trainer",
    "__version__",
    "convert",
    "data",
    "datasets",
    "diagnostics",
    "from_keras",
    "from_onnx",
    "from_torch",
    "get_include",
    "get_num_threads",
    "init",
    "load",
    "losses",
    "num_threads",
    "optim",
    "save",
    "set_num_threads",
    "show_versions",
]


# Imported when they are asked for: what only runs models starts in half the time without them.
_MODULES_LATER = (
    "convert",
    "data",
    "datasets",
    "diagnostics",
    "embedding",
    "files",
    "losses",
    "micro_batch",
    "optim",
    "training",
)
_LATER = {
    "Checkpoints": "cylstm.training",
    "ModelFileError": "cylstm.files",
    "QueueFull": "cylstm.micro_batch",
    "Trainer": "cylstm.training",
    "from_keras": "cylstm.convert",
    "from_onnx": "cylstm.convert",
    "from_torch": "cylstm.convert",
    "get_include": "cylstm.embedding",
    "load": "cylstm.files",
    "save": "cylstm.files",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES_LATER:
        return importlib.import_module(f"cylstm.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'cylstm' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
