"""What a trainer draws its minibatches from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks

Array = NDArray[Any]
Index = NDArray[np.intp]


class Minibatch(NamedTuple):
    """Sequences for one optimiser step, and what the model should say to them.

    Parameters
    ----------
    x : ndarray
        (T, B, I) real numbers, or (T, B) ids.
    target : ndarray or list of ndarray
        Per step (T, B, ...), per sequence (B, ...); or a list of B arrays of different length.
    lengths : ndarray of int, optional
        (B,), the real steps of each sequence; x, and a target per step, are 0 after them. None: T for all.
    continues : bool
        Whether each sequence goes on where the same row of the minibatch before ended, so that the state
        is to be carried over.
    """

    x: Array
    target: Array | list[Array]
    lengths: Array | None = None
    continues: bool = False


class Source(ABC):
    """A set of minibatches that can be gone through any number of times.

    A subclass gives `targets`, `check`, and:

    `_plan(rng)`
        What each minibatch of an epoch consists of, in order; all random numbers are drawn here.
    `_batch(part)`
        The minibatch of one entry of the plan; it draws nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import Minibatch, Source
    >>> class Noise(Source):
    ...     targets = np.zeros((4, 1))
    ...     def __len__(self):
    ...         return 2
    ...     def check(self):
    ...         pass
    ...     def _plan(self, rng):
    ...         return [1, 2] if rng is None else rng.integers(0, 99, 2)
    ...     def _batch(self, seed):
    ...         return Minibatch(np.random.default_rng(seed).normal(size=(5, 2, 3)), np.zeros((2, 1)))
    >>> [batch.x.shape for batch in Noise().epoch(np.random.default_rng(0))]
    [(5, 2, 3), (5, 2, 3)]
    """

    @abstractmethod
    def __len__(self) -> int:
        """Minibatches of an epoch."""

    @property
    @abstractmethod
    def targets(self) -> Any:
        """All targets, one array or a list, for a loss to check before training."""

    def __repr__(self) -> str:
        """How many minibatches an epoch has."""
        return f"<{type(self).__name__} of {len(self)} minibatches>"

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError for values that nothing can be learnt from: NaN, infinity, ids below 0."""

    @abstractmethod
    def _plan(self, rng: "np.random.Generator | None") -> Sequence[Any]: ...

    @abstractmethod
    def _batch(self, part: Any) -> Minibatch: ...

    def epoch(self, rng: "np.random.Generator | None" = None, start: int = 0) -> Iterator[Minibatch]:
        """Every minibatch once.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Shuffles. All that an epoch needs of it is drawn by this call, so the same state of it gives
            the same minibatches, whatever `start`. None: in the order in which the data were given.
        start : int
            The first minibatch; those before it are not made. To go on in the middle of an epoch.

        Raises
        ------
        TypeError, ValueError
            If rng is no Generator, or start is not between 0 and `len`.
        """
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator or None, got {type(rng).__name__}")
        if _checks.natural("start", start) > len(self):
            raise ValueError(f"start: expected 0 to {len(self)}, got {start}")
        plan = self._plan(rng)
        return (self._batch(plan[i]) for i in range(start, len(plan)))


def in_batches(order: Index, batch_size: int) -> list[Index]:
    """Samples in this order, cut into minibatches; the last may be smaller."""
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def order_of(n: int, rng: "np.random.Generator | None") -> Index:
    """All of n samples once, shuffled if there is a generator."""
    return np.arange(n) if rng is None else rng.permutation(n)


def time_major(sequences: Array | list[Array], index: Index) -> Array:
    """The chosen sequences (T_i, ...) side by side: (T, B, ...), with 0 after the shorter ones."""
    chosen = [sequences[i] for i in index]
    longest = max(map(len, chosen))
    out = np.zeros((longest, len(chosen), *chosen[0].shape[1:]), chosen[0].dtype)
    for b, sequence in enumerate(chosen):
        out[: len(sequence), b] = sequence
    return out
