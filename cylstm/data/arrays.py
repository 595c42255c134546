"""Source of minibatches from arrays or lists of arrays."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm.data import _inputs
from cylstm.data.source import Index, Minibatch, Source, in_batches, order_of, time_major

Array = NDArray[Any]
BUCKET = 1.1  # ratio of the longest to the shortest sequence of a bucket: little padding, much shuffling


class Arrays(Source):
    """Samples, each a sequence with a target.

    Parameters
    ----------
    x : array, data frame or list of arrays
        Batch-first: (n, T, I) real numbers or (n, T) integer ids; or a list of n arrays (T_i, I) or (T_i,)
        of different lengths.
    target : array, data frame or list of arrays
        Per step (n, T, ...) or n arrays (T_i, ...); or per sequence (n, ...). A list that is not per step,
        such as n arrays of labels for CTC, stays a list in the minibatch.
    batch_size : int
        Sequences in a minibatch; the last minibatch may be smaller.
    target_per : {"step", "sequence"}, optional
        By default, an array is per step if its second axis is as long as that of x and it has three axes, or
        two axes and an integer dtype; a list is per step if each array is as long as that of x.

    Raises
    ------
    ValueError, TypeError
        If there are no samples, a sample has no steps, a shape is not as above, the numbers of samples or
        steps differ, or a value is not a real number.

    Notes
    -----
    When shuffled, sequences of a list are grouped with others of similar length (within about 10 %) to limit
    padding. Without shuffling, they keep the given order.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import Arrays
    >>> source = Arrays([np.ones((5, 2)), np.ones((3, 2)), np.ones((4, 2))], [0, 1, 1], batch_size=2)
    >>> [(batch.x.shape, batch.target.tolist(), batch.lengths.tolist()) for batch in source.epoch()]
    [((5, 2, 2), [0, 1], [5, 3]), ((4, 1, 2), [1], [4])]
    """

    def __init__(
        self,
        x: Any,
        target: Any,
        batch_size: int = 32,
        *,
        target_per: Literal["step", "sequence"] | None = None,
    ) -> None:
        self.batch_size = _checks.positive("batch_size", batch_size)
        self.x = _sequences(x)
        self.target = _inputs.either_of("target", target)
        samples = len(self.target) if isinstance(self.target, list) or self.target.ndim else 0
        if samples != len(self.x):
            raise ValueError(f"target: expected {len(self.x)} samples, as x has, got {samples}")
        self.lengths = np.array([len(part) for part in self.x], np.intp)
        if target_per not in (None, "step", "sequence"):
            raise ValueError(f"target_per: expected 'step', 'sequence' or None, got {shown(target_per)}")
        self.per_step = self._is_per_step() if target_per is None else target_per == "step"
        if self.per_step:
            self._check_steps()

    def _is_per_step(self) -> bool:
        """Infer from the shapes whether targets are per step."""
        if isinstance(self.target, list):
            if self.target[0].ndim > 1:  # labels have one axis
                return True
            as_long = np.array([len(part) for part in self.target]) == self.lengths
            if as_long.mean() > 0.5 and not as_long.all():
                first = int(np.argmin(as_long))
                raise ValueError(
                    f"target: as long as x in {as_long.sum()} of {len(as_long)} samples, but not in sample "
                    f"{first}: {len(self.target[first])} and {self.lengths[first]}; expected all or few; "
                    "pass target_per='step' or 'sequence'"
                )
            return bool(as_long.all())
        if self.target.ndim < 2 or not (self.lengths == self.target.shape[1]).all():
            return False
        return self.target.ndim > 2 or self.target.dtype.kind in "iub"

    def _check_steps(self) -> None:
        hint = "one of each sequence needs a model that pools over time, or a loss with steps='last'"
        if isinstance(self.x, np.ndarray) and isinstance(self.target, np.ndarray):
            n, T = self.x.shape[:2]
            if self.target.shape[:2] != (n, T):
                raise ValueError(
                    f"target: expected ({n}, {T}, ...), one of each step of x, "
                    f"got {self.target.shape}; {hint}"
                )
            return
        for i, (part, steps) in enumerate(zip(self.target, self.lengths, strict=True)):
            if not np.ndim(part) or len(part) != steps:
                raise ValueError(
                    f"target[{i}]: expected {steps} steps, as x[{i}] has, got shape {np.shape(part)}; {hint}"
                )

    def __len__(self) -> int:
        """Number of minibatches in an epoch."""
        return -(-len(self.x) // self.batch_size)

    @property
    def targets(self) -> Array | list[Array]:
        """All targets, batch-first, or a list."""
        return self.target

    def check(self) -> None:
        """Raise ValueError for NaN or infinity in x or target, or an id in x below 0."""
        _inputs.check_samples("x", self.x, "sample, step, feature")
        _inputs.check_samples("target", self.target)
        if self.x[0].ndim == 1:
            _inputs.check_ids("x", self.x)

    def _plan(self, rng: "np.random.Generator | None") -> list[Index]:
        order = order_of(len(self.x), rng)
        if rng is None or not isinstance(self.x, list):
            return in_batches(order, self.batch_size)
        bucket = (np.log(self.lengths) // np.log(BUCKET))[order]
        order = order[np.argsort(bucket, kind="stable")]
        sizes = np.full(len(self), self.batch_size)
        # The smaller minibatch is at a random place: at the end it would always hold the longest sequences.
        sizes[rng.integers(len(self))] -= sizes.sum() - len(order)
        batches = np.split(order, np.cumsum(sizes)[:-1])
        return [batches[i] for i in rng.permutation(len(batches))]

    def _batch(self, part: Index) -> Minibatch:
        x, lengths = time_major(self.x, part), self.lengths[part] if isinstance(self.x, list) else None
        if self.per_step:
            return Minibatch(x, time_major(self.target, part), lengths)
        target = [self.target[i] for i in part] if isinstance(self.target, list) else self.target[part]
        return Minibatch(x, target, lengths)


def _sequences(x: Any) -> Array | list[Array]:
    """Convert x to an array (n, T, I) or (n, T), or to a list of (T_i, I) or (T_i,)."""
    sequences = _inputs.either_of("x", x)
    if isinstance(sequences, list):
        shapes, got, dtype = "(T, I) real numbers or (T,) ids", sequences[0].shape, sequences[0].dtype
        axes = len(got)
    else:
        shapes, got, dtype = "(n, T, I) real numbers or (n, T) ids", sequences.shape, sequences.dtype
        axes = len(got) - 1
        if got[:1] == (0,):
            raise ValueError("x: expected at least one sample, got none")
    if axes != 2 and not (axes == 1 and dtype.kind in "iu"):
        raise ValueError(f"x: expected {shapes}, got {got} {dtype}; of one feature pass x[..., None]")
    for i, sequence in enumerate(sequences):
        if not sequence.size:
            raise ValueError(f"x[{i}]: expected at least one step and feature, got shape {sequence.shape}")
    return sequences


def source_of(
    data: Any, batch_size: int = 32, *, target_per: Literal["step", "sequence"] | None = None
) -> Source:
    """Convert training data to a source.

    Parameters
    ----------
    data : Source or tuple
        A source is returned unchanged; (x, target) becomes `Arrays`.
    batch_size, target_per
        As for `Arrays`.

    Raises
    ------
    TypeError
        If `data` is neither, or `Arrays` raises it.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import source_of
    >>> len(source_of((np.zeros((70, 5, 2)), np.zeros((70, 1)))))
    3
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, tuple) or len(data) != 2:
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__
        raise TypeError(f"data: expected a cylstm.data.Source or a tuple (x, target), got {got}")
    return Arrays(*data, batch_size, target_per=target_per)
