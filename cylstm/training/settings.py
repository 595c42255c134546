"""Settings of a training run, which the training loop reads."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cylstm.data import Source
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.losses import Loss
from cylstm.optim import Optimizer, Schedule
from cylstm.training.checkpoints import digest_of
from cylstm.training.metrics import Metric


@dataclass(frozen=True, eq=False)
class TrainingSettings:
    """What a `Trainer` was constructed with, when `fit` was called; its docstring describes each field."""

    model: SequenceLayer
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule | None
    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    truncate: int | None
    segments: int | Literal["auto"] | None
    seed: int | None
    max_seconds: float | None

    def updates_per_epoch(self, minibatches: int) -> int:
        """Parameter updates in an epoch of the given number of minibatches, without `truncate`."""
        return -(-minibatches // self.accumulate)

    def schedule_steps(self, minibatches: int) -> int:
        """Steps of the schedule in an epoch of the given number of minibatches."""
        if self.schedule is None or self.schedule.per == "epoch":
            return 1
        return self.updates_per_epoch(minibatches)

    def identity(self, data: Source, held_out: Source | None) -> dict[str, Any]:
        """JSON values that identify the training run; a checkpoint is resumed only if they are equal."""
        return {
            "model": _plain({"type": type(self.model).__name__, **self.model.config}),
            "loss": _plain({"type": type(self.loss).__name__, **self.loss.config}),
            "optimizer": _arguments(self.optimizer),
            "schedule": None if self.schedule is None else _arguments(self.schedule),
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "seed": self.seed,
            "minibatches": len(data),
            "minibatch": list(next(data.epoch()).x.shape),
            "data": digest_of(_first_and_last(data)),
            "validation": None if held_out is None else digest_of(_first_and_last(held_out)),
            "accumulate": self.accumulate,
            "truncate": self.truncate,
        }


@dataclass(frozen=True, eq=False)
class FitOptions:
    """Checked arguments of one call of `fit`; callbacks take the record only."""

    epochs: int
    measures: Mapping[str, Metric]
    patience: int | None
    callbacks: Sequence[Callable[[dict[str, float]], Any]]
    on_update: Sequence[Callable[[dict[str, float]], Any]]
    progress: bool


def _arguments(thing: Optimizer | Schedule) -> dict[str, Any]:
    """Type name and constructor arguments of an object that stores them as attributes."""
    arguments = {name: getattr(thing, name, None) for name in inspect.signature(type(thing)).parameters}
    return _plain({"type": type(thing).__name__, **arguments})


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings after a round trip through JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=_json_value))
    return plain


def _json_value(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


def _first_and_last(source: Source) -> Iterator[Any]:
    """The arrays of the first and the last minibatch in order."""
    for start in sorted({0, len(source) - 1}):
        batch = next(source.epoch(start=start))
        yield batch.x
        yield from batch.target if isinstance(batch.target, list) else [batch.target]
