"""Base class of sources of minibatches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks

Array = NDArray[Any]
Index = NDArray[np.intp]


class Minibatch(NamedTuple):
    """Sequences for one optimiser step, with their targets.

    Parameters
    ----------
    x : ndarray
        (T, B, I) real numbers, or (T, B) ids.
    target : ndarray or list of ndarray
        Per step (T, B, ...), per sequence (B, ...); or a list of B arrays of different lengths.
    lengths : ndarray of int, optional
        (B,), the number of valid steps of each sequence; x and a target per step are zero-padded after them.
        By default all sequences have T steps.
    continues : bool
        Whether each sequence continues the one in the same row of the previous minibatch, so that the state
        is carried over.
    """

    x: Array
    target: Array | list[Array]
    lengths: Array | None = None
    continues: bool = False


class Source(ABC):
    """Base class of sources of minibatches, which can be iterated over any number of times.

    A subclass implements `targets`, `check`, and:

    `_plan(rng)`
        A list with one entry per minibatch of an epoch, in order. It draws all random numbers.
    `_batch(part)`
        The minibatch of one entry of the plan. It draws no random numbers.

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
        """Number of minibatches in an epoch."""

    @property
    @abstractmethod
    def targets(self) -> Any:
        """All targets, as one array or a list, which the loss checks before training."""

    def __repr__(self) -> str:
        """Show the number of minibatches in an epoch."""
        return f"<{type(self).__name__} of {len(self)} minibatches>"

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError for values that are unusable for training: NaN, infinity, ids below 0."""

    @abstractmethod
    def _plan(self, rng: "np.random.Generator | None") -> Sequence[Any]: ...

    @abstractmethod
    def _batch(self, part: Any) -> Minibatch: ...

    def epoch(self, rng: "np.random.Generator | None" = None, start: int = 0) -> Iterator[Minibatch]:
        """Iterate once over all minibatches.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Generator for shuffling. All random numbers of the epoch are drawn by this call, so that the same
            state gives the same minibatches for any `start`. By default the data are not shuffled.
        start : int
            The first minibatch, to resume in the middle of an epoch. Earlier ones are skipped at no cost.

        Raises
        ------
        TypeError, ValueError
            If rng is not a Generator, or start is not between 0 and `len`.
        """
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator or None, got {type(rng).__name__}")
        if _checks.natural("start", start) > len(self):
            raise ValueError(f"start: expected 0 to {len(self)}, got {start}")
        plan = self._plan(rng)
        return (self._batch(plan[i]) for i in range(start, len(plan)))


def in_batches(order: Index, batch_size: int) -> list[Index]:
    """Cut sample indices into minibatches; the last may be smaller."""
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def order_of(n: int, rng: "np.random.Generator | None") -> Index:
    """Return the indices of n samples, shuffled if there is a generator."""
    return np.arange(n) if rng is None else rng.permutation(n)


def time_major(sequences: Array | list[Array], index: Index) -> Array:
    """Stack the chosen sequences (T_i, ...) to (T, B, ...), with zero padding after shorter ones."""
    chosen = [sequences[i] for i in index]
    longest = max(map(len, chosen))
    out = np.zeros((longest, len(chosen), *chosen[0].shape[1:]), chosen[0].dtype)
    for b, sequence in enumerate(chosen):
        out[: len(sequence), b] = sequence
    return out
