"""The random masks of a layer, for dropout and zoneout."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._system import forks

Array = NDArray[Any]


class Masks:
    """Generator of random masks, drawn in place."""

    def __init__(self, generator: "np.random.Generator") -> None:
        self._generator = generator
        forks.register(self)

    def reset_after_fork(self) -> None:
        """Release NumPy's lock in a forked child, as a thread of the parent may have held it."""
        lock: Any = self._generator.bit_generator.lock
        lock._at_fork_reinit()  # as the standard library does for its locks

    @property
    def state(self) -> Any:
        """The state of the random generator, as JSON values."""
        return self._generator.bit_generator.state

    @state.setter
    def state(self, state: Any) -> None:
        self._generator.bit_generator.state = state

    def draw_bernoulli(self, mask: Array, p: float) -> None:
        """Draw a mask: 1 with probability p, else 0."""
        self._draw(mask)
        np.less(mask, p, out=mask)

    def draw_dropout(self, mask: Array, p: float) -> None:
        """Draw a mask: 0 with probability p, else 1 / (1 - p), which has mean 1."""
        self._draw(mask)
        np.greater_equal(mask, p, out=mask)
        mask /= 1 - p

    def _draw(self, mask: Array) -> None:
        """Fill with uniform numbers in [0, 1)."""
        self._generator.random(out=mask, dtype=mask.dtype.type)
