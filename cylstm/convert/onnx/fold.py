"""Constant folding: nodes of ONNX whose inputs are all constant, such as shapes and transposed weights.

Results are views where possible. Their sizes are counted before they are computed (`Attributes.spend`), so
that no file can make the reader allocate much memory.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.budget import Budget
from cylstm.convert._common import ConversionError
from cylstm.convert.onnx.values import axis_of

Array = NDArray[Any]
PRODUCTS = 2**8  # multiplications of a matrix product that count as one number


class Attributes(dict[str, Any]):
    """Attributes of a node by name, `outputs`, the number of its outputs, and the budget of its results."""

    def __init__(self, values: dict[str, Any], outputs: int, budget: Budget) -> None:
        super().__init__(values)
        self.outputs, self._budget = outputs, budget

    def spend(self, *sizes: int) -> None:
        """Count the numbers computed next; the sizes of several axes are multiplied."""
        self._budget.spend("numbers", math.prod(sizes))

    def check(self, *sizes: int) -> None:
        """Whether an array that is a view of a smaller one is small enough to be copied."""
        self._budget.check("numbers", math.prod(sizes))


def as_numbers(name: str, array: Array) -> Array:
    """An array of ONNX in a dtype of NumPy: bfloat16 as float32, which represents all of its values.

    Raises
    ------
    ConversionError
        If it holds numbers of 8 bits or fewer, or none at all, such as strings.
    """
    if array.dtype.name == "bfloat16":  # of the package ml_dtypes
        return array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise ConversionError(
            f"{name}: expected float16, bfloat16, float32, float64, ints or bool, got {array.dtype}; convert "
            "it to float32 first"
        )
    return array


def fold(kind: str, inputs: Sequence[Array | None], attributes: Attributes) -> list[Array]:
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


def axes(attributes: Attributes, given: Array | None) -> list[int] | None:
    """Axes, an attribute in old opsets, an input in new ones."""
    return ints(given) if given is not None else attributes.get("axes")


def slices(
    rank: int, attributes: Attributes, given: Sequence[Array | None]
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


def as_slice(n: int, part: tuple[int, int, int]) -> slice:
    """The part that a Slice takes of an axis of size n."""
    start, stop, step = part
    return slice(start, None if step < 0 and stop <= -n - 1 else stop, step)


def splits(attributes: Attributes, n: int, sizes: Array | None) -> list[int]:
    """Sizes of the parts of a Split of n."""
    given = ints(sizes) if sizes is not None else attributes.get("split")
    if given is None:
        each = -(-n // attributes.outputs)
        given = [min(each, n - k * each) for k in range(attributes.outputs)]
    if sum(given) != n or min(given) < 0:
        raise ValueError(f"split: expected parts of {n}, got {given}")
    return given


def _slice(a: Attributes, x: Array, *given: Array | None) -> Array:
    for axis, part in slices(x.ndim, a, given).items():
        x = x[(slice(None),) * axis + (as_slice(x.shape[axis], part),)]
    return x


def _gather(a: Attributes, x: Array, index: Array) -> Array:
    a.spend(x.size // max(1, x.shape[a.get("axis", 0)]), index.size)
    return np.asarray(np.take(x, index, axis=a.get("axis", 0)))


def _full(a: Attributes, value: Any, wanted: list[int] | None) -> Array:
    if wanted is None or any(n < 0 for n in wanted):
        raise ValueError(f"expected sizes, got {wanted}")
    a.check(*wanted)
    return np.broadcast_to(value, wanted)  # a view


def _constant_of_shape(a: Attributes, wanted: Array) -> Array:
    return _full(a, np.ravel(a.get("value", np.zeros(1, np.float32)))[0], ints(wanted))


def _expand(a: Attributes, x: Array, wanted: Array) -> Array:
    sizes = np.broadcast_shapes(x.shape, tuple(ints(wanted) or ()))
    return _full(a, x, list(sizes))


def _reshape(a: Attributes, x: Array, wanted: Array) -> Array:
    target = ints(wanted) or []
    if not a.get("allowzero"):
        target = [x.shape[k] if n == 0 and k < x.ndim else n for k, n in enumerate(target)]
    if not x.flags.c_contiguous:
        a.spend(x.size)  # for a copy
    return x.reshape(target)


def _unsqueeze(a: Attributes, x: Array, given: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(axes(a, given) or ()))


def _squeeze(a: Attributes, x: Array, given: Array | None = None) -> Array:
    chosen = axes(a, given)
    return np.squeeze(x, None if chosen is None else tuple(chosen))


def _split(a: Attributes, x: Array, sizes: Array | None = None) -> list[Array]:
    axis = axis_of(a.get("axis", 0), x.ndim)
    parts = splits(a, x.shape[axis], sizes)
    return list(np.split(x, np.cumsum(parts)[:-1], axis=axis))


def _concat(a: Attributes, *parts: Array) -> Array:
    a.spend(sum(part.size for part in parts))
    return np.concatenate(parts, axis=a["axis"])


def _range(a: Attributes, start: Array, stop: Array, step: Array) -> Array:
    count = (float(stop) - float(start)) / float(step)
    if not math.isfinite(count):
        raise ValueError(f"expected finite numbers and a step that is not 0, got {start}, {stop}, {step}")
    a.spend(max(0, math.ceil(count)))
    return np.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _cast(a: Attributes, x: Array) -> Array:
    from onnx import helper

    a.spend(x.size)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(a["to"]))
    as_numbers("to", np.empty(0, dtype))
    return as_numbers("to", x.astype(dtype))


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu":
        return np.asarray(np.sign(x) * np.sign(y) * (abs(x) // abs(y)), x.dtype)  # towards 0
    return np.asarray(x / y)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def run(a: Attributes, x: Array, y: Array) -> Array:
        a.spend(*np.broadcast_shapes(x.shape, y.shape))
        return np.asarray(function(x, y))

    return run


def _unary(function: Callable[[Array], Array]) -> Callable[..., Array]:
    def run(a: Attributes, x: Array) -> Array:
        a.spend(x.size)
        return np.asarray(function(x))

    return run


def _matmul(a: Attributes, x: Array, y: Array) -> Array:
    a.spend(x.size + y.size)  # NumPy copies what is not contiguous
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.ndim > 1 else ()
    results = math.prod((*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), *rows, *columns))
    a.spend(max(results, results * x.shape[-1] // PRODUCTS))
    return np.asarray(x @ y)


def _where(a: Attributes, condition: Array, x: Array, y: Array) -> Array:
    a.spend(*np.broadcast_shapes(condition.shape, x.shape, y.shape))
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
    "Neg": _unary(np.negative),
    "Range": _range,
    "ReduceProd": lambda a, x, *given: np.prod(ints(x) or [], keepdims=bool(a.get("keepdims", 1))),
    "Reshape": _reshape,
    "Shape": lambda a, x: np.array(x.shape[a.get("start", 0) : a.get("end")], np.int64),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": lambda a, x: np.transpose(x, a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
