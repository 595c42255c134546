"""Nodes of ONNX whose inputs are all constant: shapes, and weights on their way to a node.

Arrays are views where they can be, and bounded, so that no file can ask for memory.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.convert._common import ConversionError
from cylstm.convert._onnx_values import axis_of

Array = NDArray[Any]
LARGEST = 2**26  # numbers in a constant that is computed, unless it is a view of another one


def fold(kind: str, inputs: Sequence[Array | None], attributes: dict[str, Any]) -> list[Array]:
    """The outputs of a node."""
    if kind not in FOLDED:
        raise ConversionError("cannot be computed ahead of x")
    results = FOLDED[kind](attributes, *inputs)
    return results if isinstance(results, list) else [np.asarray(results)]


def ints(array: Array | None) -> list[int] | None:
    """A vector of axes or sizes."""
    if array is None:
        return None
    if array.dtype.kind not in "iu" or array.size > 64:
        raise ValueError(f"expected a few ints, got {array.dtype} {array.shape}")
    return [int(k) for k in np.ravel(array)]


def axes(attributes: dict[str, Any], given: Array | None) -> list[int] | None:
    """Axes, an attribute in old opsets, an input in new ones."""
    return ints(given) if given is not None else attributes.get("axes")


def slices(
    rank: int, attributes: dict[str, Any], given: Sequence[Array | None]
) -> dict[int, tuple[int, int, int]]:
    """Start, stop and step of each axis that a Slice cuts; attributes in old opsets."""
    if given:
        starts, stops, chosen, steps = (ints(value) for value in [*given, None, None][:4])
    else:
        starts, stops, chosen, steps = (
            attributes.get("starts"),
            attributes.get("ends"),
            attributes.get("axes"),
            None,
        )
    if starts is None or stops is None:
        raise ValueError("expected starts and ends")
    chosen = list(range(len(starts))) if chosen is None else chosen
    steps = [1] * len(starts) if steps is None else steps
    found = {}
    for axis, start, stop, step in zip(chosen, starts, stops, steps, strict=True):
        if step == 0:
            raise ValueError("steps: expected none of 0")
        found[axis_of(axis, rank)] = (start, stop, step)
    return found


def kept(n: int, part: tuple[int, int, int]) -> slice:
    """What a Slice keeps of an axis of size n."""
    start, stop, step = part
    return slice(start, None if step < 0 and stop <= -n - 1 else stop, step)


def splits(attributes: dict[str, Any], n: int, sizes: Array | None, outputs: int) -> list[int]:
    """Sizes of the parts of a Split of n."""
    given = ints(sizes) if sizes is not None else attributes.get("split")
    if given is None:
        each = -(-n // outputs)
        given = [min(each, n - k * each) for k in range(outputs)]
    if sum(given) != n or min(given) < 0:
        raise ValueError(f"split: expected parts of {n}, got {given}")
    return given


def _slice(a: dict[str, Any], x: Array, *given: Array | None) -> Array:
    for axis, part in slices(x.ndim, a, given).items():
        x = x[(slice(None),) * axis + (kept(x.shape[axis], part),)]
    return x


def _gather(a: dict[str, Any], x: Array, index: Array) -> Array:
    _bounded(x.size // max(1, x.shape[a.get("axis", 0)]) * index.size)
    return np.asarray(np.take(x, index, axis=a.get("axis", 0)))


def _bounded(size: int) -> None:
    if size > LARGEST:
        raise ConversionError(f"expected at most {LARGEST} numbers, got {size}")


def _full(value: Any, wanted: list[int] | None) -> Array:
    if wanted is None or any(n < 0 for n in wanted):
        raise ValueError(f"expected sizes, got {wanted}")
    _bounded(math.prod(wanted))
    return np.broadcast_to(value, wanted)


def _constant_of_shape(a: dict[str, Any], wanted: Array) -> Array:
    return _full(np.ravel(a.get("value", np.zeros(1, np.float32)))[0], ints(wanted))


def _expand(a: dict[str, Any], x: Array, wanted: Array) -> Array:
    sizes = np.broadcast_shapes(x.shape, tuple(ints(wanted) or ()))
    return _full(x, list(sizes))


def _reshape(a: dict[str, Any], x: Array, wanted: Array) -> Array:
    target = ints(wanted) or []
    if not a.get("allowzero"):
        target = [x.shape[k] if n == 0 and k < x.ndim else n for k, n in enumerate(target)]
    return x.reshape(target)


def _unsqueeze(a: dict[str, Any], x: Array, given: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(axes(a, given) or ()))


def _squeeze(a: dict[str, Any], x: Array, given: Array | None = None) -> Array:
    chosen = axes(a, given)
    return np.squeeze(x, None if chosen is None else tuple(chosen))


def _split(a: dict[str, Any], x: Array, sizes: Array | None = None) -> list[Array]:
    axis = axis_of(a.get("axis", 0), x.ndim)
    parts = splits(a, x.shape[axis], sizes, a["outputs"])
    return list(np.split(x, np.cumsum(parts)[:-1], axis=axis))


def _concat(a: dict[str, Any], *parts: Array) -> Array:
    _bounded(sum(part.size for part in parts))
    return np.concatenate(parts, axis=a["axis"])


def _range(a: dict[str, Any], start: Array, stop: Array, step: Array) -> Array:
    count = (float(stop) - float(start)) / float(step)
    if not count <= LARGEST:
        raise ConversionError(f"expected at most {LARGEST} numbers, got {count}")
    return np.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _cast(a: dict[str, Any], x: Array) -> Array:
    from onnx import helper

    return x.astype(helper.tensor_dtype_to_np_dtype(a["to"]))


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu":
        return np.asarray(np.sign(x) * np.sign(y) * (abs(x) // abs(y)), x.dtype)  # towards 0
    return np.asarray(x / y)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def run(a: dict[str, Any], x: Array, y: Array) -> Array:
        _bounded(math.prod(np.broadcast_shapes(x.shape, y.shape)))
        return np.asarray(function(x, y))

    return run


def _matmul(a: dict[str, Any], x: Array, y: Array) -> Array:
    _bounded(x.size * y.shape[-1])
    return np.asarray(x @ y)


def _where(a: dict[str, Any], condition: Array, x: Array, y: Array) -> Array:
    _bounded(math.prod(np.broadcast_shapes(condition.shape, x.shape, y.shape)))
    return np.where(condition, x, y)


FOLDED: dict[str, Callable[..., Any]] = {
    "Add": _binary(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _binary(np.greater),
    "Identity": lambda a, x: x,
    "MatMul": _matmul,
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": lambda a, x: -x,
    "Range": _range,
    "ReduceProd": lambda a, x, *given: np.prod(ints(x) or [], keepdims=bool(a.get("keepdims", 1))),
    "Reshape": _reshape,
    "Shape": lambda a, x: np.array(x.shape[a.get("start", 0) : a.get("end")], np.int64),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": lambda a, x: np.sqrt(x),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": lambda a, x: np.transpose(x, a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
