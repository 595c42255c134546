"""What each node of ONNX makes of the sequences and states that a reader follows."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cylstm.convert._common import ACTIVATIONS, ConversionError
from cylstm.convert.onnx import lengths as _onnx_lengths
from cylstm.convert.onnx import values
from cylstm.convert.onnx.fold import Attributes, axes, ints, kept, slices, splits
from cylstm.convert.onnx.recurrent import recurrent
from cylstm.convert.onnx.unrolled import begin, is_step
from cylstm.convert.onnx.values import ROW, Atom, Constant, Group, Groups, Row, Rows, Steps, Value

if TYPE_CHECKING:
    from cylstm.convert.onnx.reader import Reader

Array = NDArray[Any]
Results = list[Any]
MOST = 4096  # rows of states
WIDEST = 1024  # features with a factor each, which become a matrix
INTS = (2, 3, 4, 5, 6, 7, 12, 13)  # of onnx.TensorProto.DataType


def _constant(value: Value | None) -> Array:
    """The array of an input that has to be constant, and has to be the same for any batch."""
    if not isinstance(value, Constant) or value.shaped:
        raise ConversionError("expected constant weights, got values that depend on inputs or their sizes")
    return value.array


def _optional(value: Value | None) -> Array | None:
    return None if value is None else _sizes_of(value)


def _sizes_of(value: Value | None) -> Array:
    """The array of an input that says sizes, which may be those of the batch."""
    if not isinstance(value, Constant):
        raise ConversionError("expected sizes or axes that are known, got values that depend on x")
    return value.array


def _moved(reader: "Reader", value: Value | None, groups: Groups) -> Results:
    if isinstance(value, Rows):
        return [Rows(value.rows, values.without_ones(groups, _row_sizes(reader, value)))]
    assert isinstance(value, Steps)
    return [Steps(groups, value.version)]


def _row_sizes(reader: "Reader", value: Value | None) -> dict[Atom, int]:
    return {**reader.sizes, ROW: len(value.rows)} if isinstance(value, Rows) else reader.sizes


def _symbolic(value: Value | None) -> Steps | Rows:
    if not isinstance(value, (Steps, Rows)):
        raise ConversionError("expected to read x or states")
    return value


def _same(reader: "Reader", where: str, a: Attributes, x: Value, *others: Value | None) -> Results:
    return [_symbolic(x), *[None] * (a.outputs - 1)]


def _cast(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
    if isinstance(x, Steps) and (a["to"] in INTS) != (reader.indices and not reader.chain.records):
        raise ConversionError("expected ints to stay ints, and other numbers to stay such")
    return [_symbolic(x)]


def _shape(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
    sizes = values.shape(_symbolic(x).groups, _row_sizes(reader, x))
    return [Constant(np.array(sizes[a.get("start", 0) : a.get("end")], np.int64), True)]


def _transpose(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
    return _moved(reader, x, values.transposed(_symbolic(x).groups, a.get("perm")))


def _reshape(reader: "Reader", where: str, a: Attributes, x: Value, wanted: Value) -> Results:
    target = ints(_sizes_of(wanted)) or []
    sizes, allow_zero = _row_sizes(reader, x), bool(a.get("allowzero"))
    return _moved(reader, x, values.reshaped(_symbolic(x).groups, target, sizes, allow_zero))


def _flatten(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
    groups, axis = _symbolic(x).groups, a.get("axis", 1)
    axis = axis if axis == len(groups) else values.axis_of(axis, len(groups))
    parts = (groups[:axis], groups[axis:])
    return _moved(reader, x, tuple(tuple(atom for group in part for atom in group) for part in parts))


def _squeeze(reader: "Reader", where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
    return _moved(reader, x, values.squeezed(_symbolic(x).groups, axes(a, _optional(given))))


def _unsqueeze(reader: "Reader", where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
    return _moved(reader, x, values.unsqueezed(_symbolic(x).groups, axes(a, _optional(given)) or []))


def _gather(reader: "Reader", where: str, a: Attributes, x: Value, index: Value) -> Results:
    if isinstance(index, Steps):  # an embedding
        weight, first = _constant(x), not reader.chain.records
        if not (first and reader.indices and weight.ndim == 2 and a.get("axis", 0) == 0):
            raise ConversionError("expected an embedding of the indices x, a matrix of a row for each")
        reader.chain.append(where, "Embedding", {"weight": weight})
        return [Steps((*index.groups, _new_features(reader, where, weight.shape[1])), reader.chain.version)]
    groups = _symbolic(x).groups
    axis, chosen = values.axis_of(a.get("axis", 0), len(groups)), _sizes_of(index)
    taken = _taken(reader, where, x, axis, ints(chosen) or [])
    if chosen.ndim or is_step(taken[0]):
        return taken
    return _moved(reader, taken[0], values.squeezed(_symbolic(taken[0]).groups, [axis]))


def _slice(reader: "Reader", where: str, a: Attributes, x: Value, *given: Value | None) -> Results:
    groups = _symbolic(x).groups
    result: Value | None = x
    for axis, part in slices(len(groups), a, [_optional(value) for value in given]).items():
        n = values.shape(groups, _row_sizes(reader, x))[axis]
        chosen = range(n)[kept(n, part)]
        if chosen != range(n):
            (result,) = _taken(reader, where, result, axis, chosen)
    return [result]


def _split(reader: "Reader", where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
    groups = _symbolic(x).groups
    axis = values.axis_of(a.get("axis", 0), len(groups))
    n = values.shape(groups, _row_sizes(reader, x))[axis]
    bounds = np.cumsum([0, *splits(a, n, _optional(given))])
    parts = [range(start, stop) for start, stop in itertools.pairwise(bounds)]
    return [_taken(reader, where, x, axis, part)[0] for part in parts]


def _taken(reader: "Reader", where: str, x: Value | None, axis: int, indices: Sequence[int]) -> Results:
    """Some indices along an axis: rows of states, or the last step of sequences."""
    value = _symbolic(x)
    group = value.groups[axis]
    n = values.shape((group,), _row_sizes(reader, x))[0]
    if indices == range(n):
        return [value]
    if len(indices) > MOST:
        raise ConversionError(f"expected at most {MOST} indices, got {len(indices)}")
    chosen = [values.axis_of(k, n) for k in indices]
    if chosen == list(range(min(n, MOST + 1))):
        return [value]
    if isinstance(value, Rows) and group == (ROW,) and chosen:
        rows = tuple(value.rows[k] for k in chosen)
        return _moved(reader, Rows(rows, value.groups), value.groups)
    # The last step, unless others were taken before it: an unrolled layer begins with the first.
    if isinstance(value, Steps) and len(chosen) == 1:
        alone = reader.region is None or reader.region.version != value.version
        if group == reader.time and chosen == [n - 1] and alone:
            return _pooling(reader, where, value, axis, "last", True)
        if step := begin(reader, value, axis):
            return [step]
    if isinstance(value, Steps) and len(chosen) == 1 and group in reader.outer:
        raise ConversionError(
            f"takes step {chosen[0]} by itself, as a recurrent layer does that an exporter has unrolled; "
            "read the model itself with from_torch or from_keras, or export it with dynamo=False"
        )
    raise ConversionError(f"expected the last step, or rows of states, got {chosen[:8]} of {n}")


def _pooling(reader: "Reader", where: str, x: Value, axis: int, how: str, keep: bool) -> Results:
    if not isinstance(x, Steps) or x.version != reader.chain.version or x.groups[axis] != reader.time:
        raise ConversionError("expected to go over the steps of the chain's last layer")
    reader.chain.append(where, "Pooling", how=how)
    middle: Groups = ((),) if keep else ()
    return [Steps((*x.groups[:axis], *middle, *x.groups[axis + 1 :]), reader.chain.version)]


def _reduce(how: str) -> Callable[..., Results]:
    def run(reader: "Reader", where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
        chosen = axes(a, _optional(given))
        if chosen is None or len(chosen) != 1:
            raise ConversionError(f"expected to go over the steps, got axes {chosen}")
        axis = values.axis_of(chosen[0], len(_symbolic(x).groups))
        return _pooling(reader, where, x, axis, how, bool(a.get("keepdims", 1)))

    return run


def _concat(reader: "Reader", where: str, a: Attributes, *parts: Value) -> Results:
    """Rows of states one after the other, or single rows with their units side by side."""
    groups = _symbolic(parts[0]).groups
    axis = values.axis_of(a["axis"], len(groups))
    single = groups[axis] not in ((), (ROW,))
    rows: list[Row] = []
    for part in parts:
        if not isinstance(part, Rows) or len(part.groups) != len(groups):
            raise ConversionError("expected states of layers, as cylstm's layers are a chain")
        shapes = [values.shape(found, {**reader.sizes, ROW: 1}) for found in (groups, part.groups)]
        here = part.groups[axis]
        if (
            shapes[0] != shapes[1]
            or (single and len(part.rows) > 1)
            or (not single and here not in ((), (ROW,)))
        ):
            raise ConversionError("expected states of the same shape, in rows or side by side")
        if len(rows) + len(part.rows) > MOST:
            raise ConversionError(f"expected at most {MOST} rows of states")
        rows += part.rows
    new: Group = (ROW, *groups[axis]) if single else (ROW,)
    together = (*groups[:axis], new, *groups[axis + 1 :])
    return _moved(reader, Rows(tuple(rows), together), together)


def _new_features(reader: "Reader", where: str, size: int) -> Group:
    """The atom of features that a layer makes, now those of the chain's end."""
    atom = Atom(f"{where} F")
    reader.sizes[atom] = size
    reader.features = values.without_ones(((atom,),), reader.sizes)[0]
    return reader.features


def _matmul(reader: "Reader", where: str, a: Attributes, x: Value, weight: Value) -> Results:
    return _dense(reader, where, x, _constant(weight), None)


def _gemm(
    reader: "Reader", where: str, a: Attributes, x: Value, weight: Value, bias: Value | None = None
) -> Results:
    if a.get("transA"):
        raise ConversionError(f"transA: expected 0, got {a['transA']}")
    matrix = _constant(weight) * np.float64(a.get("alpha", 1.0)).astype(_constant(weight).dtype)
    vector = None if bias is None else _constant(bias) * _constant(bias).dtype.type(a.get("beta", 1.0))
    return _dense(reader, where, x, matrix.T if a.get("transB") else matrix, vector)


def _dense(reader: "Reader", where: str, x: Value, weight: Array, bias: Array | None) -> Results:
    if weight.ndim != 2:
        raise ConversionError(f"expected a matrix of weights, got {weight.shape}")
    steps = reader.ready(x, size=weight.shape[0])
    found = {"weight": weight.T}
    if bias is not None:
        found["bias"] = np.broadcast_to(bias.reshape(-1), weight.shape[1])
    reader.chain.append(where, "Linear", found)
    groups = (*steps.groups[:-1], _new_features(reader, where, weight.shape[1]))
    return [Steps(groups, reader.chain.version)]


def _add(reader: "Reader", where: str, a: Attributes, x: Value, y: Value) -> Results:
    if isinstance(x, Constant):
        x, y = y, x
    if not isinstance(y, Constant):
        return _two(reader, where, x, y, reader.chain.residual)
    steps, array = reader.ready(x), _constant(y)
    last, width = reader.chain.last("Linear"), values.shape((reader.features,), reader.sizes)[0]
    if last and "bias" not in last.values and array.size in (1, width) and array.dtype.kind == "f":
        last.values["bias"] = np.broadcast_to(array.reshape(-1), width)
        reader.chain.edited()
        return [Steps(steps.groups, reader.chain.version)]
    return _affine(reader, where, steps, 1.0, _numbers(array))


def _two(reader: "Reader", where: str, x: Value, y: Value, join: Callable[[str, int], None]) -> Results:
    """Two values of the chain into one: its end, and an earlier one."""
    if isinstance(x, Steps) and x.version == reader.chain.version:
        x, y = y, x
    if not (isinstance(x, Steps) and isinstance(y, Steps) and y.version == reader.chain.version):
        raise ConversionError("expected the chain's end and an earlier value")
    if values.shape(x.groups, reader.sizes) != values.shape(y.groups, reader.sizes):
        raise ConversionError("expected two values of the same shape and layout")
    if x.groups[:-1] != y.groups[:-1] or y.groups[-1] != reader.features:
        raise ConversionError("expected two values of the same layout, features last")
    join(where, x.version)
    return [Steps(y.groups, reader.chain.version)]


def _numbers(array: Array) -> float | Array:
    """A single number, or one for each feature, (features,)."""
    if array.size == 1 and array.dtype.kind in "fiu":
        return float(array.reshape(-1)[0])
    if array.dtype.kind != "f" or not 1 < array.size <= WIDEST or array.shape[-1] != array.size:
        raise ConversionError(
            f"expected a single number or one for each feature, at most {WIDEST}, for cylstm has no other "
            f"such layer, got {array.dtype} {array.shape}"
        )
    return array.reshape(-1)


def _affine(
    reader: "Reader", where: str, x: Value, scale: float | Array, shift: float | Array = 0.0
) -> Results:
    """scale x + shift, by single numbers or one for each feature."""
    size = max(np.size(scale), np.size(shift))
    if size == 1:
        steps = reader.ready(x)
        reader.chain.affine(where, float(scale), float(shift))
    else:
        steps = reader.ready(x, size=size)
        dtype = np.result_type(scale, shift)  # the array's: plain floats have no say
        reader.chain.by_feature(where, *(np.full(size, value, dtype) for value in (scale, shift)))
    return [Steps(steps.groups, reader.chain.version)]


def _mul(reader: "Reader", where: str, a: Attributes, x: Value, y: Value) -> Results:
    if isinstance(x, Constant):
        x, y = y, x
    if isinstance(y, Constant):
        return _affine(reader, where, x, _numbers(_constant(y)))
    return _two(reader, where, x, y, reader.chain.gated)


def _sub(reader: "Reader", where: str, a: Attributes, x: Value, y: Value) -> Results:
    if isinstance(x, Constant):
        return _affine(reader, where, y, -1.0, _numbers(_constant(x)))
    return _affine(reader, where, x, 1.0, -_numbers(_constant(y)))


def _div(reader: "Reader", where: str, a: Attributes, x: Value, y: Value) -> Results:
    divisor = _numbers(_constant(y))
    if not np.all(divisor):
        raise ConversionError("expected a divisor that is not 0")
    return _affine(reader, where, x, 1 / divisor)


def _activation(kind: str, **names: str) -> Callable[..., Results]:
    """A function; `names` are the node's for alpha and beta."""

    def run(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
        steps = reader.ready(x)
        given: dict[str, Any] = {ours: float(a[theirs]) for ours, theirs in names.items() if theirs in a}
        reader.chain.append(where, kind, **given)
        return [Steps(steps.groups, reader.chain.version)]

    return run


def _gelu(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
    if a.get("approximate", "none") != "none":
        raise ConversionError(f"approximate: expected 'none', got {a['approximate']!r}")
    return _activation("gelu")(reader, where, a, x)


def _softmax(kind: str) -> Callable[..., Results]:
    def run(reader: "Reader", where: str, a: Attributes, x: Value) -> Results:
        steps = reader.ready(x)
        axis = a.get("axis", -1 if reader.opset >= 13 else 1)
        if values.axis_of(axis, len(steps.groups)) != len(steps.groups) - 1:
            raise ConversionError(f"axis: expected the last one, got {axis}")
        return _activation(kind)(reader, where, a, x)

    return run


def _layer_norm(
    reader: "Reader", where: str, a: Attributes, x: Value, scale: Value, shift: Value | None = None
) -> Results:
    weight = _constant(scale)
    steps = reader.ready(x, size=weight.size)
    if values.axis_of(a.get("axis", -1), len(steps.groups)) != len(steps.groups) - 1 or weight.ndim != 1:
        raise ConversionError("axis: expected the last one")
    bias = np.zeros_like(weight) if shift is None else _constant(shift)
    found = {"weight": weight, "bias": bias}
    reader.chain.append(where, "LayerNorm", found, eps=float(a.get("epsilon", 1e-5)))
    return [Steps(steps.groups, reader.chain.version), *[None] * (a.outputs - 1)]


OPS: dict[str, Callable[..., Results]] = {
    "Add": _add,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _div,
    "Dropout": _same,
    "Flatten": _flatten,
    "GRU": recurrent("GRU"),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": _same,
    "LSTM": recurrent("LSTM"),
    "LayerNormalization": _layer_norm,
    "Less": _onnx_lengths.less,
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "Mul": _mul,
    "RNN": recurrent("RNN"),
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("mean"),
    "Reshape": _reshape,
    "Selu": _activation("selu", alpha="alpha", beta="gamma"),
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax("softmax"),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _onnx_lengths.choose,
    "Erf": _activation("erf"),
    **{
        theirs: _activation(ours, alpha="alpha", beta="beta")
        for ours, theirs in ACTIVATIONS.items()
        if ours not in ("affine", "scaled_tanh")
    },
}
