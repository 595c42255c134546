"""Sequences of different length in one batch: its real steps, in the order in which the engine takes them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]


class Packing:
    """The real steps of a batch, packed: all sequences' first steps, then the second ones, and so on.

    Sequences stand in descending order of length, so that those which have a step t are the first
    `rows[t]` of them. A reversed layer reads each sequence from its own end.

    Parameters
    ----------
    T, B : int
        Time steps and sequences of the batch.
    lengths : ndarray of int, optional
        (B,), each between 0 and T. None: T for all.

    Attributes
    ----------
    N : int
        Real steps, the sum of the lengths.
    rows : ndarray
        Sequences that have a step, for every step that any of them has.
    order : ndarray or None
        Position in the batch of each sequence; None: as they stand.

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
        self.T, self.B = T, B
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

    def index(self, reverse: bool) -> Index | None:
        """Rows of (T.B, features) in packed order, (N,); None: all of them as they stand."""
        if self.order is None and not reverse:
            return None
        step = np.repeat(np.arange(len(self.rows)), self.rows)
        sequence = np.arange(self.N) - self._starts[step]
        t = self._lengths[sequence] - 1 - step if reverse else step
        b = sequence if self.order is None else self.order[sequence]
        index: Index = t * self.B + b
        return index

    def reversal(self) -> tuple[Index, Index]:
        """Packed forward rows in the order of the reversed ones, and the other way round."""
        forward, backward = self.index(False), self.index(True)
        assert backward is not None
        place = np.empty(self.T * self.B, np.intp)
        place[slice(None) if forward is None else forward] = np.arange(self.N)
        there = place[backward]
        back = np.empty(self.N, np.intp)
        back[there] = np.arange(self.N)
        return there, back

    def last(self) -> Index:
        """Row of each sequence's last state among (B + N) rows of states, the first B being the initial."""
        sequence = np.arange(self.B)
        step = self._lengths - 1
        rows: Index = np.where(step < 0, 0, self.B + self._starts[step]) + sequence
        return rows

    def last_in_turn(self) -> Index:
        """The same among (2 B) rows, blocks being written in turn."""
        rows: Index = self._lengths % 2 * self.B + np.arange(self.B)
        return rows
