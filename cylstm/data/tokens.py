"""Source of minibatches from one long sequence of ids, for language models."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.data import _inputs
from cylstm.data.source import Minibatch, Source

Array = NDArray[Any]


class TokenStream(Source):
    """Parallel streams of a text; the target of each token is the next token.

    The ids are cut into `batch_size` contiguous streams of equal length. Each minibatch continues where the
    previous one ended, so the state is carried over. Fewer than `batch_size` tokens at the end are dropped.

    Parameters
    ----------
    ids : array of int
        (n,), n > batch_size. Not copied: changes to it change the minibatches.
    batch_size : int
        Number of streams, the B of every minibatch.
    length : int
        Steps of a minibatch; the last one may be shorter.

    Raises
    ------
    ValueError, TypeError
        If ids is not a vector of integers, or too short.

    Notes
    -----
    Streams are never shuffled: the generator passed to `epoch` is not used.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import TokenStream
    >>> source = TokenStream(np.arange(12), batch_size=2, length=3)
    >>> for batch in source.epoch():
    ...     print(batch.x.T.tolist(), batch.target.T.tolist(), batch.continues)
    [[0, 1, 2], [5, 6, 7]] [[1, 2, 3], [6, 7, 8]] False
    [[3, 4], [8, 9]] [[4, 5], [9, 10]] True
    """

    def __init__(self, ids: Any, batch_size: int, length: int) -> None:
        self.batch_size, self.length = (
            _checks.positive("batch_size", batch_size),
            _checks.positive("length", length),
        )
        self.ids = _checks.real_array("ids", ids)
        if self.ids.ndim != 1 or self.ids.dtype.kind not in "iu":
            raise ValueError(f"ids: expected a vector of ints, got {self.ids.shape} {self.ids.dtype}")
        steps = (len(self.ids) - 1) // self.batch_size
        if steps < 1:
            raise ValueError(
                f"ids: expected more than batch_size = {self.batch_size} of them, got {len(self.ids)}"
            )
        used = steps * self.batch_size
        self._x = self.ids[:used].reshape(self.batch_size, steps)
        self._y = self.ids[1 : used + 1].reshape(self.batch_size, steps)

    def __len__(self) -> int:
        """Number of minibatches in an epoch."""
        return -(-self._x.shape[1] // self.length)

    @property
    def targets(self) -> Array:
        """All targets, (batch_size, steps)."""
        return self._y

    def check(self) -> None:
        """Raise ValueError for an id below 0."""
        _inputs.check_ids("ids", self.ids)

    def _plan(self, rng: "np.random.Generator | None") -> range:
        return range(0, self._x.shape[1], self.length)

    def _batch(self, first: int) -> Minibatch:
        steps = slice(first, first + self.length)
        x, y = (np.ascontiguousarray(ids[:, steps].T) for ids in (self._x, self._y))
        return Minibatch(x, y, continues=first > 0)
