"""Operators of ONNX that are layers: embedding, dense, arithmetic, activations, normalisation, pooling."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.convert._common import ACTIVATIONS, ConversionError
from cylstm.convert.onnx import values
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.fold import Attributes, axes
from cylstm.convert.onnx.values import (
    Atom,
    Constant,
    Group,
    Groups,
    Steps,
    Value,
    constant_array,
    optional_sizes,
    symbolic,
)

Array = NDArray[Any]
Results = list[Any]
MAX_FACTORS = 1024  # one for each feature, which become a matrix


def embedding(context: Context, where: str, a: Attributes, x: Value, indices: Steps) -> Results:
    """Rows of a matrix, one for each index."""
    weight, first = constant_array(x), not context.chain.records
    if not (first and context.reads_indices and weight.ndim == 2 and a.get("axis", 0) == 0):
        raise ConversionError("expected an embedding of the indices x, a matrix of a row for each")
    context.chain.append(where, "Embedding", {"weight": weight})
    return [Steps((*indices.groups, _features(context, where, weight.shape[1])), context.chain.version)]


def _features(context: Context, where: str, size: int) -> Group:
    """The features that a layer computes, now those of the chain's end."""
    return context.set_features((Atom(f"{where} F"), size))


def _matmul(context: Context, where: str, a: Attributes, x: Value, weight: Value) -> Results:
    return _dense(context, where, x, constant_array(weight), None)


def _gemm(
    context: Context, where: str, a: Attributes, x: Value, weight: Value, bias: Value | None = None
) -> Results:
    if a.get("transA"):
        raise ConversionError(f"transA: expected 0, got {a['transA']}")
    matrix = constant_array(weight) * np.float64(a.get("alpha", 1.0)).astype(constant_array(weight).dtype)
    vector = (
        None if bias is None else constant_array(bias) * constant_array(bias).dtype.type(a.get("beta", 1.0))
    )
    return _dense(context, where, x, matrix.T if a.get("transB") else matrix, vector)


def _dense(context: Context, where: str, x: Value, weight: Array, bias: Array | None) -> Results:
    if weight.ndim != 2:
        raise ConversionError(f"expected a matrix of weights, got {weight.shape}")
    steps = context.layer_input(x, size=weight.shape[0])
    found = {"weight": weight.T}
    if bias is not None:
        found["bias"] = np.broadcast_to(bias.reshape(-1), weight.shape[1])
    context.chain.append(where, "Linear", found)
    groups = (*steps.groups[:-1], _features(context, where, weight.shape[1]))
    return [Steps(groups, context.chain.version)]


def _add(context: Context, where: str, a: Attributes, x: Value, y: Value) -> Results:
    if isinstance(x, Constant):
        x, y = y, x
    if not isinstance(y, Constant):
        return _two(context, where, x, y, context.chain.residual)
    steps, array = context.layer_input(x), constant_array(y)
    last, width = context.chain.last("Linear"), values.shape((context.features,), context.sizes)[0]
    if last and "bias" not in last.values and array.size in (1, width) and array.dtype.kind == "f":
        last.values["bias"] = np.broadcast_to(array.reshape(-1), width)
        context.chain.edited()
        return [Steps(steps.groups, context.chain.version)]
    return _affine(context, where, steps, 1.0, _numbers(array))


def _two(context: Context, where: str, x: Value, y: Value, join: Callable[[str, int], None]) -> Results:
    """Two values of the chain into one: its end, and an earlier one."""
    if isinstance(x, Steps) and x.version == context.chain.version:
        x, y = y, x
    if not (isinstance(x, Steps) and isinstance(y, Steps) and y.version == context.chain.version):
        raise ConversionError("expected the chain's end and an earlier value")
    if values.shape(x.groups, context.sizes) != values.shape(y.groups, context.sizes):
        raise ConversionError("expected two values of the same shape and layout")
    if x.groups[:-1] != y.groups[:-1] or y.groups[-1] != context.features:
        raise ConversionError("expected two values of the same layout, features last")
    join(where, x.version)
    return [Steps(y.groups, context.chain.version)]


def _numbers(array: Array) -> float | Array:
    """A single number, or one for each feature, (features,)."""
    if array.size == 1 and array.dtype.kind in "fiu":
        return float(array.reshape(-1)[0])
    if array.dtype.kind != "f" or not 1 < array.size <= MAX_FACTORS or array.shape[-1] != array.size:
        raise ConversionError(
            f"expected a single number or one for each feature, at most {MAX_FACTORS}, for cylstm has no "
            f"other such layer, got {array.dtype} {array.shape}"
        )
    return array.reshape(-1)


def _affine(
    context: Context, where: str, x: Value, scale: float | Array, shift: float | Array = 0.0
) -> Results:
    """scale x + shift, by single numbers or one for each feature."""
    size = max(np.size(scale), np.size(shift))
    if size == 1:
        steps = context.layer_input(x)
        context.chain.affine(where, float(scale), float(shift))
    else:
        steps = context.layer_input(x, size=size)
        dtype = np.result_type(scale, shift)  # the array's: plain floats do not count
        context.chain.by_feature(where, *(np.full(size, value, dtype) for value in (scale, shift)))
    return [Steps(steps.groups, context.chain.version)]


def _mul(context: Context, where: str, a: Attributes, x: Value, y: Value) -> Results:
    if isinstance(x, Constant):
        x, y = y, x
    if isinstance(y, Constant):
        return _affine(context, where, x, _numbers(constant_array(y)))
    return _two(context, where, x, y, context.chain.gated)


def _sub(context: Context, where: str, a: Attributes, x: Value, y: Value) -> Results:
    if isinstance(x, Constant):
        return _affine(context, where, y, -1.0, _numbers(constant_array(x)))
    return _affine(context, where, x, 1.0, -_numbers(constant_array(y)))


def _div(context: Context, where: str, a: Attributes, x: Value, y: Value) -> Results:
    divisor = _numbers(constant_array(y))
    if not np.all(divisor):
        raise ConversionError("expected a divisor that is not 0")
    return _affine(context, where, x, 1 / divisor)


def _activation(kind: str, **names: str) -> Callable[..., Results]:
    """A function; `names` are the node's for alpha and beta."""

    def run(context: Context, where: str, a: Attributes, x: Value) -> Results:
        steps = context.layer_input(x)
        given: dict[str, Any] = {ours: float(a[theirs]) for ours, theirs in names.items() if theirs in a}
        context.chain.append(where, kind, **given)
        return [Steps(steps.groups, context.chain.version)]

    return run


def _gelu(context: Context, where: str, a: Attributes, x: Value) -> Results:
    if a.get("approximate", "none") != "none":
        raise ConversionError(f"approximate: expected 'none', got {a['approximate']!r}")
    return _activation("gelu")(context, where, a, x)


def _softmax(kind: str) -> Callable[..., Results]:
    def run(context: Context, where: str, a: Attributes, x: Value) -> Results:
        steps = context.layer_input(x)
        axis = a.get("axis", -1 if context.graph.opset >= 13 else 1)
        if values.axis_of(axis, len(steps.groups)) != len(steps.groups) - 1:
            raise ConversionError(f"axis: expected the last one, got {axis}")
        return _activation(kind)(context, where, a, x)

    return run


def _layer_norm(
    context: Context, where: str, a: Attributes, x: Value, scale: Value, shift: Value | None = None
) -> Results:
    weight = constant_array(scale)
    steps = context.layer_input(x, size=weight.size)
    if values.axis_of(a.get("axis", -1), len(steps.groups)) != len(steps.groups) - 1 or weight.ndim != 1:
        raise ConversionError("axis: expected the last one")
    bias = np.zeros_like(weight) if shift is None else constant_array(shift)
    found = {"weight": weight, "bias": bias}
    context.chain.append(where, "LayerNorm", found, eps=float(a.get("epsilon", 1e-5)))
    return [Steps(steps.groups, context.chain.version), *[None] * (a.outputs - 1)]


def pooling(context: Context, where: str, x: Value, axis: int, how: str, keep: bool) -> Results:
    """The last step, the mean or the maximum over an axis, which `keep` leaves with the size 1."""
    if not isinstance(x, Steps) or x.version != context.chain.version or x.groups[axis] != context.time:
        raise ConversionError("expected to go over the steps of the chain's last layer")
    context.chain.append(where, "Pooling", how=how)
    middle: Groups = ((),) if keep else ()
    return [Steps((*x.groups[:axis], *middle, *x.groups[axis + 1 :]), context.chain.version)]


def _reduce(how: str) -> Callable[..., Results]:
    def run(context: Context, where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
        chosen = axes(a, optional_sizes(given))
        if chosen is None or len(chosen) != 1:
            raise ConversionError(f"expected to go over the steps, got axes {chosen}")
        axis = values.axis_of(chosen[0], len(symbolic(x).groups))
        return pooling(context, where, x, axis, how, bool(a.get("keepdims", 1)))

    return run


LAYER_OPERATORS: dict[str, Callable[..., Results]] = {
    "Add": _add,
    "Div": _div,
    "Erf": _activation("erf"),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "Mul": _mul,
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("mean"),
    "Selu": _activation("selu", alpha="alpha", beta="gamma"),
    "Softmax": _softmax("softmax"),
    "Sub": _sub,
    **{
        theirs: _activation(ours, alpha="alpha", beta="beta")
        for ours, theirs in ACTIVATIONS.items()
        if ours not in ("affine", "scaled_tanh")
    },
}
