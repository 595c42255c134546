"""Read and write state dicts of PyTorch: models from the names and shapes of their weights alone."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm._checks.options import warn_caller
from cylstm._formats import safetensors
from cylstm._formats.safetensors import SafetensorsError, SafetensorsFile
from cylstm.convert._common import (
    BY_GATES,
    RECURRENT,
    Conversion,
    ConversionError,
    Part,
    assembled,
    name_in_errors,
    real_dtype,
)
from cylstm.data.scalers import warn_not_applied
from cylstm.files import ModelFileError
from cylstm.layers.base import Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.parameters import without_initial_values
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.base import CELL_OPTIONS, COMMON_OPTIONS

Array = NDArray[Any]
Values = dict[str, Array]
REAL = ("F16", "BF16", "F32", "F64")  # safetensors' names of floating-point numbers
Order = list[tuple[str, str]]  # names and kinds of layers, one after the other
MAX_LAYERS = 200
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and DistributedDataParallel, and of torch.compile
MAX_TRIES = 20_000  # maximum number of orders that are tried


class Reading(NamedTuple):
    """One way to read a layer's weights: its kind, and its input and output sizes."""

    kind: str
    inputs: int
    outputs: int


def of_file(path: str | os.PathLike[str]) -> Values:
    """The tensors of a safetensors file.

    Raises
    ------
    ModelFileError
        If the file is not a safetensors file, or is damaged.
    """
    try:
        with SafetensorsFile(path) as file:
            if "cylstm" in file.metadata:
                raise ModelFileError(f"{path}: a model of cylstm, which cylstm.load reads")
            for name, tensor in file.tensors.items():
                if tensor.dtype not in REAL:
                    advice = "; convert the tensors to float32 first" if tensor.dtype[:2] == "F8" else ""
                    raise ConversionError(f"{name}: expected {', '.join(REAL)}, got {tensor.dtype}{advice}")
            return {name: file.read(name) for name in file.tensors}
    except SafetensorsError as error:
        raise ModelFileError(f"{path}: not a readable safetensors file: {error}") from error


def unwrapped(values: Mapping[str, Array]) -> Values:
    """The values by names without the prefixes of wrappers, `module.` and `_orig_mod.`."""
    found = dict(values)
    while prefix := next((p for p in WRAPPERS if found and all(name.startswith(p) for name in found)), ""):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


@without_initial_values()
def read(
    values: Mapping[str, Array],
    order: Sequence[str] | None,
    *,
    sorted_by_sizes: bool,
    batch_first: bool | None,
    nonlinearity: str | None,
) -> Conversion:
    """The model of these weights; see `from_torch`."""
    groups: dict[str, Values] = {}
    for name, value in unwrapped(values).items():
        prefix, _, parameter = name.rpartition(".")
        groups.setdefault(prefix, {})[parameter] = value
    if not 0 < len(groups) <= MAX_LAYERS:
        raise ConversionError(f"state dict: expected 1 to {MAX_LAYERS} layers, got {len(groups)}")
    possible = {prefix: list(_readings(prefix, group)) for prefix, group in groups.items()}
    chosen, free, notes = list(groups), False, list[str]()
    if order is not None:
        chosen = list(order)
        if sorted(chosen) != sorted(groups):
            raise ValueError(f"order: expected each of {sorted(groups)} once, got {chosen}")
    elif sorted_by_sizes:
        if all(re.fullmatch(r"\d+(\.\d+)*", prefix) for prefix in groups):
            chosen.sort(key=lambda prefix: list(map(int, prefix.split("."))))
        else:
            free = True
    elif not all(re.fullmatch(r"\d+(\.\d+)*", prefix) for prefix in groups):
        orders = _orders(chosen, possible, free=True)
        if len(orders) != 1:
            notes.append(f"layers in their own order, {', '.join(chosen)} (order=)")
    dtype = real_dtype(list(values.values()))
    chain = _chain(chosen, possible, free)
    notes += _guesses(chain, nonlinearity)
    if notes:
        warn_caller(
            f"state dict: its names and shapes leave open what is read as {'; '.join(notes)}. Give the "
            "arguments in brackets, or the module itself"
        )
    return assembled(
        [
            _part(prefix, kind, groups[prefix], dtype, bool(batch_first), nonlinearity)
            for prefix, kind in chain
        ],
        batch_first=batch_first,
    )


def _guesses(chain: Order, nonlinearity: str | None) -> list[str]:
    """Notes on layers that could be read in several ways, and how they are read."""
    notes = []
    if nonlinearity is None and (found := [prefix for prefix, kind in chain if kind == "RNN"]):
        notes.append(f"RNN with tanh: {_listed(found)} (nonlinearity='tanh' or 'relu')")
    if found := [prefix for prefix, kind in chain if kind == "LayerNorm"]:
        eps = LayerNorm(2).eps
        notes.append(f"LayerNorm with eps={eps}, not GroupNorm, RMSNorm or another eps: {_listed(found)}")
    for (below, kind), (above, next_kind) in itertools.pairwise(chain):
        if kind == next_kind == "Linear":
            notes.append(f"Linear layers without an activation in between: {_listed([below, above])}")
    return notes


def _listed(prefixes: list[str]) -> str:
    return ", ".join(prefix or "the only layer" for prefix in prefixes)


def _readings(prefix: str, group: Values) -> Iterator[Reading]:
    """All kinds of layers that can have these weights."""
    names, weight = set(group), group.get("weight")
    if "weight_hh_l0" in names and "weight_ih_l0" in names:
        kind, width, inputs = _recurrent_sizes(prefix, group)
        yield Reading(kind, inputs, width * (2 if "weight_hh_l0_reverse" in names else 1))
    elif weight is not None and weight.ndim == 2 and names <= {"weight", "bias"}:
        outputs, inputs = weight.shape
        yield Reading("Linear", inputs, outputs)
        if "bias" not in names:
            yield Reading("Embedding", 0, inputs)
    elif weight is not None and weight.ndim == 1 and names <= {"weight", "bias"}:
        yield Reading("LayerNorm", len(weight), len(weight))
    else:
        raise ConversionError(
            f"{prefix or 'state dict'}: expected the weights of LSTM, GRU, RNN, Embedding, Linear "
            f"or LayerNorm, got { ({name: value.shape for name, value in group.items()}) }"
        )


def _recurrent_sizes(prefix: str, group: Values) -> tuple[str, int, int]:
    """Kind, width of h and input size of recurrent weights."""
    w_ih, w_hh = group["weight_ih_l0"], group["weight_hh_l0"]
    projection = group.get("weight_hr_l0")
    H = w_hh.shape[-1] if projection is None or projection.ndim != 2 else projection.shape[1]
    kind = BY_GATES.get(len(w_hh) // H if H and w_hh.ndim == 2 else 0)
    if kind is None or w_ih.ndim != 2 or len(w_hh) % H:
        shapes = f"weight_ih_l0 {w_ih.shape} and weight_hh_l0 {w_hh.shape}"
        raise ConversionError(
            f"{prefix or 'state dict'}: expected 4, 3 or 1 blocks of rows for each unit, got {shapes}"
        )
    return kind, w_hh.shape[1], w_ih.shape[1]


def _chain(names: list[str], possible: Mapping[str, list[Reading]], free: bool) -> Order:
    """Names and kinds in the order given, or if `free` in the only order in which the sizes fit."""
    found = _orders(names, possible, free)
    sizes = {name: [tuple(reading) for reading in possible[name]] for name in names}
    if len(found) > 1:
        raise ConversionError(
            "state dict: can be read in more than one way; give order=, or the module itself; kinds and "
            f"sizes are {sizes}"
        )
    if not found:
        raise ConversionError(
            f"state dict: no order of its layers fits; give it as order=; kinds and sizes are {sizes}"
        )
    return found[0]


def _orders(names: list[str], possible: Mapping[str, list[Reading]], free: bool) -> list[Order]:
    """The orders in which the sizes fit; at most two.

    A search that takes too long counts as two.
    """
    found: list[Order] = []
    tries = 0

    def extend(taken: list[tuple[str, str]], left: list[str], size: int | None) -> None:
        nonlocal tries
        tries += 1
        if tries > MAX_TRIES or len(found) > 1:
            return
        if not left:
            found.append(taken)
            return
        for name in left if free else left[:1]:
            for kind, inputs, outputs in possible[name]:
                if size is None or (kind != "Embedding" and inputs == size):
                    left_after = [other for other in left if other != name]
                    extend([*taken, (name, kind)], left_after, outputs)

    extend([], names, None)
    return found if tries <= MAX_TRIES else [[], []]


def _part(
    prefix: str, kind: str, group: Values, dtype: str, batch_first: bool, nonlinearity: str | None
) -> Part:
    name = f"{kind} {prefix}".strip()
    with name_in_errors(name):
        layer: Layer
        if kind in RECURRENT:
            _, width, inputs = _recurrent_sizes(prefix, group)
            layers = 1 + max(int(found[1]) for key in group if (found := re.search(r"_l(\d{1,4})", key)))
            if layers > len(group):
                raise ValueError(f"expected the weights of {layers} layers, got {list(group)}")
            _check_stack(group, layers)
            options: dict[str, Any] = {"bias": "bias_ih_l0" in group, "batch_first": batch_first}
            options["bidirectional"] = "weight_hh_l0_reverse" in group
            hidden = width
            if "weight_hr_l0" in group:
                options["proj_size"], hidden = width, group["weight_hr_l0"].shape[1]
            if kind == "RNN" and nonlinearity is not None:
                options["nonlinearity"] = nonlinearity
            layer = RECURRENT[kind](inputs, hidden, layers, dtype=dtype, **options)
        elif kind == "Embedding":
            layer = Embedding(*group["weight"].shape, dtype=dtype)
        elif kind == "Linear":
            rows, columns = group["weight"].shape
            layer = Linear(columns, rows, "bias" in group, dtype)
        else:
            layer = LayerNorm(len(group["weight"]), dtype=dtype)
            group = {"bias": np.zeros(len(group["weight"])), **group}
    return Part(name, layer, group)


def _check_stack(group: Values, layers: int) -> None:
    """Check, before layers are built, that all layers of a stack have weights of the size of the first."""
    shape = group["weight_hh_l0"].shape
    for l in range(layers):
        name = f"weight_hh_l{l}"
        if name not in group or group[name].shape != shape:
            got = group[name].shape if name in group else "none"
            raise ValueError(f"{name}: expected the weights of {layers} layers, {shape}, got {got}")


def to_safetensors(model: Layer, path: str | os.PathLike[str], *, names: Sequence[str] | None = None) -> None:
    """Write a model's weights to a safetensors file with PyTorch's names, atomically.

    `safetensors.torch.load_file` reads it, for `load_state_dict` of a module with the same layers:
    `torch.nn.Sequential` if there are no `names`.

    Parameters
    ----------
    model : Layer
    path : path
    names : sequence of str, optional
        Of the module's layers, for each layer of a `Sequential`; by default their positions.

    Raises
    ------
    ConversionError
        If a layer or option is not stored in a state dict, so that a reader would compute something else:
        pooling, activations, residual connections, `nonlinearity="relu"`, `clip`, another `eps`. The message
        names it. Dropout is left out; so are scalers, with a warning.

    Examples
    --------
    >>> import os, tempfile
    >>> import cylstm
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.safetensors")
    >>> model = cylstm.Sequential(cylstm.GRU(3, 4), cylstm.Linear(4, 2))
    >>> to_safetensors(model, path, names=["gru", "fc"])
    >>> cylstm.from_torch(path).layers[1]
    Linear(in_features=4, out_features=2, bias=True, dtype='float32')
    """
    _check_for_torch("model", model)
    values = model.state_dict()
    if names is not None:
        if not isinstance(model, Sequential) or len(names) != len(model.layers):
            raise ValueError(f"names: expected one for each layer of a Sequential, got {list(names)}")
        renamed = {}
        for name, value in values.items():
            position, _, rest = name.partition(".")
            renamed[f"{names[int(position)]}.{rest}"] = value
        if len(renamed) != len(values):
            raise ValueError(f"names: expected another one for each layer with weights, got {list(names)}")
        values = renamed
    warn_not_applied("to_safetensors", model.scalers)
    safetensors.write(path, values, {"format": "pt"})


def _check_for_torch(name: str, layer: Any) -> None:
    """Reject layers and options that a state dict does not store and a reader would get wrong."""
    kind = type(layer).__name__
    lost: dict[str, tuple[Any, Any]] = {}  # options that are not stored, and the values that they are read as
    if type(layer) is Sequential:
        for position, part in enumerate(layer.layers):
            _check_for_torch(f"layer {position}" if name == "model" else f"{name}.{position}", part)
    elif type(layer) in RECURRENT.values():
        options = (COMMON_OPTIONS | CELL_OPTIONS).items()
        lost = {option: (getattr(layer, option), default) for option, default in options}
        for option in (
            "proj_size",
            "input_dropout",
            "recurrent_dropout",
        ):  # stored as shapes; for training only
            del lost[option]
    elif isinstance(layer, Embedding):
        lost = {"fields": (layer.input_size, 1)}
    elif isinstance(layer, LayerNorm):
        lost = {"eps": (layer.eps, LayerNorm(2).eps)}
    elif not isinstance(layer, (Linear, Dropout)):
        raise ConversionError(f"{name}: {kind} has no equivalent in a state dict of PyTorch")
    for option, (value, default) in lost.items():
        if value != default:
            raise ConversionError(
                f"{name}: {option}={value!r} of {kind} has no equivalent in a state dict of PyTorch"
            )
