"""Read models from Keras 3, `.keras` files or `.weights.h5` files with a configuration, without Keras."""

import functools
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._checks.options import warn_caller
from cylstm._formats.budget import Budget
from cylstm._formats.file_kinds import HDF5, KERAS
from cylstm.convert._common import (
    ACTIVATED,
    GATES,
    RECURRENT,
    Conversion,
    ConversionError,
    Part,
    activation_options,
    assembled,
    check_kind,
    name_in_errors,
    needing,
    reading,
    real_dtype,
    reordered,
)
from cylstm.convert._keras_file import child, names_of_groups, parts_of_archive, variables
from cylstm.convert._keras_mask import Mask
from cylstm.files import ModelFileError
from cylstm.layers.activation import Activation
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.parameters import without_initial_values
from cylstm.layers.pooling import Pooling
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.activated import parsed

Array = NDArray[Any]
Config = dict[str, Any]
Vars = list[Array]
KINDS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
ACTIVATIONS = {  # names in Keras, and in cylstm with alpha and beta
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "softmax": "softmax", "log_softmax": "log_softmax",
    "elu": "elu(1.0)", "selu": "selu", "silu": "silu", "swish": "silu", "softplus": "softplus",
    "softsign": "softsign", "hard_sigmoid": f"hard_sigmoid({1 / 6}, 0.5)", "leaky_relu": "leaky_relu(0.2)",
    "linear": "affine(1.0, 0.0)", "gelu": "gelu",
}  # fmt: skip


def from_keras(path: str | os.PathLike[str], *, config: Any = None) -> Sequential:
    """Read a model of Keras 3, with its weights.

    Parameters
    ----------
    path : path
        A `.keras` file, or a `.weights.h5` file.
    config : str or mapping, optional
        The model's `to_json()`; required for a `.weights.h5` file, which has weights only.

    Returns
    -------
    Sequential
        With `batch_first` layers, in evaluation mode; a `Masked` model if Keras masks steps, by
        `mask_zero=True` or a leading `Masking` layer, with padding on either side. The model has to be a
        chain of `Embedding`, `LSTM`, `GRU`, `SimpleRNN`, `Bidirectional` around one
        (`merge_mode="concat"`), `Dense`, `TimeDistributed` around one, `Dropout`, `LayerNormalization`,
        `Activation` and activation layers, `GlobalAveragePooling1D`, `GlobalMaxPooling1D`. Without
        `return_sequences` a `Pooling` follows the layer.

    Warns
    -----
    UserWarning
        If options are lost that have no equivalent here: `stateful`, regularizers, constraints, layers that
        are not trainable, computing in float16 or bfloat16.

    Raises
    ------
    ConversionError
        If a layer or option has no equivalent in cylstm; the message names it. No code in a file is ever run:
        `Lambda` layers and custom classes are rejected.
    ModelFileError
        If the file is damaged.
    ValueError
        If `config` is not a JSON object, or if it is given for a file that has its own.
    ImportError
        If h5py is not installed.
    """
    return read(path, config=config).model


@without_initial_values()
def read(path: str | os.PathLike[str], *, config: Any = None) -> Conversion:
    """As `from_keras`, with the name of each layer."""
    with needing("keras"):
        import h5py
    given = None if config is None else _given(config)
    with reading(path, KERAS, HDF5) as file:
        check_kind(file, KERAS, HDF5)
        archived = zipfile.is_zipfile(file)
    if archived and given is not None:
        raise ValueError("config: expected None with a .keras file, which has its own")
    if not archived and given is None:
        raise ConversionError(f"{path}: has weights only; give the model's to_json() as config=")
    with reading(path, KERAS, HDF5) as file:
        budget = Budget(file.stat().st_size)
        if given is None:
            text, weights = parts_of_archive(file, budget)
            with h5py.File(io.BytesIO(weights), "r") as opened:
                return _model(json.loads(text), opened, budget)
        with h5py.File(file, "r") as opened:
            return _model(given, opened, budget)


def _given(config: Any) -> Config:
    """The configuration that the caller gives."""
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"config: expected the model's to_json(), got invalid JSON: {error}") from None
    if not isinstance(config, Mapping):
        raise ValueError(f"config: expected a JSON object or a mapping, got {type(config).__name__}")
    return dict(config)


def _model(config: Config, file: Any, budget: Budget) -> Conversion:
    if config.get("class_name") not in ("Sequential", "Functional"):
        raise ConversionError(
            f"{config.get('class_name')}: expected a Sequential or Functional model, whose layers are known"
        )
    layers = config["config"]["layers"]
    if not isinstance(layers, list):
        raise ModelFileError("layers: expected a list")
    budget.spend("layers", len(layers))
    _check_chain(layers)
    groups, counts = child(file, "layers"), dict[str, int]()
    names = names_of_groups(groups)
    mask = Mask()
    parts: list[Part] = []
    for layer in layers:
        kind, options = str(layer["class_name"]), layer["config"]
        where = f"{kind} {options['name']}"
        counts[kind] = counts.get(kind, -1) + 1
        numbered = _snake(kind) + (f"_{counts[kind]}" if counts[kind] else "")
        with name_in_errors(where):
            if kind not in LAYERS:
                raise ConversionError(
                    f"{where}: cylstm has no such layer; expected one of {', '.join(LAYERS)}"
                )
            _check_options(where, options)
            mask.add_layer(where, kind, options, first=not parts)
            key = names.get(options["name"], numbered)
            group = child(groups, key) if key in groups else {}
            parts += LAYERS[kind](where, options, functools.partial(variables, group, budget))
    return assembled(parts, batch_first=True, **mask.options())


def _check_chain(layers: list[Any]) -> None:
    """Reject a functional model in which a layer reads anything but the layer before it."""
    before = None
    for layer in layers:
        nodes = layer.get("inbound_nodes")
        if nodes is not None and before is not None:
            read = re.findall(r'"keras_history": \["([^"]*)"', json.dumps(nodes))
            if len(nodes) != 1 or read != [before]:
                raise ConversionError(f"{layer.get('name')}: expected to read {before} only, got {read}")
        before = layer.get("name")


def _snake(name: str) -> str:
    """The name of a group in a file of Keras."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _check_options(where: str, a: Config) -> None:
    """Reject quantised layers, and warn of options without an equivalent."""
    policy = a.get("dtype")
    dtype = str(policy["config"].get("name") if isinstance(policy, dict) else policy)
    if a.get("quantization_mode") or "int8" in dtype or "int4" in dtype or "float8" in dtype:
        raise ConversionError(f"{where}: is quantised; convert the model as it was before quantisation")
    inner = a["layer"]["config"] if isinstance(a.get("layer"), dict) else {}
    lost = [
        f"{name}={value!r}" if isinstance(value, bool) else name
        for name, value in {**inner, **a}.items()
        if (name == "trainable" and value is False)
        or (name == "stateful" and value)
        or (name.endswith(("_regularizer", "_constraint")) and value)
    ]
    if dtype in ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16"):
        lost.append(f"computing in {dtype.removeprefix('mixed_')}, which is float32 here,")
    if lost:
        warn_caller(f"{where}: {', '.join(lost)} has no equivalent in cylstm")


def _activation(name: Any) -> str:
    if name not in ACTIVATIONS:
        raise ConversionError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def _activated(where: str, name: Any, dtype: str) -> Iterator[Part]:
    """The layer of an activation, if it is one."""
    if name not in (None, "linear"):
        kind, values = parsed(_activation(name))
        yield Part(f"{where} activation", Activation(kind, *values, dtype=dtype), {})


def _dense(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
    kernel, *bias = variables("")
    dtype, (inputs, outputs) = real_dtype([kernel]), kernel.shape
    values = {"weight": kernel.T} | ({"bias": bias[0]} if bias else {})
    yield Part(where, Linear(inputs, outputs, bool(bias), dtype), values)
    yield from _activated(where, a["activation"], dtype)


def _embedding(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
    (weight,) = variables("")
    yield Part(where, Embedding(*weight.shape, dtype=real_dtype([weight])), {"weight": weight})


def _layer_norm(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
    axis = a["axis"] if isinstance(a["axis"], list) else [a["axis"]]
    if axis not in ([-1], [2]) or a.get("rms_scaling"):
        raise ConversionError(f"{where}: expected axis -1 without rms_scaling, got axis {axis}")
    found = variables("")
    if not found or len(found) != bool(a["scale"]) + bool(a["center"]):
        raise ConversionError(f"{where}: expected a scale or a center")
    one, zero = np.ones_like(found[0]), np.zeros_like(found[0])
    values = {"weight": found[0] if a["scale"] else one, "bias": found[-1] if a["center"] else zero}
    yield Part(where, LayerNorm(len(one), a["epsilon"], dtype=real_dtype(found)), values)


def _recurrent(kind: str) -> Callable[..., Iterator[Part]]:
    def parts(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
        if a.get("go_backwards"):
            raise ConversionError(
                f"{where}: go_backwards=True has no equivalent in cylstm except in Bidirectional"
            )
        yield from _recurrent_parts(where, kind, a, [variables("cell")])

    return parts


def _bidirectional(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
    kind, options = a["layer"]["class_name"], a["layer"]["config"]
    other = a.get("backward_layer") or a["layer"]
    if kind not in KINDS or a["merge_mode"] != "concat" or options.get("go_backwards"):
        raise ConversionError(
            f"{where}: expected LSTM, GRU or SimpleRNN with merge_mode='concat', got {kind}"
        )
    if other["class_name"] != kind or _choices(other["config"]) != _choices(options):
        raise ConversionError(f"{where}: expected the same layer in both directions")
    found = [variables("forward_layer/cell"), variables("backward_layer/cell")]
    yield from _recurrent_parts(where, KINDS[kind], options, found)


def _choices(a: Config) -> Config:
    """The options that both directions must share."""
    names = ("units", "activation", "recurrent_activation", "use_bias", "reset_after", "return_sequences")
    return {name: a.get(name) for name in (*names, "dropout", "recurrent_dropout")}


def _recurrent_parts(where: str, kind: str, a: Config, directions: list[Vars]) -> Iterator[Part]:
    """A recurrent layer, and pooling of its last step without return_sequences."""
    if a.get("return_state"):
        raise ConversionError(f"{where}: return_state=True: the layers are not a chain then")
    values: dict[str, Array] = {}
    for found, end in zip(directions, ("_l0", "_l0_reverse"), strict=False):
        values |= {name + end: value for name, value in _weights(kind, a, found).items()}
    H, I = a["units"], values["weight_ih_l0"].shape[1]
    options: Config = {
        "bidirectional": len(directions) == 2,
        "batch_first": True,
        "bias": bool(a["use_bias"]),
    }
    if kind == "GRU":
        options["reset_after"] = bool(a["reset_after"])
    names = [_activation(a["activation"])] * (2 if kind == "LSTM" else 1)
    if kind != "RNN":
        names = [_activation(a["recurrent_activation"]), *names]
    others = activation_options(kind, names * len(directions))
    cls: Any = ACTIVATED[kind] if "activations" in others else RECURRENT[kind]
    if not others:  # one dropout mask for a sequence, as in cylstm
        options |= {"input_dropout": a["dropout"], "recurrent_dropout": a["recurrent_dropout"]}
    dtype = real_dtype(list(values.values()))
    yield Part(where, cls(I, H, dtype=dtype, **options, **others), values)
    if not a["return_sequences"]:
        how: Any = "ends" if len(directions) == 2 else "last"
        yield Part(f"{where} last step", Pooling(how, dtype=dtype), {})


def _weights(kind: str, a: Config, found: Vars) -> dict[str, Array]:
    """Weights of one direction, from kernel (I, G H), recurrent kernel (H, G H) and bias."""
    have, want = GATES["keras"][kind], GATES["torch"][kind]
    kernel, recurrent, *bias = found
    if kernel.ndim != 2 or recurrent.shape != (a["units"], a["units"] * len(have)):
        raise ConversionError(f"expected kernels of {a['units']} units, got {kernel.shape} {recurrent.shape}")
    values = {"weight_ih": reordered(kernel.T, have, want), "weight_hh": reordered(recurrent.T, have, want)}
    if bias:
        first, second = bias[0] if bias[0].ndim == 2 else (bias[0], np.zeros_like(bias[0]))
        values |= {"bias_ih": reordered(first, have, want), "bias_hh": reordered(second, have, want)}
    return values


def _time_distributed(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
    if a["layer"]["class_name"] != "Dense":
        raise ConversionError(f"{where}: expected a Dense layer, got {a['layer']['class_name']}")
    return _dense(where, a["layer"]["config"], lambda path: variables("layer"))


def _alone(kind: str, **names: str) -> Callable[..., Iterator[Part]]:
    """A reader of an activation layer; `names` are its options for alpha and beta."""

    def parts(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
        if kind == "softmax" and a.get("axis", -1) not in (-1, 2):
            raise ConversionError(f"{where}: axis: expected -1, got {a['axis']}")
        if kind == "relu" and (
            a.get("max_value") is not None or a.get("threshold") or a.get("negative_slope")
        ):
            raise ConversionError(f"{where}: expected no max_value, threshold or negative_slope")
        yield Part(where, Activation(kind, **{ours: a[theirs] for ours, theirs in names.items()}), {})

    return parts


def _pooled(how: Any) -> Callable[..., Iterator[Part]]:
    def parts(where: str, a: Config, variables: Callable[[str], Vars]) -> Iterator[Part]:
        if a.get("keepdims") or a.get("data_format", "channels_last") != "channels_last":
            raise ConversionError(f"{where}: expected channels_last without keepdims")
        yield Part(where, Pooling(how), {})

    return parts


LAYERS: Mapping[str, Callable[[str, Config, Callable[[str], Vars]], Iterator[Part]]] = {
    "InputLayer": lambda where, a, variables: iter(()),
    "Masking": lambda where, a, variables: iter(()),
    "Embedding": _embedding,
    "LSTM": _recurrent("LSTM"),
    "GRU": _recurrent("GRU"),
    "SimpleRNN": _recurrent("RNN"),
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "Dropout": lambda where, a, variables: iter([Part(where, Dropout(a["rate"]), {})]),
    "LayerNormalization": _layer_norm,
    "GlobalAveragePooling1D": _pooled("mean"),
    "GlobalMaxPooling1D": _pooled("max"),
    "Activation": lambda where, a, variables: _activated(where, a["activation"], "float32"),
    "ReLU": _alone("relu"),
    "LeakyReLU": _alone("leaky_relu", alpha="negative_slope"),
    "ELU": _alone("elu", alpha="alpha"),
    "Softmax": _alone("softmax"),
}
