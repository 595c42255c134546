"""Cross-entropy for multiclass classification."""

from typing import Any

import numpy as np

from cylstm import _checks
from cylstm.losses.base import Array, Index, Layout, Loss, Steps, weights


class CrossEntropy(Loss):
    """Cross-entropy of one of V classes at each step, from logits: the loss includes the softmax.

    The target contains class labels, integers from 0 to V - 1: (T, B), (B, T) if `batch_first`, (T,) for one
    sequence, (B,) for rows without a time axis; without the time axis for `steps="last"`. Value and gradient
    match `torch.nn.CrossEntropyLoss`: the sum over labels, divided by the sum of their weights. If that is
    0, they are those of the sum, to which only label smoothing contributes.

    Parameters
    ----------
    weight : sequence of float, optional
        (V,), the weight of each class. By default 1.
    ignore_index : int or None
        Steps with this label are ignored.
    label_smoothing : float
        Fraction of the target, from 0 to 1, that is distributed over all classes (Szegedy et al. 2016).
    steps, batch_first
        As in `MSE`.

    Examples
    --------
    >>> import numpy as np
    >>> loss = CrossEntropy()
    >>> value, dy = loss(np.zeros((3, 1, 2)), np.array([[1], [0], [-100]]))
    >>> round(value, 4), loss.counted, dy[:, 0].tolist()
    (0.6931, 2.0, [[0.25, -0.25], [-0.25, 0.25], [0.0, 0.0]])
    """

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        steps: Steps = "all",
        batch_first: bool = False,
    ) -> None:
        super().__init__(steps, batch_first)
        self.weight = None if weight is None else weights("weight", weight)
        self.ignore_index = (
            None if ignore_index is None else _checks.integer("ignore_index", ignore_index, "an int or None")
        )
        self.label_smoothing = _checks.number("label_smoothing", label_smoothing, 0)
        if self.label_smoothing > 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing:g}")

    def _targets(self, target: Any, layout: Layout) -> tuple[Array, Array]:
        weight = self._weight(layout.V)
        labels = integers("target", target)
        if labels.shape != layout.target_shape():
            raise ValueError(f"target: expected {layout.target_shape()}, got {labels.shape}")
        return layout.broadcast(self._converted(labels, np.int64)), weight

    def _compute(self, dy: Array, y: Array, targets: Any, begin: Index, end: Index) -> tuple[float, float]:
        from cylstm._engine import _losses, isa

        labels, weight = targets
        value, total = _losses.cross_entropy(
            dy,
            y,
            labels,
            begin,
            end,
            weight,
            self.ignore_index,
            self.label_smoothing,
            isa.selected(),
        )
        if total == value == 0:
            dy[...] = 0
        return value, total

    def row_shape(self, outputs: int) -> tuple[int, ...]:
        """Labels are scalars."""
        return ()

    def _check(self, target: Any, outputs: int, name: str) -> int:
        weight = self._weight(outputs)
        labels = integers(name, target)
        if self.ignore_index is not None:
            labels = labels[labels != self.ignore_index]
        in_range(name, labels, outputs)
        return labels.size if self.weight is None else int(np.count_nonzero(weight[labels]))

    def _weight(self, outputs: int) -> Array:
        if self.weight is None:
            return np.ones(outputs)
        if len(self.weight) != outputs:
            raise ValueError(f"weight: expected {outputs} numbers, one per class, got {len(self.weight)}")
        return np.array(self.weight)


def integers(name: str, value: Any) -> Array:
    """Convert labels to an integer array."""
    return _checks.index_array(name, value, "integer labels")


def in_range(name: str, labels: Array, outputs: int) -> None:
    """Raise ValueError for labels outside of 0 to outputs - 1."""
    bad = labels[(labels < 0) | (labels >= outputs)]
    if bad.size:
        raise ValueError(f"{name}: expected labels from 0 to {outputs - 1}, got {bad[0]}")
