"""Validation of sequences: tables, arrays (n, T, I), lists of arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from cylstm import _checks
from cylstm._checks import array_like
from cylstm.classification.network import Sequences
from cylstm.data import _inputs

Array = NDArray[Any]


def is_list(X: Any) -> bool:
    """Whether X is a list of arrays, or of lists of different lengths."""
    if isinstance(X, np.ndarray):
        return X.dtype == object and X.ndim == 1 and X.size > 0 and array_like.is_sequence(X[0])
    if not isinstance(X, (list, tuple)) or not X:
        return False
    if all(isinstance(part, (list, tuple)) for part in X):
        return len(set(map(len, X))) > 1
    return array_like.is_sequence(X[0])


def listed(name: str, X: Any) -> list[Array]:
    """Convert a list of arrays (T_i, I) or (T_i,) to finite arrays (T_i, I)."""
    parts = _inputs.arrays_of(name, X)
    if parts[0].ndim not in (1, 2):
        raise ValueError(f"{name}[0]: expected (T, channels) or (T,), got {parts[0].shape}")
    for i, part in enumerate(parts):
        if not part.size:
            raise ValueError(
                f"{name}[{i}]: expected at least one step and channel, got shape {part.shape}; remove it"
            )
    _inputs.check_samples(name, parts, "sample, step, channel")
    return [part if part.ndim == 2 else part[:, None] for part in parts]


def numbers(estimator: Any, name: str, X: Any) -> Array:
    """Convert X to an array of real numbers, with scikit-learn's errors where it has them."""
    try:
        return _checks.real_array(name, X)
    except TypeError:
        if not array_like.is_frame(X):
            check_array(X, allow_nd=True, ensure_2d=False, estimator=estimator, input_name=name)
        raise


def solid(estimator: Any, X: Array) -> Array:
    """Check a finite array (n, T, I)."""
    array: Array = check_array(X, allow_nd=True, ensure_all_finite=False, estimator=estimator, input_name="X")
    if 0 in array.shape:
        raise ValueError(f"X: expected at least one sample, step and channel, got shape {array.shape}")
    _inputs.check_finite("X", array, "sample, step, channel")
    return array


def table(estimator: Any, X: Any, array: Array, reset: bool) -> Array:
    """Check a finite table (n, columns), the numbers of X, and its column names if it has any."""
    if array_like.is_frame(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return alone(estimator, array)
    checked: Array = validate_data(estimator, array, reset=reset, ensure_all_finite=False)
    _inputs.check_finite("X", checked)
    return checked


def sequences(estimator: Any, X: Any, reset: bool) -> Sequences:
    """Convert X to (n, T, I) or n arrays (T_i, I); check it against `fit`, or store its shape with `reset`.

    A table (n, T) has one channel, and T features for scikit-learn. For other inputs, features are channels.
    """
    found: Sequences
    is_table = False
    if is_list(X):
        found = listed("X", X)
    else:
        array = numbers(estimator, "X", X)
        if array.ndim == 3:
            found = solid(estimator, array)
        else:
            is_table, known = True, reset or estimator._table
            checked = table(estimator, X, array, reset) if known else alone(estimator, array)
            found = checked[..., None]
    channels = found[0].shape[-1]
    if reset:
        estimator._table, estimator._channels = is_table, channels
        if not is_table:
            note_channels(estimator, channels)
    elif channels != estimator._channels:
        raise ValueError(
            f"X: expected sequences of {estimator._channels} channels, as {type(estimator).__name__} was "
            f"fitted with, got {channels}"
        )
    return found


def note_channels(estimator: Any, channels: int) -> None:
    """Store the number of channels of an X that is not a table."""
    estimator.n_features_in_ = channels
    vars(estimator).pop("feature_names_in_", None)


def alone(estimator: Any, X: Array, ensure_2d: bool = True) -> Array:
    """Check a finite table (or vector) independently of `fit`."""
    array: Array = check_array(
        X, ensure_2d=ensure_2d, ensure_all_finite=False, estimator=estimator, input_name="X"
    )
    _inputs.check_finite("X", array)
    return array
