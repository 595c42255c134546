"""Sequences of different length in one batch: its valid steps, in the order of computation."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks

Array = NDArray[Any]
Index = NDArray[np.intp]


T = TypeVar("T")


class _cached(Generic[T]):
    """A property that is computed once.

    Without the lock of functools.cached_property (up to Python 3.11): a child that is forked while another
    thread holds it would deadlock.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class Packing:
    """The valid steps of a batch, packed: the first steps of all sequences, then the second ones, and so on.

    Sequences are sorted by descending length, so that those which have a step t are the first
    `rows[t]`. A reversed layer reads each sequence from its last valid step.

    Parameters
    ----------
    T, B : int
        Time steps and sequences of the batch.
    lengths : ndarray of int, optional
        (B,), each between 0 and T. None: T for all.

    Attributes
    ----------
    N : int
        Valid steps, the sum of the lengths.
    rows : ndarray
        Sequences that have a step, for every step that any of them has.
    order : ndarray or None
        Position in the batch of each sequence; None: in the order of the batch.
    given : ndarray or None
        The lengths as passed by the caller.

    Examples
    --------
    >>> import numpy as np
    >>> packing = Packing(3, 2, np.array([1, 3]))
    >>> packing.N, packing.rows.tolist(), packing.order.tolist()
    (4, [2, 1, 1], [1, 0])
    >>> packing.index(reverse=False).tolist()  # rows of (T.B, features)
    [1, 0, 3, 5]
    >>> packing.index(reverse=True).tolist()
    [5, 0, 3, 1]
    """

    def __init__(self, T: int, B: int, lengths: NDArray[Any] | None = None) -> None:
        if lengths is not None:
            lengths = _checks.sequence_lengths(lengths, T, B)
        self.T, self.B = T, B
        self.given = lengths
        self.order: Index | None = None
        if lengths is None or (lengths == T).all():
            self._lengths = np.full(B, T, np.intp)
        else:
            self.order = np.argsort(-lengths, kind="stable").astype(np.intp)
            self._lengths = lengths[self.order].astype(np.intp)
        longest = int(self._lengths.max(initial=0))
        self.rows = np.searchsorted(-self._lengths, -np.arange(longest), side="left").astype(np.intp)
        self._starts = np.concatenate([[0], np.cumsum(self.rows)]).astype(np.intp)
        self.N = int(self._starts[-1])
        for array in (self.rows, self._lengths, self._starts, *(() if self.order is None else (self.order,))):
            array.flags.writeable = False  # the engine trusts what it has checked

    def __repr__(self) -> str:
        """How many steps are valid."""
        return f"<{type(self).__name__} of {self.B} sequences, {self.N} of {self.T * self.B} steps>"

    @_cached
    def lengths(self) -> Index:
        """(B,), the steps of every sequence of the batch."""
        if self.order is None:
            return self._lengths
        lengths = np.empty(self.B, np.intp)
        lengths[self.order] = self._lengths
        lengths.flags.writeable = False
        return lengths

    def is_of(self, T: int, B: int, lengths: NDArray[Any] | None) -> bool:
        """Whether it was made from these."""
        if (T, B, lengths is None) != (self.T, self.B, self.given is None):
            return False
        return lengths is None or np.array_equal(lengths, self.given)  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        """Whether it packs a batch in the same way."""
        return self is other or (isinstance(other, Packing) and other.is_of(self.T, self.B, self.given))

    __hash__ = None  # type: ignore[assignment]

    def index(self, reverse: bool) -> Index | None:
        """Rows of (T.B, features) in packed order, (N,); None: all of them, in order."""
        return self._reversed_index if reverse else self._index

    @_cached
    def _index(self) -> Index | None:
        return None if self.order is None else self._places(self._step)

    @_cached
    def _reversed_index(self) -> Index:
        return self._places(self._lengths[self._sequence] - 1 - self._step)

    def _places(self, t: Index) -> Index:
        b = self._sequence if self.order is None else self.order[self._sequence]
        places: Index = t * self.B + b
        return places

    @_cached
    def _step(self) -> Index:
        return np.repeat(np.arange(len(self.rows)), self.rows)

    @_cached
    def _sequence(self) -> Index:
        places: Index = np.arange(self.N) - self._starts[self._step]
        return places

    @_cached
    def forward_to_reverse(self) -> Index:
        """For each row in reversed order, its row in forward order."""
        place = np.empty(self.T * self.B, np.intp)
        place[slice(None) if self._index is None else self._index] = np.arange(self.N)
        rows: Index = place[self._reversed_index]
        return rows

    @_cached
    def reverse_to_forward(self) -> Index:
        """For each row in forward order, its row in reversed order: the inverse of `forward_to_reverse`."""
        rows = np.empty(self.N, np.intp)
        rows[self.forward_to_reverse] = np.arange(self.N)
        return rows

    @_cached
    def last(self) -> Index:
        """Row of each sequence's last state among (B + N) rows of states, the first B being the initial."""
        sequence = np.arange(self.B)
        step = self._lengths - 1
        rows: Index = np.where(step < 0, 0, self.B + self._starts[step]) + sequence
        return rows

    @_cached
    def last_alternating(self) -> Index:
        """The same among (2 B) rows, whose halves are written alternately."""
        rows: Index = self._lengths % 2 * self.B + np.arange(self.B)
        return rows

    def scatter(self, rows: Array, out: Array, reverse: bool = False) -> None:
        """Write packed rows (N,F) to a time-major (T,B,F) of any layout, with zeros elsewhere."""
        index = self.index(reverse)
        if index is None:
            out[...] = rows.reshape(out.shape)
            return
        if self.order is not None:
            out[...] = 0
        if self.N:
            out[index // self.B, index % self.B] = rows


class MaskedPacking(Packing):
    """The valid steps of a batch in which any steps may be masked, not only the last ones.

    Parameters
    ----------
    valid : ndarray of bool
        (T, B)
    given_packing : Packing
        That of the batch before masking.

    Examples
    --------
    >>> import numpy as np
    >>> valid = np.array([[True, False], [False, False], [True, True]])
    >>> packing = MaskedPacking(valid, Packing(3, 2))
    >>> packing.lengths.tolist(), packing.index(reverse=False).tolist()
    ([2, 1], [0, 5, 4])
    """

    def __init__(self, valid: NDArray[np.bool_], given_packing: Packing) -> None:
        T, B = valid.shape
        super().__init__(T, B, valid.sum(axis=0))
        self.valid, self.given_packing = valid, given_packing
        self._nth = np.argsort(~valid, axis=0, kind="stable")  # step of the k-th valid one, (T, B)

    @_cached
    def skipped(self) -> NDArray[np.bool_]:
        """(T, B), the masked steps of each sequence."""
        skipped: NDArray[np.bool_] = ~self.valid & (np.arange(self.T)[:, None] < self.given_packing.lengths)
        return skipped

    @_cached
    def last_valid(self) -> Index:
        """(T, B), the last valid step up to each; -1: none."""
        steps = np.where(self.valid, np.arange(self.T)[:, None], -1)
        last: Index = np.maximum.accumulate(steps, axis=0)
        return last

    def _places(self, t: Index) -> Index:
        b = self._sequence if self.order is None else self.order[self._sequence]
        places: Index = self._nth[t, b] * self.B + b
        return places

    def is_of(self, T: int, B: int, lengths: NDArray[Any] | None) -> bool:
        """False: lengths alone do not determine the masked steps."""
        return False

    def __eq__(self, other: object) -> bool:
        """Whether it packs the same steps."""
        return self is other or (isinstance(other, MaskedPacking) and np.array_equal(self.valid, other.valid))


class Batch(NamedTuple):
    """Sequences passed from layer to layer.

    Parameters
    ----------
    values : ndarray of real numbers
        (N, features), packed; or (T, B, features) of a caller, in any layout.
    packing : Packing
    donated : bool
        Whether the reader may overwrite the values, which nobody else needs.
    """

    values: Array
    packing: Packing
    donated: bool = False

    def rows_in_place(self, dtype: np.dtype[Any]) -> Array | None:
        """The packed rows (N, features), if the values are in that order and dtype already, else None."""
        values = self.values
        if values.dtype != dtype or not values.dtype.isnative or not values.flags.c_contiguous:
            return None
        if values.ndim == 3 and self.packing.index(reverse=False) is not None:
            return None
        return values.reshape(self.packing.N, values.shape[-1])

    def into(self, out: Array, reverse: bool = False) -> None:
        """Write all packed rows to out (N, features), in its dtype."""
        values, features = self.values, self.values.shape[-1]
        packed = values.ndim == 2
        own_order = self.packing.forward_to_reverse if reverse else None
        index = own_order if packed else self.packing.index(reverse)
        if index is None:
            out.reshape(values.shape)[...] = values
        elif values.dtype == out.dtype and values.flags.c_contiguous:
            np.take(values.reshape(-1, features), index, axis=0, out=out, mode="clip")
        else:  # index first, so that padding is not converted
            B = self.packing.B
            out[...] = values[index] if packed else values[index // B, index % B]
