"""cylstm trains and runs LSTM, GRU and RNN networks on CPUs.

NumPy in, NumPy out, with PyTorch's names and shapes::

    model = cylstm.Sequential(cylstm.LSTM(1, 32), cylstm.Linear(32, 1))
    y, state = model(x)  # x (T, B, 1) -> y (T, B, 1)
"""

import importlib
from typing import TYPE_CHECKING, Any

from cylstm import init
from cylstm._system.threads import get_num_threads, num_threads, set_num_threads
from cylstm._system.versions import show_versions
from cylstm._version import __version__
from cylstm.inference.session import Session
from cylstm.inference.stream import Stream
from cylstm.layers.activation import Activation
from cylstm.layers.attention import AdditiveAttention, MultiHeadAttention, MultiplicativeAttention
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.masked import Masked
from cylstm.layers.pooling import Pooling
from cylstm.layers.residual import Residual
from cylstm.layers.sequential import Sequential
from cylstm.recurrent import activated as _activated  # noqa: F401 - registers its layers, for files
from cylstm.recurrent.gru import GRU
from cylstm.recurrent.lstm import LSTM
from cylstm.recurrent.rnn import RNN

if TYPE_CHECKING:
    # "import x as x" tells type checkers that a name outside of __all__ is public.
    from cylstm import classification as classification
    from cylstm import cli as cli
    from cylstm import convert, data, datasets, diagnostics, losses, optim
    from cylstm import files as files
    from cylstm import forecasting as forecasting
    from cylstm import plotting as plotting
    from cylstm import reference as reference
    from cylstm import sequence_files as sequence_files
    from cylstm import series as series
    from cylstm import serve as serve
    from cylstm import sklearn as sklearn
    from cylstm import text as text
    from cylstm import training as training
    from cylstm._system.include import get_include
    from cylstm.convert import from_keras, from_onnx, from_torch
    from cylstm.files import ModelFileError, load, save
    from cylstm.inference.micro_batch import QueueFull
    from cylstm.layers.custom import CustomLayer, CustomSequenceLayer
    from cylstm.training import Checkpoints, Trainer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AdditiveAttention",
    "Checkpoints",
    "CustomLayer",
    "CustomSequenceLayer",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Masked",
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


# Imported lazily, which halves the time of `import cylstm`. Modules that need an optional dependency are not
# in __all__, so that `from cylstm import *` works without it.
_LAZY_MODULES = (
    "classification",
    "cli",
    "convert",
    "data",
    "datasets",
    "diagnostics",
    "files",
    "forecasting",
    "losses",
    "optim",
    "plotting",
    "reference",
    "sequence_files",
    "series",
    "serve",
    "sklearn",
    "text",
    "training",
)
_DEPENDENCIES = {"serve": ("prometheus_client", "starlette"), "sklearn": ("sklearn",)}
_LAZY_NAMES = {
    "Checkpoints": "cylstm.training",
    "CustomLayer": "cylstm.layers.custom",
    "CustomSequenceLayer": "cylstm.layers.custom",
    "ModelFileError": "cylstm.files",
    "QueueFull": "cylstm.inference.micro_batch",
    "Trainer": "cylstm.training",
    "from_keras": "cylstm.convert",
    "from_onnx": "cylstm.convert",
    "from_torch": "cylstm.convert",
    "get_include": "cylstm._system.include",
    "load": "cylstm.files",
    "save": "cylstm.files",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY_NAMES:
        value = globals()[name] = getattr(importlib.import_module(_LAZY_NAMES[name]), name)
        return value
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"cylstm.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"cylstm.{name}":
                raise
    raise AttributeError(f"module 'cylstm' has no attribute {name!r}")


def __dir__() -> list[str]:
    from importlib.util import find_spec

    # Tools access every listed name, so modules without their dependencies are left out.
    missing = {name for name, needed in _DEPENDENCIES.items() if not all(map(find_spec, needed))}
    return sorted({*globals(), *__all__, *_LAZY_MODULES} - missing)
