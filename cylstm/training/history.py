"""What happened in a training."""

import contextlib
import os
from typing import Any

STOPPED = ("", "early", "callback", "interrupted", "time", "error")  # why a training ended


class History:
    """Losses, learning rates and gradient norms of a training.

    Attributes
    ----------
    epochs : list of dict
        For each finished epoch `epoch` (from 1 on), `loss` (the mean over all that counts), `validation` (the
        loss on the validation data, if there are any) and the metrics by their names, `lr` at its end,
        `grad_norm` (the mean), `seconds`.
    steps : dict of list
        `loss`, `lr` and `grad_norm`, before it was clipped, of every update of the parameters.
    best_epoch : int
        That of the lowest validation loss, whose weights the model has after `fit`; 0 if there were no
        validation data.
    stopped : str
        Why the training ended: "" after all epochs, "early" by `patience`, "callback" by one that returned
        True, "interrupted" by Ctrl-C, "time" after `max_seconds`, "error" by an exception, which has this
        history as its attribute `history`.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.steps: dict[str, list[float]] = {"loss": [], "lr": [], "grad_norm": []}
        self.best_epoch = 0
        self.stopped = ""

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw losses, learning rate and gradient norm over the updates, to a PNG file.

        Raises
        ------
        ImportError
            If matplotlib is not installed (`pip install "cylstm[plot]"`).
        """
        from cylstm.plotting import plot_history

        plot_history(path, self)

    def __repr__(self) -> str:
        """The last epoch in numbers."""
        last: dict[str, Any] = self.epochs[-1] if self.epochs else {}
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in last.items())
        return f"History({len(self.epochs)} epochs; {numbers})"


def attach(error: BaseException, history: History) -> None:
    """Make the history an attribute of an exception that ends its training, where its class allows that."""
    with contextlib.suppress(Exception):
        error.history = history  # type: ignore[attr-defined]


def history_of(error: BaseException) -> History | None:
    """That of a training which an exception has ended; None if it had not begun."""
    history: History | None = getattr(error, "history", None)
    return history
