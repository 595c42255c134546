"""What callers pass as sequences: tables, arrays (n, T, I), lists of arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from cylstm.data import _inputs
from cylstm.sequence_network import Sequences

Array = NDArray[Any]


def is_list(X: Any) -> bool:
    """Whether it is a list of arrays, or of lists of different length."""
    if isinstance(X, np.ndarray):
        return X.dtype == object and X.ndim == 1 and X.size > 0 and np.ndim(X[0]) > 0
    if not isinstance(X, (list, tuple)) or not X:
        return False
    if hasattr(X[0], "ndim"):
        return bool(X[0].ndim)
    return all(isinstance(part, (list, tuple)) for part in X) and len(set(map(len, X))) > 1


def listed(name: str, X: Any) -> list[Array]:
    """Finite arrays (T_i, I) from a list of these or of vectors (T_i,)."""
    parts = _inputs.arrays_of(name, [part if hasattr(part, "ndim") else np.asarray(part) for part in X])
    if parts[0].ndim not in (1, 2):
        raise ValueError(f"{name}[0]: expected (T, channels) or (T,), got {parts[0].shape}")
    for i, part in enumerate(parts):
        if not part.size:
            raise ValueError(
                f"{name}[{i}]: expected at least one step and channel, got shape {part.shape}; leave it out"
            )
    _inputs.check_samples(name, parts, "sample, step, channel")
    return [part if part.ndim == 2 else part[:, None] for part in parts]


def solid(estimator: Any, X: Any) -> Array:
    """A finite array (n, T, I) of numbers."""
    array: Array = check_array(X, allow_nd=True, ensure_all_finite=False, estimator=estimator, input_name="X")
    if 0 in array.shape:
        raise ValueError(f"X: expected at least one sample, step and channel, got shape {array.shape}")
    _inputs.check_finite("X", array, "sample, step, channel")
    return array


def sequences(estimator: Any, X: Any, reset: bool) -> Sequences:
    """X as (n, T, I) or n arrays (T_i, I), checked to be what the estimator has seen; or noted, with reset.

    A table (n, T) has one channel, and T features in scikit-learn's count; of all else the features are the
    channels.
    """
    if isinstance(X, (list, tuple)) and not is_list(X):
        X = np.asarray(X)
    found: Sequences
    if is_list(X):
        found, table = listed("X", X), False
    elif getattr(X, "ndim", 2) == 3:
        found, table = solid(estimator, X), False
    else:
        table = True
        checked = validate_data if reset or estimator._table else _checked_alone
        found = checked(estimator, X, reset=reset)[..., None]
    channels = found[0].shape[-1]
    if reset:
        estimator._table, estimator._channels = table, channels
        if not table:
            note_channels(estimator, channels)
    elif channels != estimator._channels:
        raise ValueError(
            f"X: expected sequences of {estimator._channels} channels, as {type(estimator).__name__} was "
            f"fitted with, got {channels}"
        )
    return found


def note_channels(estimator: Any, channels: int) -> None:
    """Of X without a table's columns, which may have names."""
    estimator.n_features_in_ = channels
    vars(estimator).pop("feature_names_in_", None)


def _checked_alone(estimator: Any, X: Any, reset: bool) -> Array:
    array: Array = check_array(X, estimator=estimator, input_name="X")
    return array
