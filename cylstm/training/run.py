"""The state of a training run, saved to and restored from checkpoints."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.layers.base import random_state, set_random_state, store_of
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.optim import Optimizer, Schedule
from cylstm.training import checkpoints
from cylstm.training.gradients import Mean
from cylstm.training.history import STOPPED, History

Array = NDArray[Any]
COUNTS = ("epoch", "batch", "piece", "steps", "waited")
POSITION = (*COUNTS, "reported", "lr", "order")


class Run:
    """The position in the data, running sums of the epoch, the best weights, and the history.

    A checkpoint contains the state at the last *mark*, a point between two updates at which it is consistent
    with the parameters. A *snapshot*, taken at the end of each epoch, is a mark with copies of the parameters
    and of the optimiser's vectors.

    Parameters
    ----------
    seed : int or None
        Seed for shuffling the data.
    identity : dict
        JSON values that identify the training run; checkpoints must have equal ones.
    lr : float
        The optimiser's learning rate before the schedule.
    """

    def __init__(self, seed: int | None, identity: dict[str, Any], lr: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.identity, self.lr = identity, lr
        self.order: Any = self.rng.bit_generator.state  # before it drew the order of this epoch
        self.epoch = self.batch = self.piece = self.steps = 0
        self.group = Mean()  # mean loss of the minibatches since the last update
        self.state: Any = None  # carried from one minibatch to the next
        self.loss = Mean()  # mean loss of the epoch
        self.sums = {"grad_norm": 0.0, "updates": 0.0, "seconds": 0.0}
        self.waited = 0
        self.best: Array | None = None
        self.best_loss = np.inf
        self.history = History()
        self.reported = True  # whether the callbacks have been called for the last finished epoch
        self.epochs = 0  # argument of `fit`
        self._marked: dict[str, Any] = {}
        self._snapshot: tuple[dict[str, Any], Array, dict[str, Any]] | None = None

    def begin_epoch(self) -> None:
        """Start at the first minibatch, or at the position of the checkpoint."""
        if self.batch == self.piece == 0:
            self.order, self.state = self.rng.bit_generator.state, None
            self.loss, self.sums = Mean(), dict.fromkeys(self.sums, 0.0)
        else:
            self.rng.bit_generator.state = self.order

    def mark(self, model: SequenceLayer, schedule: Schedule | None) -> None:
        """Record the current state, for the next checkpoint."""
        history = self.history
        self._marked = {
            "position": {name: getattr(self, name) for name in POSITION},
            "sums": {"loss": self.loss.total, "counted": self.loss.counted, **self.sums},
            "best": self.best,
            "best_loss": self.best_loss,
            "state": self.state,
            "masks": random_state(model),
            "schedule": schedule.state_dict() if schedule else {},
            "updates": len(history.steps["loss"]),
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "version": store_of(model).revision,
        }

    @property
    def marked_steps(self) -> int:
        """Number of updates at the last mark."""
        return int(self._marked["position"]["steps"]) if self._marked else 0

    def is_at_mark(self, model: SequenceLayer) -> bool:
        """Whether the parameters are those of the last mark."""
        return bool(self._marked) and self._marked["version"] == store_of(model).revision

    def take_snapshot(self, model: SequenceLayer, optimizer: Optimizer | None) -> None:
        """Copy the parameters at the last mark and, for checkpoints, the state of the optimiser."""
        if self._snapshot and self._snapshot[0]["version"] == self._marked["version"]:
            self._snapshot = (self._marked, *self._snapshot[1:])
            return
        state = {} if optimizer is None else optimizer.state_dict()
        self._snapshot = self._marked, store_of(model).data.copy(), state

    @property
    def snapshot_steps(self) -> int:
        """Number of updates at the last snapshot."""
        return 0 if self._snapshot is None else int(self._snapshot[0]["position"]["steps"])

    @property
    def snapshot_parameters(self) -> Array | None:
        """The parameters at the last snapshot."""
        return None if self._snapshot is None else self._snapshot[1]

    def content(self, model: SequenceLayer, optimizer: Optimizer) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the state at the last mark, as vectors and JSON values."""
        return self._content(self._marked, store_of(model).data, optimizer.state_dict())

    def content_of_snapshot(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the state at the last snapshot, as vectors and JSON values."""
        assert self._snapshot is not None
        return self._content(*self._snapshot)

    def _content(
        self, marked: dict[str, Any], parameters: Array, optimizer: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        tensors: dict[str, Array] = {}
        nesting = checkpoints.flattened(marked["state"], tensors)
        tensors["parameters"] = parameters
        if marked["best"] is not None:
            tensors["best"] = marked["best"]
        vectors = {name: value for name, value in optimizer.items() if isinstance(value, np.ndarray)}
        tensors |= {f"optimizer.{name}": value for name, value in vectors.items()}
        updates, epochs = marked["updates"], marked["epochs"]
        tensors |= {f"history.{name}": np.array(v[:updates]) for name, v in self.history.steps.items()}
        return tensors, {
            "identity": self.identity,
            "position": marked["position"],
            "epochs": self.epochs,
            "sums": marked["sums"],
            "best_loss": marked["best_loss"] if marked["best"] is not None else None,
            "state": nesting,
            "masks": marked["masks"],
            "schedule": marked["schedule"],
            "optimizer": {name: value for name, value in optimizer.items() if name not in vectors},
            "history": {
                "epochs": self.history.epochs[:epochs],
                "best_epoch": marked["best_epoch"],
                "stopped": self.history.stopped,
            },
        }

    def restore(
        self,
        path: Any,
        model: SequenceLayer,
        optimizer: Optimizer,
        schedule: Schedule | None,
        schedule_steps: int,
    ) -> dict[str, Any]:
        """Restore the state from a checkpoint of this training run, and return the checkpoint's notes.

        `schedule_steps` is the number of steps of the schedule in an epoch.

        Raises
        ------
        CheckpointError, OSError
            If the checkpoint belongs to another training run or cannot be read; the state is unchanged.
        """
        tensors, values = checkpoints.read(path)
        try:
            checkpoints.check_identity(self.identity, values["identity"])
            saved_epochs = _checks.natural("epochs", values.get("epochs", self.epochs))
            if schedule and saved_epochs != self.epochs:
                _check_epochs(schedule, saved_epochs, self.epochs, schedule_steps)
            notes = dict(values["notes"])
            self._load(tensors, values, model, optimizer, schedule)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise checkpoints.CheckpointError(f"{path}: not of this training: {error}") from error
        return notes

    def _load(
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
            if vector.shape != store_of(model).data.shape or vector.dtype != model.dtype:
                raise ValueError(f"parameters: expected {store_of(model).size}, got {vector.shape}")
        position = {"piece": 0, "reported": True} | values["position"]  # missing in older files
        counts = {name: _checks.natural(name, position[name]) for name in COUNTS}
        if counts["batch"] > self.identity["minibatches"]:
            raise ValueError(f"batch: expected {self.identity['minibatches']} at most, got {counts['batch']}")
        lr = _checks.number("lr", position["lr"], 0)
        sums = {
            name: _checks.number(name, values["sums"][name], -math.inf)
            for name in ("loss", "counted", *self.sums)
        }
        best_loss = values["best_loss"]
        best_loss = np.inf if best_loss is None else _checks.number("best_loss", best_loss, -math.inf)
        state = checkpoints.unflattened(values["state"], tensors)
        history = _read_history(values["history"], tensors)
        masks = random_state(model)
        try:
            set_random_state(model, values["masks"])
            self.rng.bit_generator.state = position["order"]
            if schedule:
                schedule.load_state_dict(values["schedule"])
            optimizer.load_state_dict(values["optimizer"] | vectors)
        except Exception:
            set_random_state(model, masks)
            raise
        with store_of(model).writing() as flat:
            flat[...] = parameters
        for name, count in counts.items():
            setattr(self, name, count)
        self.loss = Mean(sums.pop("loss"), sums.pop("counted"))
        self.lr, self.order, self.sums = lr, position["order"], sums
        self.reported = bool(position["reported"]) or not history.epochs
        self.best, self.best_loss, self.state, self.history = best, best_loss, state, history


def _check_epochs(schedule: Schedule, saved: int, epochs: int, steps: int) -> None:
    """Check that a different number of epochs does not change the learning rates.

    Raises
    ------
    ValueError
        If the factors of the schedule, with `steps` steps per epoch, differ.
    """
    if type(schedule).begin is Schedule.begin:
        return
    factors = []
    for total in (saved * steps, epochs * steps):
        schedule.begin(total)
        factors.append([schedule.factor(round(n)) for n in np.linspace(0, saved * steps, 33)])
    if factors[0] != factors[1]:
        raise ValueError(
            f"epochs: the checkpoint was made with epochs={saved}, got {epochs}; the learning rates of "
            f"{type(schedule).__name__} depend on their number and would jump: pass epochs={saved}, or start "
            "another training run, without resume"
        )


def _read_history(values: Mapping[str, Any], tensors: Mapping[str, Array]) -> History:
    """Return the history from a checkpoint.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the values are not a valid history.
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
