"""Validation of input data: arrays, data frames, lists of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import array_like
from cylstm._checks.options import warn_caller

Array = NDArray[Any]
MIN_PAIRS = 50  # pairs of consecutive values needed to estimate a correlation
CORRELATED = 0.3  # lag-1 autocorrelation: measurements are above it, ids below


def is_list(value: Any) -> bool:
    """Whether `value` is a list of arrays, as opposed to a list of numbers."""
    listed = isinstance(value, (list, tuple)) or (
        isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1
    )
    return bool(listed and len(value) and array_like.is_sequence(value[0]))


def arrays_of(name: str, value: Sequence[Any], gaps: bool = False) -> list[Array]:
    """Convert a list to arrays of one dtype that differ in length only; with `gaps`, NaN may occur."""
    arrays = [_checks.real_array(f"{name}[{i}]", part, gaps) for i, part in enumerate(value)]
    for i, array in enumerate(arrays):
        if not array.ndim or array.shape[1:] != arrays[0].shape[1:]:
            expected = ", ".join(["length", *map(str, arrays[0].shape[1:])])
            raise ValueError(f"{name}[{i}]: expected ({expected}), as {name}[0] is, got {array.shape}")
    filled = [array for array in arrays if array.size] or arrays  # an empty list is float64: ignore its dtype
    dtype = np.result_type(*{array.dtype for array in filled})
    return [array.astype(dtype, copy=False) for array in arrays]


def either_of(name: str, value: Any) -> Array | list[Array]:
    """Convert a list of arrays to a list of arrays, and anything else to one array."""
    return arrays_of(name, value) if is_list(value) else _checks.real_array(name, value)


def check_finite(name: str, array: Array, axes: str = "", gaps: bool = False) -> None:
    """Raise ValueError for infinity and, unless `gaps`, for NaN; `axes` names the indices in the message."""
    if array.dtype.kind != "f" or not array.size:
        return
    minimum, maximum = (np.fmin, np.fmax) if gaps else (np.minimum, np.maximum)
    with np.errstate(invalid="ignore"):  # reductions allocate no temporary of the size of `array`
        bounds = np.array([minimum.reduce(array, axis=None), maximum.reduce(array, axis=None)])
    if not _is_invalid(bounds, gaps).any():
        return
    place = np.unravel_index(int(np.argmax(_is_invalid(array, gaps))), array.shape)
    index, meaning = ", ".join(str(int(i)) for i in place), f" ({axes})" if axes else ""
    fix = "; impute or drop missing values (NaN)" if np.isnan(array[place]) else ""
    raise ValueError(f"{name}[{index}]{meaning}: expected a finite number, got {array[place]}{fix}")


def _is_invalid(array: Array, gaps: bool) -> Array:
    return np.isinf(array) if gaps else ~np.isfinite(array)


def check_samples(name: str, value: Array | list[Array], axes: str = "", gaps: bool = False) -> None:
    """Apply `check_finite` to an array or to each array of a list; the first of `axes` is the list index."""
    if isinstance(value, list):
        for i, array in enumerate(value):
            check_finite(f"{name}[{i}]", array, axes.partition(", ")[2], gaps)
    else:
        check_finite(name, value, axes, gaps)


def check_ids(name: str, value: Array | list[Array]) -> None:
    """Raise ValueError for ids below 0."""
    for i, array in enumerate(value if isinstance(value, list) else [value]):
        if array.min() < 0:
            where = f"{name}[{i}]" if isinstance(value, list) else name
            raise ValueError(f"{where}: expected ids, 0 or more, got {array.min()}")


def warn_of_ids(name: str, sequences: Array | list[Array]) -> None:
    """Warn if integers of shape (T, 1) look like symbol ids, because they are treated as measurements.

    Ids are non-negative and repeat often, and consecutive ids are uncorrelated. Consecutive measurements are
    usually correlated.
    """
    if sequences[0].dtype.kind not in "iu" or sequences[0].shape[-1] != 1:
        return
    some = range(0, len(sequences), max(1, len(sequences) // 256))
    parts = [_without_padding(sequences[i][:1024, 0]).astype(np.float64) for i in some]
    before = np.concatenate([part[:-1] for part in parts])
    after = np.concatenate([part[1:] for part in parts])
    distinct = len(np.unique(before))
    if len(before) < MIN_PAIRS or not 3 <= distinct <= len(before) / 2 or before.min() < 0:
        return
    if abs(np.corrcoef(before, after)[0, 1]) > CORRELATED:
        return
    warn_caller(
        f"{name}: integers that look like symbol ids are treated as measurements; for ids, train a model "
        f"that starts with cylstm.Embedding; otherwise pass {name}.astype(float) to silence this warning"
    )


def _without_padding(values: Array) -> Array:
    """Strip the run of equal values at each end."""
    (others,) = np.nonzero(values != values[-1])
    values = values[: others[-1] + 1 if others.size else 0]
    (others,) = np.nonzero(values != values[:1])
    return values[others[0] :] if others.size else values
