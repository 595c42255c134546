"""Connectionist temporal classification: sequence labels without alignment."""

from typing import Any, NamedTuple

import numpy as np

from cylstm import _checks
from cylstm._checks import shown
from cylstm.losses.base import Array, Index, Layout, Loss
from cylstm.losses.classification import in_range, integers


class _Labels(NamedTuple):
    """Concatenated labels of all sequences; sequence b has labels[starts[b] : starts[b + 1]]."""

    labels: Array
    starts: Index


class CTC(Loss):
    """Connectionist temporal classification: labels of sequences without alignment (Graves et al. 2006).

    The outputs are logits of the classes and `blank` at each step. Repeated classes without a blank between
    them are merged, and blanks are removed. The loss of a sequence is the negative log-probability of all
    alignments of its labels, divided by the number of labels. The value is the mean over sequences, as in
    `torch.nn.functional.ctc_loss` of log-softmax(y). It is computed in float64.

    The target is a sequence of B integer arrays of any lengths, or one such array if y is a single sequence
    (T, V). `lengths` are the lengths of y.

    Parameters
    ----------
    blank : int
        Index of the blank output.
    zero_infinity : bool
        If true, a sequence that is too short for its labels contributes a loss and a gradient of 0 to the
        mean. If false, its loss is infinite and its gradient NaN; a `Trainer` raises an error for it.
    batch_first : bool
        As in `MSE`.

    Examples
    --------
    >>> import numpy as np
    >>> loss = CTC()
    >>> value, dy = loss(np.zeros((2, 1, 2)), [[1]])  # three of four alignments are [1]
    >>> bool(np.isclose(value, -np.log(3 / 4))), loss.counted
    (True, 1.0)
    """

    of_sequences = True

    def __init__(self, blank: int = 0, zero_infinity: bool = False, batch_first: bool = False) -> None:
        super().__init__("all", batch_first)
        self.blank = _checks.natural("blank", blank)
        self.zero_infinity = _checks.flag("zero_infinity", zero_infinity)

    def _targets(self, target: Any, layout: Layout) -> _Labels:
        if layout.single:
            arrays = [self._labels("target", target, layout.V)]
        else:
            arrays = [self._labels(f"target[{b}]", a, layout.V) for b, a in enumerate(_sequences(target))]
        if len(arrays) != layout.B:
            raise ValueError(f"target: expected labels of {layout.B} sequences, got those of {len(arrays)}")
        starts = np.cumsum([0, *map(len, arrays)], dtype=np.intp)
        return _Labels(np.concatenate(arrays, dtype=np.int64, casting="unsafe"), starts)

    def _compute(self, dy: Array, y: Array, targets: Any, begin: Index, end: Index) -> tuple[float, float]:
        from cylstm._engine import _ctc

        T, V = int(end.max()), y.shape[2]
        S = 2 * int(np.diff(targets.starts).max()) + 1
        counted = float(np.count_nonzero(end))
        shapes = {"log_p": (T, V), "alpha": (T, S), "beta": (S,), "occupied": (V,)}
        log_p, alpha, beta, occupied = (self._buffer(*item, np.float64) for item in shapes.items())
        value = _ctc.ctc(
            dy,
            y,
            targets.labels,
            targets.starts,
            end,
            self.blank,
            self.zero_infinity,
            counted,
            log_p,
            alpha,
            beta,
            occupied,
        )
        return value, counted

    def check(self, target: Any, outputs: int, name: str = "target", lengths: Any = None) -> None:
        """Check all labels of a data set before training.

        Given `lengths` and without `zero_infinity`, sequences that are too short for their labels raise an
        error: each label needs a step, and so does the blank between equal neighbours.

        Parameters
        ----------
        target, outputs, name, lengths
            As in `Loss.check`.

        Raises
        ------
        ValueError, TypeError
            If a value is invalid.

        Examples
        --------
        >>> CTC().check([[1, 2], [3, 3]], outputs=4, lengths=[2, 2])
        Traceback (most recent call last):
        ValueError: target[1]: expected labels that fit into the 2 steps of the sequence, got 2 that need ...
        """
        super().check(target, outputs, name)
        if lengths is None or self.zero_infinity:
            return
        sequences, lengths = _sequences(target), _checks.index_array("lengths", lengths, "ints")
        if lengths.shape != (len(sequences),):
            raise ValueError(
                f"lengths: expected {len(sequences)} ints, one per sequence, got {lengths.shape}"
            )
        for i, (labels, steps) in enumerate(zip(sequences, lengths, strict=True)):
            needed = len(labels) + int(np.count_nonzero(np.diff(labels) == 0))
            if steps and needed > steps:
                raise ValueError(
                    f"{name}[{i}]: expected labels that fit into the {steps} steps of the sequence, got "
                    f"{len(labels)} that need {needed} (one each, and one for a blank between equal "
                    "neighbours); remove the sample, or pass zero_infinity=True"
                )

    def _check(self, target: Any, outputs: int, name: str) -> int:
        rows = integers(name, target)
        if rows.ndim == 2:
            for i, labels in enumerate(rows):
                self._labels(f"{name}[{i}]", labels, outputs)
        else:
            self._labels(name, rows, outputs)
        return 1

    def _labels(self, name: str, target: Any, outputs: int) -> Array:
        """Check the labels of one sequence."""
        if self.blank >= outputs:
            raise ValueError(f"blank: expected 0 to {outputs - 1}, an output, got {self.blank}")
        labels = integers(name, target)
        if labels.ndim != 1:
            raise ValueError(f"{name}: expected the labels of one sequence, (L,), got {labels.shape}")
        in_range(name, labels, outputs)
        if (labels == self.blank).any():
            raise ValueError(f"{name}: expected labels other than blank = {self.blank}")
        return labels


def _sequences(target: Any) -> list[Any]:
    try:
        return list(target)
    except TypeError:
        raise TypeError(f"target: expected a sequence of arrays of labels, got {shown(target)}") from None
