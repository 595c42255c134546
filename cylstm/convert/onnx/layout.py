"""Operators of ONNX that move axes and take parts of them: x and states stay the same numbers."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from cylstm.convert._common import ConversionError
from cylstm.convert.onnx import values
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.fold import Attributes, as_slice, axes, ints, slices, splits
from cylstm.convert.onnx.layers import Results, embedding, pooling
from cylstm.convert.onnx.unrolled import take_step
from cylstm.convert.onnx.values import (
    ROW,
    Constant,
    Group,
    Row,
    Rows,
    Steps,
    UnrolledStep,
    Value,
    optional_sizes,
    sizes_in,
    symbolic,
)

MAX_ROWS = 4096  # of states, and indices that are taken
INTS = (2, 3, 4, 5, 6, 7, 12, 13)  # of onnx.TensorProto.DataType


def _same(context: Context, where: str, a: Attributes, x: Value, *others: Value | None) -> Results:
    return [symbolic(x), *[None] * (a.outputs - 1)]


def _cast(context: Context, where: str, a: Attributes, x: Value) -> Results:
    if isinstance(x, Steps) and (a["to"] in INTS) != (context.reads_indices and not context.chain.records):
        raise ConversionError("expected ints to stay ints, and other numbers to stay such")
    return [symbolic(x)]


def _shape(context: Context, where: str, a: Attributes, x: Value) -> Results:
    sizes = values.shape(symbolic(x).groups, context.sizes_for(x))
    return [Constant(np.array(sizes[a.get("start", 0) : a.get("end")], np.int64), True)]


def _transpose(context: Context, where: str, a: Attributes, x: Value) -> Results:
    value = symbolic(x)
    return [context.regrouped(value, values.transposed(value.groups, a.get("perm")))]


def _reshape(context: Context, where: str, a: Attributes, x: Value, wanted: Value) -> Results:
    target = ints(sizes_in(wanted)) or []
    value = symbolic(x)
    groups = values.reshaped(value.groups, target, context.sizes_for(value), bool(a.get("allowzero")))
    return [context.regrouped(value, groups)]


def _flatten(context: Context, where: str, a: Attributes, x: Value) -> Results:
    value, axis = symbolic(x), a.get("axis", 1)
    groups = value.groups
    axis = axis if axis == len(groups) else values.axis_of(axis, len(groups))
    parts = (groups[:axis], groups[axis:])
    return [context.regrouped(value, tuple(tuple(itertools.chain(*part)) for part in parts))]


def _squeeze(context: Context, where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
    value = symbolic(x)
    groups = values.squeezed(value.groups, axes(a, optional_sizes(given)))
    return [context.regrouped(value, groups)]


def _unsqueeze(context: Context, where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
    value = symbolic(x)
    groups = values.unsqueezed(value.groups, axes(a, optional_sizes(given)) or [])
    return [context.regrouped(value, groups)]


def _gather(context: Context, where: str, a: Attributes, x: Value, index: Value) -> Results:
    if isinstance(index, Steps):
        return embedding(context, where, a, x, index)
    groups = symbolic(x).groups
    axis, chosen = values.axis_of(a.get("axis", 0), len(groups)), sizes_in(index)
    taken = _taken(context, where, x, axis, ints(chosen) or [])
    if chosen.ndim or isinstance(taken[0], UnrolledStep):
        return taken
    return [context.regrouped(taken[0], values.squeezed(taken[0].groups, [axis]))]


def _slice(context: Context, where: str, a: Attributes, x: Value, *given: Value | None) -> Results:
    groups = symbolic(x).groups
    result: Value | None = x
    for axis, part in slices(len(groups), a, [optional_sizes(value) for value in given]).items():
        n = values.shape(groups, context.sizes_for(x))[axis]
        chosen = range(n)[as_slice(n, part)]
        if chosen != range(n):
            (result,) = _taken(context, where, result, axis, chosen)
    return [result]


def _split(context: Context, where: str, a: Attributes, x: Value, given: Value | None = None) -> Results:
    groups = symbolic(x).groups
    axis = values.axis_of(a.get("axis", 0), len(groups))
    n = values.shape(groups, context.sizes_for(x))[axis]
    bounds = np.cumsum([0, *splits(a, n, optional_sizes(given))])
    parts = [range(start, stop) for start, stop in itertools.pairwise(bounds)]
    return [_taken(context, where, x, axis, part)[0] for part in parts]


def _taken(context: Context, where: str, x: Value | None, axis: int, indices: Sequence[int]) -> Results:
    """Some indices along an axis: rows of states, or the last step of sequences."""
    value = symbolic(x)
    group = value.groups[axis]
    n = values.shape((group,), context.sizes_for(x))[0]
    if indices == range(n):
        return [value]
    if len(indices) > MAX_ROWS:
        raise ConversionError(f"expected at most {MAX_ROWS} indices, got {len(indices)}")
    chosen = [values.axis_of(k, n) for k in indices]
    if chosen == list(range(min(n, MAX_ROWS + 1))):
        return [value]
    if isinstance(value, Rows) and group == (ROW,) and chosen:
        rows = tuple(value.rows[k] for k in chosen)
        return [context.regrouped(Rows(rows, value.groups), value.groups)]
    # The last step, unless others were taken before it: an unrolled layer starts with the first.
    if isinstance(value, Steps) and len(chosen) == 1:
        alone = context.unrolled is None or context.unrolled.version != value.version
        if group == context.time and chosen == [n - 1] and alone:
            return pooling(context, where, value, axis, "last", True)
        if step := take_step(context, value, axis):
            return [step]
    if isinstance(value, Steps) and len(chosen) == 1 and group in context.outer:
        raise ConversionError(
            f"takes step {chosen[0]} by itself, as a recurrent layer does that an exporter has unrolled; "
            "read the model itself with from_torch or from_keras, or export it with dynamo=False"
        )
    raise ConversionError(f"expected the last step, or rows of states, got {chosen[:8]} of {n}")


def _concat(context: Context, where: str, a: Attributes, *parts: Value) -> Results:
    """Rows of states one after the other, or single rows with their units side by side."""
    groups = symbolic(parts[0]).groups
    axis = values.axis_of(a["axis"], len(groups))
    single = groups[axis] not in ((), (ROW,))
    rows: list[Row] = []
    for part in parts:
        if not isinstance(part, Rows) or len(part.groups) != len(groups):
            raise ConversionError("expected states of layers, as cylstm's layers are a chain")
        shapes = [values.shape(found, {**context.sizes, ROW: 1}) for found in (groups, part.groups)]
        here = part.groups[axis]
        if (
            shapes[0] != shapes[1]
            or (single and len(part.rows) > 1)
            or (not single and here not in ((), (ROW,)))
        ):
            raise ConversionError("expected states of the same shape, in rows or side by side")
        if len(rows) + len(part.rows) > MAX_ROWS:
            raise ConversionError(f"expected at most {MAX_ROWS} rows of states")
        rows += part.rows
    new: Group = (ROW, *groups[axis]) if single else (ROW,)
    together = (*groups[:axis], new, *groups[axis + 1 :])
    return [context.regrouped(Rows(tuple(rows), together), together)]


LAYOUT_OPERATORS: dict[str, Callable[..., Results]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
