"""Learning-rate schedules: factors of the learning rate during training."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from cylstm import _checks
from cylstm._checks import shown
from cylstm._reprs import as_constructed

Per = Literal["epoch", "step"]


class Schedule:
    """Base class of schedules: the learning rate is multiplied by `factor(n)` after n steps or epochs.

    `per` selects whether n counts steps or epochs. A `Trainer` calls `begin` with their total number before
    training, and `observe` with the validation loss after each epoch. A schedule has state, so it can be
    used in one training run at a time.
    """

    per: Per = "epoch"

    def __repr__(self) -> str:
        """Show the constructor call."""
        return as_constructed(self)

    def begin(self, total: int) -> None:
        """Start a training run with the given number of steps or epochs."""

    def factor(self, n: int) -> float:
        """Return the factor after n steps or epochs."""
        raise NotImplementedError

    def observe(self, loss: float) -> None:
        """Update the schedule with the loss of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume, as JSON-compatible values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`."""


class StepDecay(Schedule):
    """gamma^(n // every), as `torch.optim.lr_scheduler.StepLR`.

    Parameters
    ----------
    every : int
        Steps or epochs between changes.
    gamma : float
    per : {"epoch", "step"}

    Examples
    --------
    >>> schedule = StepDecay(2, 0.5)
    >>> [schedule.factor(n) for n in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, every: int, gamma: float = 0.1, per: Per = "epoch") -> None:
        self.every = _checks.positive("every", every)
        self.gamma = _checks.above("gamma", gamma, 0)
        self.per = _checked_per(per)

    def factor(self, n: int) -> float:
        """Return the factor after n steps or epochs."""
        try:
            return float(self.gamma ** (n // self.every))
        except OverflowError:  # gamma > 1
            return math.inf


class ExponentialDecay(StepDecay):
    """gamma^n, as `torch.optim.lr_scheduler.ExponentialLR`.

    Parameters
    ----------
    gamma : float
    per : {"epoch", "step"}
    """

    def __init__(self, gamma: float, per: Per = "epoch") -> None:
        super().__init__(1, gamma, per)


class _FixedLength(Schedule):
    """Base class of schedules that depend on the total number of steps, given or of the training run."""

    per = "step"

    def __init__(self, total: int | None) -> None:
        self.total = None if total is None else _checks.positive("total", total)
        self._total = self.total or 0

    def begin(self, total: int) -> None:
        """Start a training run with the given number of steps."""
        self._total = self.total or total


class CosineDecay(_FixedLength):
    """Cosine decay to `floor` after a linear warm-up (Loshchilov and Hutter 2017).

    Parameters
    ----------
    warmup : int
        Steps of the warm-up; the first factor is 1 / (warmup + 1).
    floor : float
        The final factor.
    total : int, optional
        Number of steps including the warm-up. By default that of the training run.

    Examples
    --------
    >>> schedule = CosineDecay(warmup=1, total=5)
    >>> [round(schedule.factor(n), 3) for n in range(6)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, warmup: int = 0, floor: float = 0.0, total: int | None = None) -> None:
        super().__init__(total)
        self.warmup = _checks.natural("warmup", warmup)
        self.floor = _checks.number("floor", floor, 0)

    def factor(self, n: int) -> float:
        """Return the factor after n steps."""
        if n < self.warmup:
            return (n + 1) / (self.warmup + 1)
        done = min(1.0, (n - self.warmup) / max(1, self._total - self.warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


class OneCycle(_FixedLength):
    """One-cycle policy with cosine annealing (Smith and Topin 2018), as PyTorch's `OneCycleLR`.

    The learning rate of the optimiser is the maximum.

    Parameters
    ----------
    rise : float
        Fraction of the steps in which the learning rate increases, in (0, 1).
    first : float
        The initial factor.
    last : float
        The final factor as a fraction of the initial one.
    total : int, optional
        Number of steps. By default that of the training run.
    """

    def __init__(
        self, rise: float = 0.3, first: float = 1 / 25, last: float = 1e-4, total: int | None = None
    ) -> None:
        super().__init__(total)
        self.rise = _checks.number("rise", rise, 0, 1)
        self.first, self.last = _checks.number("first", first, 0, 1), _checks.number("last", last, 0)

    def factor(self, n: int) -> float:
        """Return the factor after n steps."""
        top, end = self.rise * self._total - 1, self._total - 1
        if n <= top:
            return _between(self.first, 1, n / top if top > 0 else 1)
        return _between(1, self.first * self.last, min(1, (n - top) / max(end - top, 1e-12)))


class ReduceOnPlateau(Schedule):
    """Multiply by `gamma` if the loss has not improved for more than `patience` epochs.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Parameters
    ----------
    gamma : float
    patience : int
        Number of epochs without improvement to allow.
    threshold : float
        A loss below (1 - threshold) times the best one is an improvement.

    Examples
    --------
    >>> schedule = ReduceOnPlateau(0.5, patience=1)
    >>> for loss in (1.0, 0.9, 0.9, 0.9):
    ...     schedule.observe(loss)
    >>> schedule.factor(4)
    0.5
    """

    def __init__(self, gamma: float = 0.1, patience: int = 10, threshold: float = 1e-4) -> None:
        self.gamma, self.patience = _checks.above("gamma", gamma, 0), _checks.natural("patience", patience)
        self.threshold = _checks.number("threshold", threshold, 0, 1)
        self.begin(0)

    def begin(self, total: int) -> None:
        """Reset the state."""
        self._state: dict[str, Any] = {"best": None, "waited": 0, "factor": 1.0}

    def observe(self, loss: float) -> None:
        """Update the schedule with the loss of an epoch."""
        state = self._state
        if state["best"] is None or loss < state["best"] * (1 - self.threshold):
            state["best"], state["waited"] = float(loss), 0
            return
        state["waited"] += 1
        if state["waited"] > self.patience:
            state["waited"], state["factor"] = 0, state["factor"] * self.gamma

    def factor(self, n: int) -> float:
        """Return the factor after n epochs."""
        return float(self._state["factor"])

    def state_dict(self) -> dict[str, Any]:
        """Return the best loss, the number of epochs since then, and the factor."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`."""
        best, waited = state["best"], _checks.natural("waited", state["waited"])
        best = None if best is None else _checks.number("best", best, -math.inf)
        self._state = {"best": best, "waited": waited, "factor": _checks.number("factor", state["factor"], 0)}


def _checked_per(per: Per) -> Per:
    if per not in ("epoch", "step"):
        raise ValueError(f"per: expected 'epoch' or 'step', got {shown(per)}")
    return per


def _between(start: float, stop: float, done: float) -> float:
    """Interpolate along half a cosine."""
    return stop + (start - stop) * (1 + math.cos(math.pi * done)) / 2
