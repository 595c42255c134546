"""Schedules: what the learning rate is multiplied with as training goes on."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from cylstm import _checks
from cylstm._checks import shown
from cylstm._reprs import as_constructed

Per = Literal["epoch", "step"]


class Schedule:
    """Base of the schedules: the learning rate is multiplied with `factor(n)` after n steps or epochs.

    `per` says which of both n counts. A `Trainer` calls `begin` with their number before the first, and
    `observe` with the validation loss after each epoch. It is for one training at a time.
    """

    per: Per = "epoch"

    def __repr__(self) -> str:
        """As it was constructed."""
        return as_constructed(self)

    def begin(self, total: int) -> None:
        """Learn how many steps or epochs there will be."""

    def factor(self, n: int) -> float:
        """For what follows n steps or epochs."""
        raise NotImplementedError

    def observe(self, loss: float) -> None:
        """See the loss of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on, JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class StepDecay(Schedule):
    """gamma^(n // every), as `torch.optim.lr_scheduler.StepLR`.

    Parameters
    ----------
    every : int
        Steps or epochs between two changes.
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
        """For what follows n steps or epochs."""
        try:
            return float(self.gamma ** (n // self.every))
        except OverflowError:  # of a gamma above 1
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


class _OverAll(Schedule):
    """One whose shape depends on the number of steps: those given, or all of the training."""

    per = "step"

    def __init__(self, total: int | None) -> None:
        self.total = None if total is None else _checks.positive("total", total)
        self._total = self.total or 0

    def begin(self, total: int) -> None:
        """Learn how many steps there will be."""
        self._total = self.total or total


class CosineDecay(_OverAll):
    """Half a cosine down to `floor`, after a warm-up that rises in a line (Loshchilov and Hutter 2017).

    Parameters
    ----------
    warmup : int
        Steps of the warm-up; the first has the factor 1 / (warmup + 1).
    floor : float
        The factor at the end.
    total : int, optional
        Steps with the warm-up. By default all of the training.

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
        """For what follows n steps."""
        if n < self.warmup:
            return (n + 1) / (self.warmup + 1)
        done = min(1.0, (n - self.warmup) / max(1, self._total - self.warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


class OneCycle(_OverAll):
    """Up along half a cosine and down along another (Smith and Topin 2018), as PyTorch's `OneCycleLR`.

    The optimiser's learning rate is the one at the top.

    Parameters
    ----------
    rise : float
        Share of the steps that go up, in (0, 1).
    first : float
        The factor at the beginning.
    last : float
        The factor at the end, as a share of the first.
    total : int, optional
        Steps. By default all of the training.
    """

    def __init__(
        self, rise: float = 0.3, first: float = 1 / 25, last: float = 1e-4, total: int | None = None
    ) -> None:
        super().__init__(total)
        self.rise = _checks.number("rise", rise, 0, 1)
        self.first, self.last = _checks.number("first", first, 0, 1), _checks.number("last", last, 0)

    def factor(self, n: int) -> float:
        """For what follows n steps."""
        top, end = self.rise * self._total - 1, self._total - 1
        if n <= top:
            return _between(self.first, 1, n / top if top > 0 else 1)
        return _between(1, self.first * self.last, min(1, (n - top) / max(end - top, 1e-12)))


class ReduceOnPlateau(Schedule):
    """Multiply with `gamma` when the loss has not fallen for more than `patience` epochs.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Parameters
    ----------
    gamma : float
    patience : int
        Epochs without progress that are let pass.
    threshold : float
        Progress is a loss below (1 - threshold) times the best one.

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
        """Forget what was seen."""
        self._state: dict[str, Any] = {"best": None, "waited": 0, "factor": 1.0}

    def observe(self, loss: float) -> None:
        """See the loss of an epoch."""
        state = self._state
        if state["best"] is None or loss < state["best"] * (1 - self.threshold):
            state["best"], state["waited"] = float(loss), 0
            return
        state["waited"] += 1
        if state["waited"] > self.patience:
            state["waited"], state["factor"] = 0, state["factor"] * self.gamma

    def factor(self, n: int) -> float:
        """For what follows n epochs."""
        return float(self._state["factor"])

    def state_dict(self) -> dict[str, Any]:
        """The best loss, the epochs since, and the factor."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        best, waited = state["best"], _checks.natural("waited", state["waited"])
        best = None if best is None else _checks.number("best", best, -math.inf)
        self._state = {"best": best, "waited": waited, "factor": _checks.number("factor", state["factor"], 0)}


def _checked_per(per: Per) -> Per:
    if per not in ("epoch", "step"):
        raise ValueError(f"per: expected 'epoch' or 'step', got {shown(per)}")
    return per


def _between(start: float, stop: float, done: float) -> float:
    """Along half a cosine."""
    return stop + (start - stop) * (1 + math.cos(math.pi * done)) / 2
