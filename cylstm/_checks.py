"""Checks of arguments, so that every error names the argument, what was expected and what came."""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
REALS = ("float32", "float64")


def positive(name: str, value: Any) -> int:
    """A positive int."""
    return _int_from(1, "a positive int", name, value)


def natural(name: str, value: Any) -> int:
    """An int, 0 or more."""
    return _int_from(0, "an int, 0 or more", name, value)


def _int_from(least: int, words: str, name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected {words}, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name}: expected {words}, got {number}")
    return number


def real_dtype(value: Any) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or value is None or dtype.name not in REALS:
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {value!r}")
    native: np.dtype[Any] = np.dtype(dtype.name)
    return native


def real_array(name: str, value: Any) -> Array:
    """An array of real numbers of any precision, not copied if it is one already."""
    if hasattr(value, "packing"):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}; its rows are one")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected a rectangular array, got rows of different lengths") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def index_array(name: str, value: Any) -> Array:
    """An array of ints."""
    array = real_array(name, value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected ints, the indices of vectors, got dtype {array.dtype}")
    return array


def shaped(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """An array of real numbers of just this shape."""
    array = real_array(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array


def output(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that results can be written to."""
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"{name}: expected an array {shape} {dtype}, got {got}")
    if not out.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one; pass a copy")
    return out


def sequence_lengths(lengths: Any, T: int, B: int) -> Array:
    """Real steps of B sequences, each between 0 and T."""
    array = np.asarray(lengths)
    if array.shape != (B,) or (B and array.dtype.kind not in "iu"):
        raise ValueError(f"lengths: expected {B} ints, one a sequence, got {array.dtype} {array.shape}")
    if not below(array, T + 1):
        raise ValueError(f"lengths: expected 0 to T = {T}, got {array.min()} to {array.max()}")
    return array.astype(np.intp)


def below(array: Array, end: int) -> bool:
    """Whether all ints of an array are from 0 to before the end, which an intp can hold."""
    if not array.size:
        return True
    if array.dtype == np.intp:  # one pass instead of two: what is negative is large without its sign
        return bool(array.view(np.uintp).max() < end)
    return bool(array.min() >= 0 and array.max() < end)


def generator(seed: Any) -> "np.random.Generator":  # numpy.random loads when it is used
    """Random numbers from a seed, or from the system's entropy for None."""
    try:
        return np.random.default_rng(None if seed is None else operator.index(seed))
    except (TypeError, ValueError):
        raise ValueError(f"seed: expected a non-negative int or None, got {seed!r}") from None


def number(name: str, value: Any, low: float, high: float = float("inf")) -> float:
    """A finite number with low <= value < high."""
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number, got one too large for a float") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    if not low <= result < high:
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}), got {result:g}")
    return result


def above(name: str, value: Any, low: float) -> float:
    """A finite number greater than low."""
    result = number(name, value, low)
    if result == low:
        raise ValueError(f"{name}: expected a number above {low:g}, got {result:g}")
    return result
