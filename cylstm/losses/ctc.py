"""Labels without alignment: connectionist temporal classification."""

from typing import Any, NamedTuple

import numpy as np

from cylstm import _checks
from cylstm._checks import shown
from cylstm.losses.base import Array, Index, Layout, Loss
from cylstm.losses.classification import in_range, integers


class _Labels(NamedTuple):
    """The labels of all sequences, one after the other; those of b from starts[b] to before starts[b + 1]."""

    labels: Array
    starts: Index


class CTC(Loss):
    """Connectionist temporal classification: labels of sequences without alignment (Graves et al. 2006).

    From logits: at every step a model outputs a class or `blank`. Equal classes without a blank between them
    are one label, blanks are none. The loss is the negative logarithm of the probability of all alignments
    of a sequence's labels, divided by their number, and its mean over sequences, as
    `torch.nn.functional.ctc_loss` computes it on log-softmax of y. It is computed in float64.

    The target is a sequence of B arrays of int labels, of any lengths, or one such array if y is one
    sequence, (T, V). `lengths` are those of y.

    Parameters
    ----------
    blank : int
        The output that means no label.
    zero_infinity : bool
        If true, the loss and gradient of a sequence that is too short for its labels are 0, and it counts.
        If false, its loss is infinite and its gradient NaN; a `Trainer` refuses such sequences.
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
        """Refuse labels that this loss cannot use, once for all data before training.

        With `lengths`, the steps of every sequence, and without `zero_infinity`, also a sequence that is too
        short for its labels: they need a step each, and one for the blank between equal neighbours.

        Parameters
        ----------
        target, outputs, name, lengths
            As in `Loss.check`.

        Raises
        ------
        ValueError, TypeError
            If any value is unusable, or none counts.

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
            raise ValueError(f"lengths: expected {len(sequences)} ints, one a sequence, got {lengths.shape}")
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
        """The labels of one sequence, checked."""
        if self.blank >= outputs:
            raise ValueError(f"blank: expected 0 to {outputs - 1}, an output, got {self.blank}")
        labels = integers(name, target)
        if labels.ndim != 1:
            raise ValueError(f"{name}: expected the labels of one sequence, (L,), got {labels.shape}")
        in_range(name, labels, outputs)
        if (labels == self.blank).any():
            raise ValueError(f"{name}: expected labels, which are not blank = {self.blank}")
        return labels


def _sequences(target: Any) -> list[Any]:
    try:
        return list(target)
    except TypeError:
        raise TypeError(f"target: expected a sequence of arrays of labels, got {shown(target)}") from None
