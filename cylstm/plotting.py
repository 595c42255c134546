"""Pictures of forecasts. matplotlib is needed here only (`pip install "cylstm[plot]"`)."""

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cylstm import files

if TYPE_CHECKING:
    from cylstm.training.history import History

Array = NDArray[np.float64]


def plot_forecasts(
    path: str | os.PathLike[str],
    values: Array,
    forecasts: Array,
    n: int,
    errors: Mapping[str, Array],
    *,
    title: str,
    start: float = 0.0,
    rows_per_unit: int = 1,
    ylabel: str = "",
    xlabel: str = "row",
) -> None:
    """Draw one series with its forecasts over the test rows, and the errors by horizon.

    Parameters
    ----------
    path : path
        Of a PNG file, written atomically.
    values : ndarray
        (N,).
    forecasts : ndarray
        (N, horizon); see `Forecaster.forecast`.
    n : int
        First test row.
    errors : mapping of str to ndarray
        RMSE by horizon (horizon,) for each method; the first is drawn strongest.
    title, ylabel, xlabel : str
    start : float
        x of row 0.
    rows_per_unit : int
        Rows between x and x + 1.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator

    N, horizon = forecasts.shape
    x = start + np.arange(N + horizon) / rows_per_unit
    shown = max(0, n - horizon)
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 2])
    above.plot(x[shown:N], values[shown:], color="black", lw=1.2, label="observed")
    for h, color in {1: "tab:blue", horizon: "tab:orange"}.items():
        made = np.arange(n - 1, N - h)
        above.plot(x[made + h], forecasts[made, h - 1], color=color, lw=1, label=f"forecast {h} ahead")
    following = np.concatenate([values[-1:], forecasts[-1]])
    above.plot(x[N - 1 :], following, "o-", color="tab:red", ms=3, lw=1, label="forecast of what follows")
    above.axvline(x[n], color="gray", ls=":", lw=1)
    above.annotate(
        "test", (x[n], 1), xycoords=("data", "axes fraction"), xytext=(4, -12), textcoords="offset points"
    )
    above.set(title=title.replace("$", r"\$"), xlabel=xlabel, ylabel=ylabel)
    above.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)

    for i, (name, error) in enumerate(errors.items()):
        style = {"lw": 2.5, "marker": "o", "ms": 4} if i == 0 else {"lw": 1.2}
        below.plot(range(1, horizon + 1), error, label=name, zorder=-i, **style)
    below.set(xlabel="steps ahead", ylabel="test RMSE", yscale="log")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    below.yaxis.set_minor_formatter(FormatStrFormatter("%g"))
    if errors:
        below.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    files.write_atomically(path, picture.getvalue())


def plot_gradient_flow(path: str | os.PathLike[str], flows: Mapping[str, Array]) -> None:
    """Draw how the norm of dL/dh_t falls or grows with the distance from the last step.

    Parameters
    ----------
    path : path
        Of a PNG file, written atomically.
    flows : mapping of str to ndarray
        What `diagnostics.gradient_flow` returned, (L·D, T), by the name of the layer.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, norms in flows.items():
        for k, norm in enumerate(norms):
            axes.plot(
                np.arange(len(norm)) - len(norm) + 1, norm, label=name if len(norms) == 1 else f"{name} {k}"
            )
    axes.set(
        xlabel="steps before the last",
        ylabel="‖∂L/∂h‖",
        yscale="log",
        title="How far back the gradient reaches",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    files.write_atomically(path, picture.getvalue())


def plot_history(path: str | os.PathLike[str], history: "History") -> None:
    """Draw losses, learning rate and gradient norm of a training over its updates.

    Parameters
    ----------
    path : path
        Of a PNG file, written atomically.
    history : History
        As `Trainer.fit` returns it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    steps, epochs = history.steps, history.epochs
    n = len(steps["loss"])
    x = np.arange(1, n + 1)
    ends = np.linspace(0, n, len(epochs) + 1)[1:]
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1])
    above.plot(x, steps["loss"], color="tab:blue", alpha=0.3, lw=0.8, label="each update")
    above.plot(ends, [e["loss"] for e in epochs], "o-", color="tab:blue", ms=3, label="training, each epoch")
    if any("validation" in e for e in epochs):
        above.plot(
            ends, [e["validation"] for e in epochs], "o-", color="tab:orange", ms=3, label="validation"
        )
    if history.best_epoch:
        above.axvline(ends[history.best_epoch - 1], color="gray", ls=":", lw=1, label="best epoch")
    above.set(ylabel="loss", title="Training")
    if min([*steps["loss"], *(e.get("validation", 1) for e in epochs)], default=0) > 0:
        above.set_yscale("log")
    above.legend(frameon=False)
    middle.plot(x, steps["lr"], color="tab:green", lw=1)
    middle.set(ylabel="learning rate")
    below.plot(x, steps["grad_norm"], color="tab:red", lw=0.8)
    below.set(ylabel="‖gradient‖", xlabel="updates", yscale="log")
    for axes in (above, middle, below):
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    files.write_atomically(path, picture.getvalue())
