"""Shared by all converters: layers of a model under construction, orders of gates, errors."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.file_kinds import TEXT, UNKNOWN, FileKind, file_kind
from cylstm.files import ModelFileError, check_readable
from cylstm.layers.base import Layer
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.activated import ActivatedGRU, ActivatedLSTM, ActivatedRNN
from cylstm.recurrent.gru import GRU
from cylstm.recurrent.lstm import LSTM
from cylstm.recurrent.rnn import RNN

Array = NDArray[Any]
RECURRENT = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
ACTIVATED = {"LSTM": ActivatedLSTM, "GRU": ActivatedGRU, "RNN": ActivatedRNN}  # with activations of any kind

# Order of the gates in the weights of other libraries. That of cylstm is PyTorch's.
GATES = {
    "torch": {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"},
    "onnx": {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"},
    "keras": {"LSTM": "ifgo", "GRU": "zrn", "RNN": "h"},
}
BY_GATES = {len(gates): kind for kind, gates in GATES["torch"].items()}  # kinds by number of gates
PEEPHOLES = ("weight_ci", "weight_co", "weight_cf")  # in the order of ONNX

# Default activations of one direction, in cylstm and in other libraries.
USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}

# Names of activations in cylstm, and in recurrent nodes of ONNX.
ACTIVATIONS = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "affine": "Affine",
    "leaky_relu": "LeakyRelu",
    "thresholded_relu": "ThresholdedRelu",
    "scaled_tanh": "ScaledTanh",
    "hard_sigmoid": "HardSigmoid",
    "elu": "Elu",
    "softsign": "Softsign",
    "softplus": "Softplus",
}


class ConversionError(ValueError):
    """A model without an equivalent in the other library; the message names the part that has none."""


class Part(NamedTuple):
    """A layer that was read: its name in the other model, the layer, and its parameters' values."""

    source: str
    layer: Layer
    values: Mapping[str, Array]


class Conversion(NamedTuple):
    """A model that was read, and the name of each layer in the other model."""

    model: Sequential
    sources: list[str]


def assembled(
    parts: Sequence[Part],
    *,
    batch_first: bool | None = None,
    kind: type[Sequential] = Sequential,
    **options: Any,
) -> Conversion:
    """The model of these layers, in order; `batch_first` is its layout if the layers do not fix it.

    Raises
    ------
    ConversionError
        If they do not fit together.
    """
    if not parts:
        raise ConversionError("model: expected at least one layer, got none")
    for source, layer, values in parts:
        try:
            layer.load_state_dict(values)
        except (ValueError, TypeError) as error:
            raise ConversionError(f"{source}: {error}") from None
    first, sized = parts[0].layer, next((part.layer for part in parts if part.layer.input_size), None)
    if not first.input_size and sized is not None:
        first.fit_input(sized.input_size, sized.dtype)
    try:
        model = kind(*(part.layer for part in parts), batch_first=batch_first, **options)
    except ValueError as error:
        names = ", ".join(f"{i} {part.source}" for i, part in enumerate(parts))
        raise ConversionError(f"{error}; the layers are {names}") from None
    return Conversion(model, [part.source for part in parts])


@contextlib.contextmanager
def name_in_errors(name: str) -> Iterator[None]:
    """Context manager: prefix errors with the name of the part of the other model that caused them."""
    try:
        yield
    except ModelFileError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, ConversionError) and str(error).startswith(name):
            raise
        reason = f"{type(error).__name__} {error}" if isinstance(error, (KeyError, IndexError)) else error
        raise ConversionError(f"{name}: {reason}") from error


def reordered(value: Array, have: str, want: str) -> Array:
    """Reorder the blocks of the first axis from the order `have` to the order `want`.

    Gates of `want` that are not in `have` get zeros.
    """
    blocks = dict(zip(have, np.split(value, len(have)), strict=True))
    return np.concatenate([blocks.get(gate, np.zeros_like(blocks[have[0]])) for gate in want])


def activation_options(kind: str, names: Sequence[str]) -> dict[str, str]:
    """Options of a recurrent layer with these activations, listed for one direction after the other.

    If they include `activations`, the layer is one of `ACTIVATED`.
    """
    if tuple(names) == USUAL[kind] * (len(names) // len(USUAL[kind])):
        return {}
    if kind == "RNN" and set(names) == {"relu"}:
        return {"nonlinearity": "relu"}
    return {"activations": "; ".join(names)}


def real_dtype(values: Sequence[Array]) -> str:
    """float64 if any of the arrays is, else float32."""
    return "float64" if any(value.dtype == np.float64 for value in values) else "float32"


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], *kinds: FileKind) -> Iterator[Path]:
    """Context manager of a path to read: errors of parsers become a ModelFileError with the kind of file.

    Files may have any content, and the libraries that parse them raise errors of many types.
    """
    path = Path(path)
    check_readable(path)
    try:
        yield path
    except (ConversionError, ModelFileError, MemoryError, ImportError):
        raise
    except Exception as error:
        wanted = kinds[0].words
        found = file_kind(path)
        if found not in (*kinds, UNKNOWN):
            raise ModelFileError(f"{path}: expected {wanted}, got {found.words}{found.advice}") from error
        raise ModelFileError(
            f"{path}: {wanted} that cannot be read: {type(error).__name__}: {error}"
        ) from error


def check_kind(path: str | os.PathLike[str], *kinds: FileKind) -> None:
    """Reject a file that is known to be of another kind, for parsers that accept any bytes."""
    found = file_kind(path)
    if found not in (*kinds, UNKNOWN, TEXT):
        raise ModelFileError(f"{path}: expected {kinds[0].words}, got {found.words}{found.advice}")


@contextlib.contextmanager
def needing(extra: str) -> Iterator[None]:
    """Context manager: errors of missing packages name the extra that installs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{error.name} is not installed; pip install "cylstm[{extra}]" brings it', name=error.name
        ) from None
