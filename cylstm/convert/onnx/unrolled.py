"""Recurrent layers that an exporter of ONNX has unrolled into their steps, as Keras' and torch's new one do.

Between the steps of x, or of their product with W, and what is made of h lies a node for every operation of
every step. A reader takes from these which matrices x and h are multiplied with; which layer that makes is a
guess, by the sizes, until the finished model has given the values of the graph on random numbers.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm.convert._common import BY_GATES, GATES, Conversion, ConversionError, reordered
from cylstm.convert.onnx.fold import Attributes
from cylstm.convert.onnx.values import Atom, Constant, Group, Groups, Steps, Value, shape, without_ones

if TYPE_CHECKING:
    from cylstm.convert.onnx.reader import Reader

Array = NDArray[Any]
OPERATIONS = {  # of the steps of a layer
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "MatMul", "Mul", "Relu", "Shape", "Sigmoid",
    "Slice", "Split", "Squeeze", "Sub", "Tanh", "Unsqueeze",
}  # fmt: skip
LARGEST = 2**20  # numbers in an x by which values are compared
STEPS = 4096  # of a graph whose values are computed one by one


@dataclasses.dataclass
class Region:
    """The steps of one layer: where it began, and what was found in it."""

    version: int
    T: int
    time: Group
    batch: Group
    inputs: dict[str, Array] = dataclasses.field(default_factory=dict)  # that x is multiplied with
    matrices: dict[str, Array] = dataclasses.field(default_factory=dict)
    biases: dict[str, Array] = dataclasses.field(default_factory=dict)
    kinds: set[str] = dataclasses.field(default_factory=set)


class Step(NamedTuple):
    """A value inside of the steps; `raw` if it is a step as it was taken."""

    region: Region
    raw: bool = False


def begin(reader: "Reader", value: Steps, axis: int) -> Step | None:
    """A step that is taken by itself; None if it cannot be one of an unrolled layer."""
    region, groups = reader.region, value.groups
    if region is not None and value.version == region.version:
        return Step(region, True) if groups[axis] == region.time else None
    fits = len(groups) == 3 and groups[2] == reader.features and axis < 2 and len(reader.outer) == 2
    if not fits or value.version != reader.chain.version or not {groups[0], groups[1]} <= {*reader.outer, ()}:
        return None
    T = shape(groups, reader.sizes)[axis]
    if not 2 <= T <= STEPS or groups[axis] in reader.open_axes:
        return None
    reader.region = Region(value.version, T, groups[axis], groups[1 - axis])
    return Step(reader.region, True)


def follow(reader: "Reader", where: str, node: Any, a: Attributes, inputs: list[Any]) -> list[Any]:
    """What a node makes of values inside of the steps; the layer is complete when they are put together."""
    region = next(value.region for value in inputs if isinstance(value, Step))
    if region is not reader.region:  # h of a layer that is complete: a state, among the outputs
        return [Step(region)] * a.outputs
    if node.op_type == "Concat" and len(inputs) == region.T and a["axis"] in (0, 1, -2, -3):
        first = a["axis"] in (0, -3)
        return [close(reader, where, region, pooled=False, time_first=first)]
    if node.op_type in ("MatMul", "Gemm") and isinstance(inputs[1], Constant):
        name = reader.named(node.input[1])
        if reader.uses[name] < 2:  # a layer that reads the last h
            last = close(reader, where, region, pooled=True)
            from cylstm.convert.onnx.ops import OPS

            return OPS[node.op_type](reader, where, a, last, *inputs[1:])
        (region.inputs if inputs[0].raw else region.matrices)[name] = inputs[1].array
        return [Step(region)]
    if node.op_type == "Where" and isinstance(inputs[0], Constant):  # whether there is such a step
        condition = inputs[0].array
        if condition.all() or not condition.any():
            return [inputs[1] if condition.all() else inputs[2]]
    if node.op_type not in OPERATIONS:
        raise ConversionError("has no place among the steps of an unrolled layer")
    for name, value in zip(node.input, inputs, strict=True):
        vector = isinstance(value, Constant) and not value.shaped and value.array.ndim == 1
        if node.op_type == "Add" and vector:
            region.biases[reader.named(name)] = value.array
    region.kinds.add(node.op_type)
    if node.op_type == "Shape":
        width = shape((reader.features,), reader.sizes)[0]
        return [Constant(np.array([reader.batch_size(region), width], np.int64), True)]
    raw = node.op_type in ("Cast", "Identity", "Squeeze") and inputs[0].raw
    return [Step(region, raw)] * a.outputs


def close(reader: "Reader", where: str, region: Region, *, pooled: bool, time_first: bool = True) -> Steps:
    """Put the layer into the chain, in the place of its product with W; returns its y, or its last h."""
    if region.inputs:
        weight, bias = np.concatenate(list(region.inputs.values()), axis=1).T, None
    elif reader.chain.last("Linear"):  # the product of all steps at once
        linear = reader.chain.records.pop()
        weight, bias = linear.values["weight"], linear.values.get("bias")
    else:
        raise ConversionError("expected a product of x with weights in an unrolled layer")
    kind, H, values, options = _layer(region, weight, bias)
    reader.chain.append(
        where, kind, values, input_size=weight.shape[1], hidden_size=H, options=options, states=1
    )
    reader.time, reader.batch, reader.region = region.time, region.batch, None
    reader.unrolled = True
    atom = Atom(f"{where} H")
    reader.sizes[atom] = H
    reader.features = without_ones(((atom,),), reader.sizes)[0]
    outer: Groups = (region.time, region.batch) if time_first else (region.batch, region.time)
    if pooled:
        reader.chain.append(where, "Pooling", how="last")
        outer = (region.batch,)
    return Steps((*outer, reader.features), reader.chain.version)


def _layer(
    region: Region, weight: Array, bias: Array | None
) -> tuple[str, int, dict[str, Array], dict[str, Any]]:
    """Kind, units, parameters and options of the layer that these products make."""
    matrices = sorted(region.matrices.values(), key=lambda matrix: -matrix.shape[-1])
    if not matrices or any(m.ndim != 2 or m.shape[0] != matrices[0].shape[0] for m in matrices):
        raise ConversionError("expected products of h with matrices of H rows in an unrolled layer")
    U = np.concatenate(matrices, axis=1)
    H = len(U)
    kind = BY_GATES.get(len(weight) // H if H and len(weight) % H == 0 else 0)
    if kind is None or U.shape[1] != len(weight) or len(region.biases) > 1:
        raise ConversionError(f"expected 4, 3 or 1 gates in an unrolled layer, got {weight.shape} {U.shape}")
    have, want = GATES["keras"][kind], GATES["torch"][kind]
    zeros = np.zeros(len(weight), weight.dtype)
    second = next(iter(region.biases.values()), zeros).reshape(-1)
    values = {"weight_ih_l0": weight, "weight_hh_l0": U.T}
    values |= {"bias_ih_l0": zeros if bias is None else bias, "bias_hh_l0": second}
    options: dict[str, Any] = {}
    if kind == "GRU" and len(matrices) == 2:
        options["reset_after"] = False
    if kind == "RNN" and "Relu" in region.kinds:
        options["nonlinearity"] = "relu"
    return kind, H, {name: reordered(value, have, want) for name, value in values.items()}, options


def verify(model: Any, reader: "Reader", found: Conversion) -> None:
    """Compare the model with the graph, node by node in NumPy, on random numbers."""
    from onnx.reference import ReferenceEvaluator

    value, *more = [value for value in model.graph.input if value.name not in reader.weights]
    if more:
        raise ConversionError(f"{more[0].name}: expected no further inputs where layers are unrolled")
    sizes = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
    if (count := math.prod(sizes)) > LARGEST:
        raise ConversionError(f"{value.name}: expected at most {LARGEST} numbers to check by, got {count}")
    rng, weights = np.random.default_rng(0), next(iter(found.model.parameters.values()))
    if reader.indices:
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


def is_step(value: Value | Step | None) -> bool:
    """Whether a value lies inside of the steps."""
    return isinstance(value, Step)
