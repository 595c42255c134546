"""Sequences of different length, packed without padding and unpacked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.sequences.packing import Packing

Array = NDArray[Any]


class PackedSequences(NamedTuple):
    """Sequences of different length without padding; see `cylstm.data.pack` and `unpack`.

    A loss takes the rows: `value, dy = loss(y.rows, target.rows)`, then
    `model.backward(PackedSequences(dy, y.packing))`.

    Parameters
    ----------
    rows : ndarray
        (N, features), the valid steps: the first steps of all sequences, then the second ones, and so on,
        the longest sequence first.
    packing : Packing
        Which row is which.
    """

    rows: Array
    packing: Packing

    @property
    def lengths(self) -> NDArray[np.intp]:
        """(B,), the steps of every sequence."""
        return self.packing.lengths


def pack(sequences: Sequence[Any]) -> PackedSequences:
    """Pack sequences for layers: only valid steps, in the order of computation.

    Parameters
    ----------
    sequences : sequence of arrays of real numbers
        Each (T_b, features), in any order of length; T_b may be 0.

    Returns
    -------
    PackedSequences
        For a layer or a model instead of a padded array; y comes back in the same form.

    Raises
    ------
    ValueError, TypeError
        If there is no sequence, or one is not an array of real numbers of as many features as the first.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> packed = cylstm.data.pack([np.ones((2, 3)), np.ones((5, 3))])
    >>> packed.rows.shape, packed.lengths.tolist()
    ((7, 3), [2, 5])
    >>> y, _ = cylstm.GRU(3, 4, seed=0)(packed)
    >>> [part.shape for part in cylstm.data.unpack(y)]
    [(2, 4), (5, 4)]
    """
    arrays = [_checks.real_array(f"sequences[{b}]", sequence) for b, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences: expected at least one, got none")
    features = arrays[0].shape[-1] if arrays[0].ndim else 0
    for b, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1] != features:
            raise ValueError(f"sequences[{b}]: expected (T, {features}), got {array.shape}")
    lengths = np.array([len(array) for array in arrays], np.intp)
    packing = Packing(int(lengths.max()), len(arrays), lengths)
    rows = np.concatenate(arrays)
    return PackedSequences(rows[_places(packing)], packing)


def unpack(packed: PackedSequences) -> list[Array]:
    """The sequences that `pack` packed, each (T_b, features), in their original order."""
    if not isinstance(packed, PackedSequences):
        raise TypeError(f"packed: expected what cylstm.data.pack returns, got {type(packed).__name__}")
    rows = np.empty_like(packed.rows)
    rows[_places(packed.packing)] = packed.rows
    return np.split(rows, np.cumsum(packed.lengths)[:-1])


def _places(packing: Packing) -> NDArray[np.intp]:
    """Index of each packed row in the concatenated sequences."""
    index = packing.index(reverse=False)
    if index is None:
        index = np.arange(packing.N)
    starts = np.cumsum(packing.lengths) - packing.lengths
    places: NDArray[np.intp] = starts[index % packing.B] + index // packing.B
    return places
