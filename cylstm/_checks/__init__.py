"""Argument checks; every error names the argument, the expected and the given value."""

import operator
import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._checks import array_like

Array = NDArray[Any]
REALS = ("float32", "float64")
SHOWN = 80  # maximum length of a value in an error message


def shown(value: Any) -> str:
    """Format a value for an error message: its repr if that is short, else its type and size.

    Examples
    --------
    >>> shown("adam"), shown(np.zeros((3, 4))), shown({"weight": np.zeros(50), "bias": np.zeros(50)})
    ("'adam'", 'array (3, 4) float64', 'dict of 2')
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return f"array {value.shape} {value.dtype}"
    containers = (list, tuple, dict, set, frozenset)  # reprlib limits the number of elements
    text = reprlib.repr(value) if isinstance(value, containers) else repr(value)
    if len(text) <= SHOWN and "\n" not in text:
        return text
    if isinstance(value, str | bytes):
        return f"{value[: SHOWN // 2]!r}… of length {len(value)}"
    try:
        return f"{type(value).__name__} of {len(value)}"
    except TypeError:
        return type(value).__name__


def integer(name: str, value: Any, words: str = "an int") -> int:
    """Check an int; bools are rejected."""
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name}: expected {words}, got {shown(value)}")


def flag(name: str, value: Any) -> bool:
    """Check a bool; other truthy or falsy values, such as "no", are rejected."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}: expected True or False, got {shown(value)}")


def positive(name: str, value: Any) -> int:
    """Check a positive int."""
    return _int_from(1, "a positive int", name, value)


def natural(name: str, value: Any) -> int:
    """Check a non-negative int."""
    return _int_from(0, "an int, 0 or more", name, value)


def _int_from(minimum: int, words: str, name: str, value: Any) -> int:
    number = integer(name, value, words)
    if number < minimum:
        raise ValueError(f"{name}: expected {words}, got {number}")
    return number


def real_dtype(value: Any) -> np.dtype[Any]:
    """Check a dtype, float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or value is None or dtype.name not in REALS:
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {shown(value)}")
    native: np.dtype[Any] = np.dtype(dtype.name)
    return native


def real_array(name: str, value: Any, gaps: bool = False) -> Array:
    """Convert a value to a base-class array of real numbers of any precision, without a copy if possible.

    Accepts arrays and tensors of any library, data frames, columns and lists. A missing value raises an error
    that names its place; with `gaps`, it becomes NaN.
    """
    if type(value) is np.ndarray and array_like.is_number_dtype(value.dtype):
        return value
    return array_like.numbers(name, value, gaps)


def index_array(name: str, value: Any, what: str = "ints, the indices of vectors") -> Array:
    """Convert a value to an array of integers in the range of int64."""
    array = real_array(name, value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected {what}, got dtype {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
        raise ValueError(f"{name}: expected {what}, got {array.max()}, which overflows int64")
    return array


def shaped(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Convert a value to an array of real numbers of exactly this shape."""
    array = real_array(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array


def output(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Check an `out` array: shape, dtype, writeable."""
    if hasattr(out, "mask"):
        raise ValueError(f"{name}: expected an array without a mask, got a masked one; pass {name}.data")
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"{name}: expected an array {shape} {dtype}, got {got}")
    if not out.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one; pass a copy")
    return out


def sequence_lengths(lengths: Any, T: int, B: int) -> Array:
    """Check the lengths of B sequences, each between 0 and T."""
    array = real_array("lengths", lengths)
    if array.shape != (B,) or (B and array.dtype.kind not in "iu"):
        raise ValueError(f"lengths: expected {B} ints, one per sequence, got {array.dtype} {array.shape}")
    if not below(array, T + 1):
        raise ValueError(f"lengths: expected 0 to T = {T}, got {array.min()} to {array.max()}")
    return array.astype(np.intp)


def below(array: Array, end: int) -> bool:
    """Whether all ints of an array are in [0, end)."""
    if not array.size:
        return True
    if array.dtype == np.intp:  # one pass instead of two: as unsigned, negative numbers are large
        return bool(array.view(np.uintp).max() < end)
    return bool(array.min() >= 0 and array.max() < end)


def generator(seed: Any) -> "np.random.Generator":  # quoted, because numpy.random is loaded lazily
    """Create a random generator from a seed, or from system entropy for None."""
    try:
        return np.random.default_rng(None if seed is None else integer("seed", seed))
    except (TypeError, ValueError):
        raise ValueError(f"seed: expected a non-negative int or None, got {shown(seed)}") from None


def number(name: str, value: Any, low: float, high: float = float("inf")) -> float:
    """Check a finite number with low <= value < high; bools and strings are rejected."""
    if isinstance(value, (bool, np.bool_, str, bytes, bytearray)) or getattr(value, "ndim", False):
        raise TypeError(f"{name}: expected a number, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number, got one too large for a float") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {shown(value)}") from None
    if not low <= result < high:
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}), got {result:g}")
    return result


def above(name: str, value: Any, low: float) -> float:
    """Check a finite number greater than low."""
    result = number(name, value, low)
    if result == low:
        raise ValueError(f"{name}: expected a number above {low:g}, got {result:g}")
    return result
