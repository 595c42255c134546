"""The history of a training run."""

import contextlib
import os
from typing import Any

STOPPED = ("", "early", "callback", "interrupted", "time", "error")  # why training stopped


class History:
    """Losses, learning rates and gradient norms of a training run.

    Attributes
    ----------
    epochs : list of dict
        For each finished epoch: `epoch` (counted from 1), `loss` (the mean training loss), `validation` (the
        loss on the validation data, if any), the metrics by name, `lr` at its end, `grad_norm` (the mean) and
        `seconds`.
    steps : dict of list
        `loss`, `lr` and `grad_norm` (before clipping) of every parameter update.
    best_epoch : int
        Epoch of the lowest validation loss, whose weights the model has after `fit`; 0 without validation
        data.
    stopped : str
        Why training stopped: "" after all epochs, "early" because of `patience`, "callback" if one returned
        True, "interrupted" by Ctrl-C, "time" after `max_seconds`, "error" after an exception, which has this
        history as its attribute `history`.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.steps: dict[str, list[float]] = {"loss": [], "lr": [], "grad_norm": []}
        self.best_epoch = 0
        self.stopped = ""

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Plot losses, learning rate and gradient norm over the updates, to a PNG file.

        Raises
        ------
        ImportError
            If matplotlib is not installed (`pip install "cylstm[plot]"`).
        """
        from cylstm.plotting import plot_history

        plot_history(path, self)

    def __repr__(self) -> str:
        """The number of epochs and the results of the last one."""
        last: dict[str, Any] = self.epochs[-1] if self.epochs else {}
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in last.items())
        return f"History({len(self.epochs)} epochs; {numbers})"


def attach(error: BaseException, history: History) -> None:
    """Set the attribute `history` of an exception that stops training, if its class allows it."""
    with contextlib.suppress(Exception):
        error.history = history  # type: ignore[attr-defined]


def history_of(error: BaseException) -> History | None:
    """The history attached to an exception; None if training had not started."""
    history: History | None = getattr(error, "history", None)
    return history
