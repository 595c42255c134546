"""Every loss with options that matter: targets for it, its reference, and PyTorch's.

A case speaks of whole sequences: y a list of (T_b, V), the targets a list of what belongs to each.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cylstm import reference
from cylstm.losses import LOSSES


@dataclass(frozen=True)
class Case:
    """A loss of each step by itself: reference(y, target) of (N, V) rows, and torch's of tensors."""

    loss: str
    outputs: int
    options: dict[str, Any]
    draw: Callable[..., Any]  # (rng, shape of the steps) -> target
    reference: Callable[..., Any]  # (y, target) -> value, dy and what was counted
    torch: Callable[..., Any]  # (torch, y, target) -> value
    steps: tuple[str, ...] = ("all", "last")

    def __str__(self):
        return "-".join([self.loss, *(f"{name}={value}" for name, value in self.options.items())])

    def make(self, **layout):
        return LOSSES[self.loss](**self.options, **layout)

    def target(self, rng, T, lengths):
        """(T, B, ...), its padding being nothing that may be used."""
        target = self.draw(rng, (T, len(lengths)))
        for b, n in enumerate(lengths):
            target[n:, b] = np.nan if target.dtype.kind == "f" else 10**6
        return target

    def part(self, target, b, steps):
        return target[steps, b]

    def stacked(self, parts, batch_first):
        """A list of what belongs to each sequence, as a loss takes it."""
        return np.stack(parts, 0 if batch_first else 1)

    def expected(self, ys, targets):
        value, dy, counted = self.reference(np.concatenate(ys), np.concatenate(targets))
        return value, np.split(dy, np.cumsum([len(y) for y in ys])[:-1]), counted

    def theirs(self, torch, ys, targets):
        return self.torch(torch, torch.cat(ys), torch.tensor(np.concatenate(targets)))


class CTCCase(Case):
    """A loss of whole sequences, whose targets are lists of labels: half as many as steps, or fewer."""

    def target(self, rng, T, lengths):
        allowed = [v for v in range(self.outputs) if v != self.options.get("blank", 0)]
        return [rng.choice(allowed, rng.integers(0, n // 2 + 1)) for n in lengths]

    def part(self, target, b, steps):
        return target[b]

    def stacked(self, parts, batch_first):
        return parts

    def expected(self, ys, targets):
        results = [
            reference.ctc(y, t, self.options.get("blank", 0)) for y, t in zip(ys, targets, strict=True)
        ]
        shares = [len(ys) * max(len(t), 1) for t in targets]
        value = sum(result[0] / share for result, share in zip(results, shares, strict=True))
        return value, [result[1] / share for result, share in zip(results, shares, strict=True)], len(ys)

    def theirs(self, torch, ys, targets):
        log_p = torch.log_softmax(torch.nn.utils.rnn.pad_sequence(ys), -1)
        labels = torch.tensor(np.concatenate(targets).astype(np.int64))
        lengths = [torch.tensor([len(part) for part in parts]) for parts in (ys, targets)]
        return torch.nn.functional.ctc_loss(log_p, labels, *lengths, **self.options)


def numbers(columns):
    return lambda rng, shape: rng.standard_normal((*shape, columns))


def counted(function, **options):
    """A reference whose denominator is the number of outputs."""
    return lambda y, target: (*function(y, target, **options), y.size)


def regression(loss, function, theirs, **options):
    return Case(
        loss,
        3,
        options,
        numbers(3),
        counted(function, **options),
        lambda torch, y, target: getattr(torch.nn.functional, theirs)(y, target, **options),
    )


def pinball(columns, quantiles):
    def theirs(torch, y, target):
        below = target[..., None] - y.reshape(len(y), columns, -1)
        q = torch.tensor(quantiles, dtype=torch.float64)
        return torch.maximum(q * below, (q - 1) * below).mean()

    function = counted(reference.quantile, quantiles=np.array(quantiles))
    outputs = columns * len(quantiles)
    return Case("Quantile", outputs, {"quantiles": quantiles}, numbers(columns), function, theirs)


def yes_or_no(pos_weight):
    weight = np.array(1.0 if pos_weight is None else pos_weight)
    return Case(
        "BinaryCrossEntropy",
        3,
        {"pos_weight": pos_weight},
        lambda rng, shape: rng.random((*shape, 3)) * rng.integers(0, 2, (*shape, 3)),
        counted(reference.binary_cross_entropy, pos_weight=weight),
        lambda torch, y, target: torch.nn.functional.binary_cross_entropy_with_logits(
            y, target, pos_weight=torch.tensor(weight)
        ),
    )


def classes(weight, ignore_index, label_smoothing):
    options = {"weight": weight, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    full = np.ones(4) if weight is None else np.array(weight)

    def draw(rng, shape):
        labels = rng.integers(0, 4, shape)
        return labels if ignore_index is None else np.where(rng.random(shape) < 0.2, ignore_index, labels)

    def theirs(torch, y, target):
        return torch.nn.functional.cross_entropy(
            y,
            target,
            weight=None if weight is None else torch.tensor(full),
            ignore_index=-100 if ignore_index is None else ignore_index,
            label_smoothing=label_smoothing,
        )

    def ours(y, labels):
        return reference.cross_entropy(y, labels, full, ignore_index, label_smoothing)

    return Case("CrossEntropy", 4, options, draw, ours, theirs)


def ctc(**options):
    return CTCCase("CTC", 6, options, None, None, None, ("all",))


CASES = [
    regression("MSE", reference.mse, "mse_loss"),
    regression("MAE", reference.mae, "l1_loss"),
    regression("Huber", reference.huber, "huber_loss", delta=1.0),
    regression("Huber", reference.huber, "huber_loss", delta=0.3),
    pinball(2, [0.1, 0.5, 0.9]),
    pinball(1, [0.25]),
    *(yes_or_no(weight) for weight in (None, 3.0, [0.5, 1.0, 4.0])),
    *itertools.starmap(
        classes, itertools.product((None, [0.5, 2.0, 1.0, 0.0]), (-100, 1, None), (0.0, 0.1, 1.0))
    ),
    ctc(),
    ctc(blank=4, zero_infinity=True),
]
