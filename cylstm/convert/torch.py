"""Read models from PyTorch: modules, state dicts and safetensors files, without importing torch."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks.options import warn_caller, without_option_warnings
from cylstm.convert import _state_dict
from cylstm.convert._common import (
    RECURRENT,
    Conversion,
    ConversionError,
    Part,
    assembled,
    name_in_errors,
    real_dtype,
)
from cylstm.layers.activation import Activation
from cylstm.layers.base import Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.parameters import without_initial_values
from cylstm.layers.sequential import Sequential

Array = NDArray[Any]
QUANTISED = "is quantised; convert the module as it was before quantisation"


def from_torch(
    source: Any,
    *,
    order: Sequence[str] | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
) -> Sequential:
    """Read a model of PyTorch, with its weights.

    Parameters
    ----------
    source : torch.nn.Module, mapping or path
        A module, possibly wrapped by `DataParallel` or `torch.compile`: `LSTM`, `GRU`, `RNN`, `Embedding`,
        `Linear`, `Dropout`, `LayerNorm`, `Identity`, an activation, or modules that contain them. The layers
        of a `Sequential` are read in its order. The `forward` of any other module cannot be read: its
        children are read in the order in which they were registered, with a warning. Add anything else that
        `forward` does (an activation, taking the last step) by hand:
        `cylstm.Sequential(cylstm.from_torch(m.lstm), cylstm.Pooling("last"), cylstm.from_torch(m.fc))`.
        Or a module's `state_dict()`, or a safetensors file of it. These have names and shapes only, not
        dropout or activations.
    order : sequence of str, optional
        Names of the layers in a state dict, such as `["embedding", "lstm", "fc"]`, in the order in which they
        are applied. By default the order of the state dict. The layers of a file are sorted by name if their
        names are numbers, otherwise put in the only order in which the sizes fit.
    batch_first : bool, optional
        Whether x and y of a state dict's model are (B, T, features); by default (T, B, features), as in
        PyTorch. Not allowed with a module, which has its own.
    nonlinearity : {"tanh", "relu"}, optional
        Of the RNN layers in a state dict; by default tanh, with a warning. Not allowed with a module.

    Returns
    -------
    Sequential
        In evaluation mode; layers have dtype float64 if their weights do, otherwise float32.

    Warns
    -----
    UserWarning
        If a state dict is ambiguous: the nonlinearity of an RNN, the eps of a LayerNorm, an activation
        between two Linear layers, layers that fit in several orders. For a module, if `padding_idx`,
        `scale_grad_by_freq`, frozen parameters or hooks are lost.

    Raises
    ------
    ConversionError
        If a layer or option has no equivalent in cylstm, or a state dict can be read in two ways; the message
        names it. Also if a layer is quantised, or the mapping is a checkpoint that contains a state dict.
    ModelFileError
        If a file is damaged. Pickles (`.pt`, `.pth`) are not read: they could run arbitrary code.

    Examples
    --------
    >>> import numpy as np
    >>> weights = {"lstm.weight_ih_l0": np.ones((20, 3)), "lstm.weight_hh_l0": np.ones((20, 5)),
    ...            "lstm.bias_ih_l0": np.zeros(20), "lstm.bias_hh_l0": np.zeros(20),
    ...            "fc.weight": np.ones((2, 5)), "fc.bias": np.zeros(2)}
    >>> model = from_torch(weights, batch_first=True)
    >>> [type(layer).__name__ for layer in model.layers]
    ['LSTM', 'Linear']
    >>> model(np.ones((4, 7, 3)))[0].shape  # (B, T, I)
    (4, 7, 2)
    """
    return read(source, order=order, batch_first=batch_first, nonlinearity=nonlinearity).model


@without_initial_values()
def read(
    source: Any,
    *,
    order: Sequence[str] | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
) -> Conversion:
    """As `from_torch`, with the name of each layer."""
    options: dict[str, Any] = {"batch_first": batch_first, "nonlinearity": nonlinearity}
    if isinstance(source, (str, os.PathLike)):
        return _state_dict.read(_state_dict.of_file(source), order, sorted_by_sizes=True, **options)
    if isinstance(source, Mapping):
        _check_state_dict(source)
        values = {str(name): _array(str(name), value) for name, value in source.items()}
        return _state_dict.read(values, order, sorted_by_sizes=False, **options)
    if isinstance(source, type) or not callable(getattr(source, "named_children", None)):
        kind = f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__
        raise TypeError(f"source: expected a torch.nn.Module, a state dict or a path, got {kind}")
    if order is not None or batch_first is not None or nonlinearity is not None:
        raise ValueError("order, batch_first, nonlinearity: expected none with a module, which has its own")
    _warn_of_lost_options(source)
    return assembled(list(_parts("", _inner(source), set())))


def _check_state_dict(source: Mapping[Any, Any]) -> None:
    """Reject state dicts of quantised layers, and checkpoints that contain a state dict; name the entry."""
    if packed := [key for key in source if "_packed_" in str(key)]:
        raise ConversionError(f"{packed[0]}: {QUANTISED}")
    inner = [key for key, value in source.items() if isinstance(value, Mapping) and _holds_weights(value)]
    modules = [key for key, value in source.items() if callable(getattr(value, "named_children", None))]
    if not inner and not modules:
        return
    named = [key for key in inner if "optim" not in str(key).lower()] or inner or modules
    ways = " or ".join(f"source[{key!r}]" for key in (named + modules if inner else modules))
    raise ConversionError(
        f"source: expected a state dict, got a checkpoint with the keys {list(map(str, source))}; pass {ways}"
    )


def _holds_weights(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a state dict: tensors or arrays by name."""
    return bool(value) and all(
        isinstance(name, str) and hasattr(tensor, "shape") for name, tensor in value.items()
    )


def _inner(module: Any) -> Any:
    """The module inside the wrappers of PyTorch: `DataParallel`, `DistributedDataParallel`, torch.compile."""
    while type(module).__module__.startswith("torch."):
        kind = type(module).__name__
        if kind in ("DataParallel", "DistributedDataParallel"):
            module = module.module
        elif kind == "OptimizedModule":
            module = module._orig_mod
        else:
            break
    return module


def _warn_of_lost_options(module: Any) -> None:
    """Warn of frozen parameters and hooks, which are lost."""
    parameters = dict(module.named_parameters())
    frozen = [name for name, value in parameters.items() if not value.requires_grad]
    if 0 < len(frozen) < len(parameters):
        warn_caller(
            f"{', '.join(frozen)}: requires_grad=False has no equivalent in cylstm; training changes them"
        )
    for name, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            where = f"{type(part).__name__} {name}".strip()
            warn_caller(f"{where}: its forward hooks are not read")


def _array(name: str, value: Any) -> Array:
    """The numbers of a tensor or an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if getattr(value, "is_quantized", False) or str(value.dtype).startswith("torch.q"):
            raise ConversionError(f"{name}: {QUANTISED}")
    if not hasattr(value, "shape"):
        raise ConversionError(f"{name}: expected a tensor, got {type(value).__name__}; leave it out")
    with name_in_errors(name):
        array = _checks.real_array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ConversionError(f"{name}: expected floating-point numbers, got {array.dtype}")
    return array


def _parts(name: str, module: Any, seen: set[int]) -> Iterator[Part]:
    """The layers of a module, one after the other."""
    module = _inner(module)
    kind = type(module).__name__
    where = f"{kind} {name}".strip()
    if ".quantized" in type(module).__module__ or ".qat" in type(module).__module__:
        raise ConversionError(f"{where}: {QUANTISED}")
    if id(module) in seen:
        raise ConversionError(f"{where}: is used twice, and cylstm's layers are not shared")
    seen.add(id(module))
    ours = type(module).__module__.startswith("torch.")
    if ours and kind in LAYERS:
        with name_in_errors(where):
            yield _part(where, module, kind)
        return
    children = [
        (key, child) for key, child in module._modules.items() if child is not None
    ]  # shared ones, too
    if (ours and kind not in ("Sequential", "Identity")) or not (children or ours):
        raise ConversionError(f"{where}: cylstm has no such layer; expected one of {', '.join(LAYERS)}")
    direct = [key for key, _ in itertools.chain(_direct(module, "parameters"), _direct(module, "buffers"))]
    if direct:
        raise ConversionError(f"{where}: has weights of its own, {direct}, and its forward cannot be read")
    if not ours:
        names = ", ".join(key for key, _ in children)
        warn_caller(
            f"{where}: its forward cannot be read; its layers are taken in the order in which they were "
            f"registered: {names}"
        )
    for key, child in children:
        yield from _parts(f"{name}.{key}".lstrip("."), child, seen)


def _direct(module: Any, what: str) -> Any:
    return getattr(module, f"named_{what}")(recurse=False)


def _part(where: str, module: Any, kind: str) -> Part:
    values = {str(key): _array(f"{where} {key}", value) for key, value in module.state_dict().items()}
    layer = LAYERS[kind](module, values, real_dtype(list(values.values())))
    if isinstance(layer, LayerNorm):
        ones = np.ones(layer.input_size)
        values = {"weight": values.get("weight", ones), "bias": values.get("bias", 0 * ones)}
    return Part(where, layer, values)


def _recurrent(module: Any, values: Mapping[str, Array], dtype: str) -> Layer:
    names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    kind = type(module).__name__
    names += {"LSTM": ["proj_size"], "RNN": ["nonlinearity"], "GRU": []}[kind]
    with without_option_warnings():  # PyTorch has already warned
        return RECURRENT[kind](**{name: getattr(module, name) for name in names}, dtype=dtype)


def _embedding(module: Any, values: Mapping[str, Array], dtype: str) -> Layer:
    if module.max_norm is not None:
        raise ValueError(f"max_norm: expected None, got {module.max_norm}")
    lost = {"padding_idx": None, "scale_grad_by_freq": False}
    for name, default in lost.items():
        if (value := getattr(module, name)) != default:
            effect = "that vector is trained like the others" if name == "padding_idx" else "it has no effect"
            warn_caller(f"Embedding: {name}={value} has no equivalent in cylstm: {effect}")
    return Embedding(*values["weight"].shape, dtype=dtype)


def _layer_norm(module: Any, values: Mapping[str, Array], dtype: str) -> Layer:
    (features,) = tuple(module.normalized_shape)
    return LayerNorm(features, module.eps, dtype=dtype)


def _activation(kind: str, *names: str, **fixed: Any) -> Callable[..., Layer]:
    """A function that makes an activation from attributes `names`, alpha and beta, if others are `fixed`."""

    def make(module: Any, values: Mapping[str, Array], dtype: str) -> Layer:
        for name, value in fixed.items():
            if getattr(module, name) != value:
                raise ValueError(f"{name}: expected {value!r}, got {getattr(module, name)!r}")
        return Activation(kind, *(getattr(module, name) for name in names), dtype=dtype)

    return make


LAYERS: dict[str, Callable[[Any, Mapping[str, Array], str], Layer]] = {
    **dict.fromkeys(RECURRENT, _recurrent),
    "Embedding": _embedding,
    "Linear": lambda m, v, dtype: Linear(m.in_features, m.out_features, "bias" in v, dtype),
    "Dropout": lambda m, v, dtype: Dropout(m.p, dtype=dtype),
    "LayerNorm": _layer_norm,
    "ReLU": _activation("relu"),
    "Tanh": _activation("tanh"),
    "Sigmoid": _activation("sigmoid"),
    "Softmax": _activation("softmax", dim=-1),
    "LogSoftmax": _activation("log_softmax", dim=-1),
    "LeakyReLU": _activation("leaky_relu", "negative_slope"),
    "ELU": _activation("elu", "alpha"),
    "SELU": _activation("selu"),
    "GELU": _activation("gelu", approximate="none"),
    "SiLU": _activation("silu"),
    "Softplus": _activation("softplus", beta=1, threshold=20),
    "Softsign": _activation("softsign"),
    "Hardsigmoid": lambda m, v, dtype: Activation("hard_sigmoid", 1 / 6, 0.5, dtype=dtype),
}
