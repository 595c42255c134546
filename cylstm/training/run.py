"""Where a training stands, and how it gets into a checkpoint and out again."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.optim import Optimizer, Schedule
from cylstm.sequence_layer import SequenceLayer
from cylstm.training import checkpoints
from cylstm.training.gradients import Mean
from cylstm.training.history import STOPPED, History

Array = NDArray[Any]


class Run:
    """The position in the data, the sums of the epoch, the best weights, and what has happened so far.

    Parameters
    ----------
    seed : int or None
        Of the order of the data.
    identity : dict
        JSON values by which a checkpoint is known to be of the same training.
    lr : float
        The optimiser's learning rate before the schedule.
    """

    def __init__(self, seed: int | None, identity: dict[str, Any], lr: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.identity, self.lr = identity, lr
        self.order: Any = None  # the generator's state before this epoch's order was drawn
        self.epoch = self.batch = self.steps = 0
        self.group = Mean()  # of the minibatches since the last update
        self.state: Any = None  # carried from one minibatch to the next
        self.loss = Mean()  # of the epoch
        self.sums = {"grad_norm": 0.0, "updates": 0.0, "seconds": 0.0}
        self.waited = 0
        self.best: Array | None = None
        self.best_loss = np.inf
        self.history = History()

    def begin_epoch(self) -> None:
        """Start at the first minibatch, or at the one where a checkpoint was written."""
        if self.batch == 0:
            self.order, self.state = self.rng.bit_generator.state, None
            self.loss, self.sums = Mean(), dict.fromkeys(self.sums, 0.0)
        else:
            self.rng.bit_generator.state = self.order

    def content(
        self, model: SequenceLayer, optimizer: Optimizer, schedule: Schedule | None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """All of it, as vectors and JSON values."""
        tensors: dict[str, Array] = {}
        nesting = checkpoints.flattened(self.state, tensors)
        tensors["parameters"] = model._store.data
        if self.best is not None:
            tensors["best"] = self.best
        state = optimizer.state_dict()
        vectors = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        tensors |= {f"optimizer.{name}": value for name, value in vectors.items()}
        tensors |= {f"history.{name}": np.array(values) for name, values in self.history.steps.items()}
        return tensors, {
            "identity": self.identity,
            "position": {
                name: getattr(self, name) for name in ("epoch", "batch", "steps", "waited", "lr", "order")
            },
            "sums": {"loss": self.loss.total, "counted": self.loss.counted, **self.sums},
            "best_loss": self.best_loss if self.best is not None else None,
            "state": nesting,
            "masks": model._random_state(),
            "schedule": schedule.state_dict() if schedule else {},
            "optimizer": {name: value for name, value in state.items() if name not in vectors},
            "history": {
                "epochs": self.history.epochs,
                "best_epoch": self.history.best_epoch,
                "stopped": self.history.stopped,
            },
        }

    def restore(
        self,
        path: Any,
        model: SequenceLayer,
        optimizer: Optimizer,
        schedule: Schedule | None,
    ) -> dict[str, Any]:
        """Go on from a checkpoint, if it is one of this training; returns its notes.

        Raises
        ------
        CheckpointError, OSError
            If not, or if it cannot be read; nothing is changed then.
        """
        tensors, values = checkpoints.read(path)
        try:
            checkpoints.check_identity(self.identity, values["identity"])
            notes = dict(values["notes"])
            self._take(tensors, values, model, optimizer, schedule)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise checkpoints.CheckpointError(f"{path}: not of this training: {error}") from error
        return notes

    def _take(
        self,
        tensors: dict[str, Array],
        values: dict[str, Any],
        model: SequenceLayer,
        optimizer: Optimizer,
        schedule: Schedule | None,
    ) -> None:
        prefix = "optimizer."
        vectors = {n[len(prefix) :]: tensor for n, tensor in tensors.items() if n.startswith(prefix)}
        parameters, best = tensors["parameters"], tensors.get("best")
        for vector in (parameters, *([] if best is None else [best])):
            if vector.shape != model._store.data.shape or vector.dtype != model.dtype:
                raise ValueError(f"parameters: expected {model._store.size}, got {vector.shape}")
        place = values["position"]
        counts = {name: _checks.natural(name, place[name]) for name in ("epoch", "batch", "steps", "waited")}
        if counts["batch"] > self.identity["minibatches"]:
            raise ValueError(f"batch: expected {self.identity['minibatches']} at most, got {counts['batch']}")
        lr = _checks.number("lr", place["lr"], 0)
        sums = {
            name: _checks.number(name, values["sums"][name], -math.inf)
            for name in ("loss", "counted", *self.sums)
        }
        lowest = values["best_loss"]
        best_loss = np.inf if lowest is None else _checks.number("best_loss", lowest, -math.inf)
        state = checkpoints.unflattened(values["state"], tensors)
        history = _history(values["history"], tensors)
        masks = model._random_state()
        try:
            model._set_random_state(values["masks"])
            self.rng.bit_generator.state = place["order"]
            if schedule:
                schedule.load_state_dict(values["schedule"])
            optimizer.load_state_dict(values["optimizer"] | vectors)
        except Exception:
            model._set_random_state(masks)
            raise
        with model._store.writing() as flat:
            flat[...] = parameters
        for name, count in counts.items():
            setattr(self, name, count)
        self.loss = Mean(sums.pop("loss"), sums.pop("counted"))
        self.lr, self.order, self.sums = lr, place["order"], sums
        self.best, self.best_loss, self.state, self.history = best, best_loss, state, history


def _history(values: Mapping[str, Any], tensors: Mapping[str, Array]) -> History:
    """That of a checkpoint.

    Raises
    ------
    ValueError, TypeError, KeyError
        If it is none.
    """
    history = History()
    for name in history.steps:
        if tensors[f"history.{name}"].shape != tensors["history.loss"].shape[:1]:
            raise ValueError(f"history {name}: expected a number for each update")
        history.steps[name] = tensors[f"history.{name}"].tolist()
    history.epochs, history.stopped = values["epochs"], values["stopped"]
    history.best_epoch = _checks.natural("best_epoch", values["best_epoch"])
    if history.stopped not in STOPPED:
        raise ValueError(f"stopped: expected one of {STOPPED}, got {history.stopped!r}")
    numbers = [number for record in history.epochs for number in dict(record).values()]
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError("history: expected numbers of each epoch")
    return history
