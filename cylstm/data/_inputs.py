"""What callers pass as data: arrays, data frames, lists of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import array_like
from cylstm._checks.options import warn_caller

Array = NDArray[Any]
MIN_PAIRS = 50  # neighbours in time, from which a correlation tells something
CORRELATED = 0.3  # of neighbours: measurements have more, ids less


def is_list(value: Any) -> bool:
    """Whether it is a list of arrays, and not of numbers."""
    listed = isinstance(value, (list, tuple)) or (
        isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1
    )
    return bool(listed and len(value) and array_like.is_sequence(value[0]))


def arrays_of(name: str, value: Sequence[Any], gaps: bool = False) -> list[Array]:
    """The arrays of a list: of one dtype, and of one shape but for their length; gaps: NaN is missing."""
    arrays = [_checks.real_array(f"{name}[{i}]", part, gaps) for i, part in enumerate(value)]
    for i, array in enumerate(arrays):
        if not array.ndim or array.shape[1:] != arrays[0].shape[1:]:
            expected = ", ".join(["length", *map(str, arrays[0].shape[1:])])
            raise ValueError(f"{name}[{i}]: expected ({expected}), as {name}[0] is, got {array.shape}")
    filled = [array for array in arrays if array.size] or arrays  # [] would turn all labels into floats
    dtype = np.result_type(*{array.dtype for array in filled})
    return [array.astype(dtype, copy=False) for array in arrays]


def either_of(name: str, value: Any) -> Array | list[Array]:
    """A list of arrays from a list of arrays, an array from anything else."""
    return arrays_of(name, value) if is_list(value) else _checks.real_array(name, value)


def check_finite(name: str, array: Array, axes: str = "", gaps: bool = False) -> None:
    """Refuse NaN, unless there may be gaps, and infinity, naming the first place; axes: of the indices."""
    if array.dtype.kind != "f" or not array.size:
        return
    least, most = (np.fmin, np.fmax) if gaps else (np.minimum, np.maximum)
    with np.errstate(invalid="ignore"):  # needs no second array of that size
        bounds = np.array([least.reduce(array, axis=None), most.reduce(array, axis=None)])
    if not _unusable(bounds, gaps).any():
        return
    place = np.unravel_index(int(np.argmax(_unusable(array, gaps))), array.shape)
    index, meaning = ", ".join(str(int(i)) for i in place), f" ({axes})" if axes else ""
    fix = "; fill in missing values (NaN) or leave them out" if np.isnan(array[place]) else ""
    raise ValueError(f"{name}[{index}]{meaning}: expected a finite number, got {array[place]}{fix}")


def _unusable(array: Array, gaps: bool) -> Array:
    return np.isinf(array) if gaps else ~np.isfinite(array)


def check_samples(name: str, value: Array | list[Array], axes: str = "", gaps: bool = False) -> None:
    """The same for an array or a list of arrays, whose own number is the first of the axes."""
    if isinstance(value, list):
        for i, array in enumerate(value):
            check_finite(f"{name}[{i}]", array, axes.partition(", ")[2], gaps)
    else:
        check_finite(name, value, axes, gaps)


def check_ids(name: str, value: Array | list[Array]) -> None:
    """Refuse ids below 0."""
    for i, array in enumerate(value if isinstance(value, list) else [value]):
        if array.min() < 0:
            where = f"{name}[{i}]" if isinstance(value, list) else name
            raise ValueError(f"{where}: expected ids, 0 or more, got {array.min()}")


def warn_of_ids(name: str, sequences: Array | list[Array]) -> None:
    """Warn that ints (T, 1) which look like ids of symbols are read as measurements.

    Ids are 0 or more, come again and again, and neighbours in time are no closer to each other than others:
    measurements mostly are.
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
        f"{name}: ints that look like ids of symbols are read as measurements; for ids train a model that "
        f"begins with cylstm.Embedding, for measurements pass {name}.astype(float), which says so"
    )


def _without_padding(values: Array) -> Array:
    """Without the runs of one value at the end and at the beginning."""
    (others,) = np.nonzero(values != values[-1])
    values = values[: others[-1] + 1 if others.size else 0]
    (others,) = np.nonzero(values != values[:1])
    return values[others[0] :] if others.size else values
