"""Recurrent layers that an exporter of ONNX has unrolled into their steps, as Keras' and torch's new one do.

Each operation of each step is a node. The reader collects the matrices that x and h are multiplied with.
Their sizes suggest which layer that is; `verify` compares the model with the graph on random numbers.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.convert._common import BY_GATES, GATES, Conversion, ConversionError, reordered
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.fold import Attributes
from cylstm.convert.onnx.values import (
    Atom,
    Constant,
    Groups,
    Steps,
    UnrolledLayer,
    UnrolledStep,
    Value,
    shape,
)

Array = NDArray[Any]
STEP_OPERATORS = {
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "MatMul", "Mul", "Relu", "Shape", "Sigmoid",
    "Slice", "Split", "Squeeze", "Sub", "Tanh", "Unsqueeze",
}  # fmt: skip
MAX_NUMBERS = 2**20  # in an x by which values are compared
MAX_STEPS = 4096  # of a graph whose values are computed one by one


def take_step(context: Context, value: Steps, axis: int) -> UnrolledStep | None:
    """A single step of a value; None if it cannot be one of an unrolled layer."""
    layer, groups = context.unrolled, value.groups
    if layer is not None and value.version == layer.version:
        return UnrolledStep(layer, True) if groups[axis] == layer.time else None
    fits = len(groups) == 3 and groups[2] == context.features and axis < 2 and len(context.outer) == 2
    if not fits or value.version != context.chain.version or not {*groups[:2]} <= {*context.outer, ()}:
        return None
    T = shape(groups, context.sizes)[axis]
    if not 2 <= T <= MAX_STEPS or groups[axis] in context.open_axes:
        return None
    context.unrolled = UnrolledLayer(value.version, T, groups[axis], groups[1 - axis])
    return UnrolledStep(context.unrolled, True)


def reads_last_state(context: Context, node: Any, inputs: list[Any]) -> bool:
    """Whether a node is a dense layer after an unrolled one, of which it reads the last h.

    Weights of the unrolled layer are read in every step; those of a dense layer once.
    """
    layer = _layer_of(inputs)
    if layer is not context.unrolled or node.op_type not in ("MatMul", "Gemm"):
        return False
    return isinstance(inputs[1], Constant) and context.graph.uses[context.graph.original(node.input[1])] < 2


def read_step_node(
    context: Context, where: str, node: Any, a: Attributes, inputs: list[Any]
) -> list[Value | UnrolledStep | None]:
    """The outputs of a node that reads steps; a Concat of all steps completes the layer."""
    layer = _layer_of(inputs)
    if layer is not context.unrolled:  # h of a layer that is complete: a state, among the outputs
        return [UnrolledStep(layer)] * a.outputs
    if node.op_type == "Concat" and len(inputs) == layer.T and a["axis"] in (0, 1, -2, -3):
        return [complete(context, where, pooled=False, time_first=a["axis"] in (0, -3))]
    if node.op_type in ("MatMul", "Gemm") and isinstance(inputs[1], Constant):
        name = context.graph.original(node.input[1])
        (layer.inputs if inputs[0].raw else layer.matrices)[name] = inputs[1].array
        return [UnrolledStep(layer)]
    if node.op_type == "Where" and isinstance(inputs[0], Constant):  # whether there is such a step
        condition = inputs[0].array
        if condition.all() or not condition.any():
            return [inputs[1] if condition.all() else inputs[2]]
    if node.op_type not in STEP_OPERATORS:
        raise ConversionError("has no place among the steps of an unrolled layer")
    for name, value in zip(node.input, inputs, strict=True):
        vector = isinstance(value, Constant) and not value.shaped and value.array.ndim == 1
        if node.op_type == "Add" and vector:
            layer.biases[context.graph.original(name)] = value.array
    layer.kinds.add(node.op_type)
    if node.op_type == "Shape":
        sizes = shape((layer.batch, context.features), context.sizes)
        return [Constant(np.array(sizes, np.int64), True)]
    raw = node.op_type in ("Cast", "Identity", "Squeeze") and inputs[0].raw
    return [UnrolledStep(layer, raw)] * a.outputs


def _layer_of(inputs: list[Any]) -> UnrolledLayer:
    return next(value.layer for value in inputs if isinstance(value, UnrolledStep))


def complete(context: Context, where: str, *, pooled: bool, time_first: bool = True) -> Steps:
    """Add the unrolled layer to the chain, in place of its product with W; its y, or its last h if pooled."""
    layer = context.unrolled
    assert layer is not None
    if layer.inputs:
        weight, bias = np.concatenate(list(layer.inputs.values()), axis=1).T, None
    elif context.chain.last("Linear"):  # the product of all steps at once
        linear = context.chain.records.pop()
        weight, bias = linear.values["weight"], linear.values.get("bias")
    else:
        raise ConversionError("expected a product of x with weights in an unrolled layer")
    kind, H, values, options = _layer(layer, weight, bias)
    context.chain.append(
        where, kind, values, input_size=weight.shape[1], hidden_size=H, options=options, states=1
    )
    context.time, context.batch, context.unrolled = layer.time, layer.batch, None
    context.has_unrolled = True
    context.set_features((Atom(f"{where} H"), H))
    outer: Groups = (layer.time, layer.batch) if time_first else (layer.batch, layer.time)
    if pooled:
        context.chain.append(where, "Pooling", how="last")
        outer = (layer.batch,)
    return Steps((*outer, context.features), context.chain.version)


def _layer(
    layer: UnrolledLayer, weight: Array, bias: Array | None
) -> tuple[str, int, dict[str, Array], dict[str, Any]]:
    """Kind, units, parameters and options of an unrolled layer, by the sizes of its matrices."""
    matrices = sorted(layer.matrices.values(), key=lambda matrix: -matrix.shape[-1])
    if not matrices or any(m.ndim != 2 or m.shape[0] != matrices[0].shape[0] for m in matrices):
        raise ConversionError("expected products of h with matrices of H rows in an unrolled layer")
    U = np.concatenate(matrices, axis=1)
    H = len(U)
    kind = BY_GATES.get(len(weight) // H if H and len(weight) % H == 0 else 0)
    if kind is None or U.shape[1] != len(weight) or len(layer.biases) > 1:
        raise ConversionError(f"expected 4, 3 or 1 gates in an unrolled layer, got {weight.shape} {U.shape}")
    have, want = GATES["keras"][kind], GATES["torch"][kind]
    zeros = np.zeros(len(weight), weight.dtype)
    second = next(iter(layer.biases.values()), zeros).reshape(-1)
    values = {"weight_ih_l0": weight, "weight_hh_l0": U.T}
    values |= {"bias_ih_l0": zeros if bias is None else bias, "bias_hh_l0": second}
    options: dict[str, Any] = {}
    if kind == "GRU" and len(matrices) == 2:
        options["reset_after"] = False
    if kind == "RNN" and "Relu" in layer.kinds:
        options["nonlinearity"] = "relu"
    return kind, H, {name: reordered(value, have, want) for name, value in values.items()}, options


def verify(model: Any, context: Context, found: Conversion) -> None:
    """Compare the model with the graph, node by node in NumPy, on random numbers."""
    from onnx.reference import ReferenceEvaluator

    value, *more = [value for value in model.graph.input if value.name not in context.graph.weights]
    if more:
        raise ConversionError(f"{more[0].name}: expected no further inputs where layers are unrolled")
    sizes = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
    if (count := math.prod(sizes)) > MAX_NUMBERS:
        raise ConversionError(
            f"{value.name}: expected at most {MAX_NUMBERS} numbers to check by, got {count}"
        )
    rng, weights = np.random.default_rng(0), next(iter(found.model.parameters.values()))
    if context.reads_indices:
        x = rng.integers(0, weights.shape[0], sizes)
        x = x.astype(np.int32 if value.type.tensor_type.elem_type == 6 else np.int64)
    else:
        x = rng.standard_normal(sizes).astype(found.model.dtype)
    results: Any = ReferenceEvaluator(model).run(None, {value.name: x})
    expected = results[0]
    y, _ = found.model(x)
    same = y.shape == expected.shape and np.allclose(y, expected, rtol=1e-4, atol=1e-5)
    if not same:
        raise ConversionError(
            "expected LSTM, GRU or RNN where the graph has single steps, but their values are others; "
            "read the model itself with from_torch or from_keras"
        )
