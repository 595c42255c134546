"""What callers pass as data: arrays, data frames, lists of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks

Array = NDArray[Any]


def array_of(name: str, value: Any) -> Array:
    """An array of real numbers from an array or a data frame, without a copy where that can be."""
    return _checks.real_array(name, _numbers(name, value) if hasattr(value, "to_numpy") else value)


def _numbers(name: str, frame: Any) -> Any:
    """The numbers of a data frame, or of one column of it."""
    array = frame.to_numpy()
    if array.dtype != object:
        return array
    dtypes = frame.dtypes.items() if array.ndim == 2 else [(frame.name, frame.dtype)]
    others = [column for column, dtype in dtypes if getattr(dtype, "kind", "O") not in "fiub"]
    if others:
        raise TypeError(f"{name}: expected columns of real numbers, got others: {others}")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)  # columns that mark their gaps elsewhere


def is_list(value: Any) -> bool:
    """Whether it is a list of arrays, and not of numbers."""
    listed = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object)
    if not listed or not len(value):
        return False
    return isinstance(value[0], (list, tuple)) or getattr(value[0], "ndim", 0) > 0


def arrays_of(name: str, value: Sequence[Any]) -> list[Array]:
    """The arrays of a list: of one dtype, and of the same shape but for their length."""
    arrays = [array_of(f"{name}[{i}]", part) for i, part in enumerate(value)]
    for i, array in enumerate(arrays):
        if not array.ndim or array.shape[1:] != arrays[0].shape[1:]:
            expected = ", ".join(["length", *map(str, arrays[0].shape[1:])])
            raise ValueError(f"{name}[{i}]: expected ({expected}), as {name}[0] is, got {array.shape}")
    filled = [array for array in arrays if array.size] or arrays  # [] would turn all labels into floats
    dtype = np.result_type(*{array.dtype for array in filled})
    return [array.astype(dtype, copy=False) for array in arrays]


def either_of(name: str, value: Any) -> Array | list[Array]:
    """A list of arrays from a list of arrays, an array from anything else."""
    return arrays_of(name, value) if is_list(value) else array_of(name, value)


def check_finite(name: str, array: Array, axes: str = "") -> None:
    """Refuse NaN and infinity, naming the first place of one; axes says what the indices are."""
    if array.dtype.kind != "f" or not array.size:
        return
    with np.errstate(invalid="ignore"):
        if np.isfinite(array.min()) and np.isfinite(array.max()):  # needs no second array of that size
            return
    place = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
    index, meaning = ", ".join(str(int(i)) for i in place), f" ({axes})" if axes else ""
    raise ValueError(f"{name}[{index}]{meaning}: expected a finite number, got {array[place]}")


def check_samples(name: str, value: Array | list[Array], axes: str = "") -> None:
    """The same for an array or a list of arrays, whose own number is the first of the axes."""
    if isinstance(value, list):
        for i, array in enumerate(value):
            check_finite(f"{name}[{i}]", array, axes.partition(", ")[2])
    else:
        check_finite(name, value, axes)


def check_ids(name: str, value: Array | list[Array]) -> None:
    """Refuse ids below 0."""
    for i, array in enumerate(value if isinstance(value, list) else [value]):
        if array.min() < 0:
            where = f"{name}[{i}]" if isinstance(value, list) else name
            raise ValueError(f"{where}: expected ids, 0 or more, got {array.min()}")
