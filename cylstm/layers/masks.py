"""The random numbers of a layer's masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._system import forks

Array = NDArray[Any]


class Masks:
    """Draws masks in place; its state (JSON values) determines the next ones."""

    def __init__(self, generator: "np.random.Generator") -> None:
        self._generator = generator
        forks.register(self)

    def reset_after_fork(self) -> None:
        """In a forked child: release NumPy's lock, which a thread of the parent may have held."""
        lock: Any = self._generator.bit_generator.lock
        lock._at_fork_reinit()  # as the standard library does with its own

    @property
    def state(self) -> Any:
        """The state of the random generator, which determines the next masks."""
        return self._generator.bit_generator.state

    @state.setter
    def state(self, state: Any) -> None:
        self._generator.bit_generator.state = state

    def below(self, mask: Array, p: float) -> None:
        """1 with probability p, else 0."""
        self._draw(mask)
        np.less(mask, p, out=mask)

    def keep(self, mask: Array, p: float) -> None:
        """0 with probability p, else 1 / (1 - p), so that the mean does not change."""
        self._draw(mask)
        np.greater_equal(mask, p, out=mask)
        mask /= 1 - p

    def _draw(self, mask: Array) -> None:
        """Fill with numbers in [0, 1)."""
        self._generator.random(out=mask, dtype=mask.dtype.type)
