"""What a task is: a model, how it is trained, on which minibatches, and what its score is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cylstm
from cylstm.data import Minibatch, Source

Outputs = Callable[[Minibatch, Any], tuple[np.ndarray, Any]]  # of a trained model, with its state


@dataclass
class Recipe:
    """One training with one seed. Both libraries begin at these weights and see these minibatches.

    Parameters
    ----------
    score : callable
        The figures of a trained model, by name, from its outputs.
    lr, weight_decay, decoupled
        Of Adam; AdamW if decoupled. The rate falls as half a cosine after `warmup` updates.
    patience : int, optional
        With validation data: epochs without a lower loss until the end. The weights with the lowest are kept.
    """

    model: cylstm.Sequential
    loss: cylstm.losses.Loss
    train: Source
    score: Callable[[Outputs], dict[str, float]]
    epochs: int
    validation: Source | None = None
    patience: int | None = None
    lr: float = 3e-3
    weight_decay: float = 0.0
    decoupled: bool = True
    warmup: int = 0
    clip_norm: float = 1.0


@dataclass
class Task:
    """A row or two of the table: for each figure the goal, and what it is compared with."""

    folder: str
    make: Callable[[Path, int], Recipe]
    figures: dict[str, "Figure"]


@dataclass
class Figure:
    """A score, and what others reach on the same data."""

    title: str
    goal: float
    baselines: str
    higher: bool = False


def mean_loss(loss: cylstm.losses.Loss, source: Source, outputs: Outputs) -> float:
    """Of all minibatches in order, each weighed by what counts in it."""
    total = counted = 0.0
    state = None
    for batch in source.epoch():
        y, state = outputs(batch, state if batch.continues else None)
        value, _ = loss(y, batch.target, batch.lengths)
        total += value * loss.counted
        counted += loss.counted
    return total / counted
