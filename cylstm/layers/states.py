"""States of models: arrays in nested tuples, (L.D, B, width) each, with None where a layer has no state."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def arrays(state: Any) -> list[Array]:
    """All arrays of a nested state."""
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state or () for array in arrays(part)]


def assign(state: Any, values: Any) -> None:
    """Write values into a state's arrays; None leaves a part as it is."""
    initialize(state, values, None)


def initialize(state: Any, values: Any, first: Any) -> None:
    """Write values into a state's arrays, or those of `first` where they are None."""
    if isinstance(state, np.ndarray):
        value = first if values is None else values
        if value is not None:
            state[...] = value
        return
    for k, part in enumerate(state or ()):
        initialize(part, None if values is None else values[k], None if first is None else first[k])


def row(state: Any, b: int) -> Any:
    """The state of one sequence, (L.D, 1, width); views."""
    if isinstance(state, tuple):
        return tuple(row(part, b) for part in state)
    return None if state is None else state[:, b : b + 1]


def copied(state: Any) -> Any:
    """A deep copy of a state."""
    if isinstance(state, tuple):
        return tuple(map(copied, state))
    return None if state is None else state.copy()
