"""Plots of forecasts, training runs and gradients. Requires matplotlib (`pip install "cylstm[plot]"`)."""

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cylstm._system.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


class _History(Protocol):
    """The attributes of `cylstm.training.History` that are plotted."""

    @property
    def epochs(self) -> Sequence[Mapping[str, float]]: ...
    @property
    def steps(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def best_epoch(self) -> int: ...


class _PenaltySearch(Protocol):
    """Validation errors by L2 penalty and epoch, the selected penalty, and the final network's history."""

    @property
    def validation(self) -> Mapping[float, Sequence[float]]: ...
    @property
    def penalty(self) -> float: ...
    @property
    def history(self) -> _History: ...


def plot_forecasts(
    path: str | os.PathLike[str],
    values: Array,
    forecasts: Array,
    n: int,
    errors: Mapping[str, Mapping[str, Array]],
    training: _PenaltySearch,
    *,
    start: float = 0.0,
    rows_per_unit: int = 1,
    ylabel: str = "",
    xlabel: str = "row",
) -> None:
    """Plot series with their forecasts over the test rows, the errors by horizon, and the training.

    Parameters
    ----------
    path : path
        Of a PNG file, written atomically.
    values : ndarray
        (N, C).
    forecasts : ndarray
        (N, horizon, C); see `Forecaster.forecast`.
    n : int
        First test row, N without test rows.
    errors : mapping of mappings
        For each of the C series by name, the RMSE (horizon,) of each method by name; the first method is
        emphasised. Without test rows, an empty mapping for each series.
    training : object
        The attribute `training` of a fitted `Forecaster`, or any object with `validation`, a list of errors
        by epoch for each L2 penalty; `penalty`, the selected one; and the `history` of the final network.
    ylabel, xlabel : str
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

    x = start + np.arange(len(values) + forecasts.shape[1]) / rows_per_unit
    C = values.shape[1]
    figure = Figure(figsize=(14, 3.4 * C + 3.2), layout="constrained")
    parts: Any = figure.subfigures(C + 1, 1, height_ratios=[3.4] * C + [3.2])
    for c, (name, by_method) in enumerate(errors.items()):
        axes = parts[c].subplots(1, 2 if by_method else 1, width_ratios=[5, 3][: 2 if by_method else 1])
        series, *beside = np.atleast_1d(axes)
        _draw_forecasts(series, x, values[:, c], forecasts[..., c], n)
        series.set(title=name.replace("$", r"\$"), xlabel=xlabel, ylabel=ylabel)
        for axes in beside:
            _draw_errors(axes, by_method)
    left, right = parts[-1].subplots(1, 2)
    _draw_penalty_search(left, right, training)
    _write(path, figure)


def _draw_forecasts(axes: "Axes", x: Array, values: Array, forecasts: Array, n: int) -> None:
    """The end of a series, forecasts 1 and `horizon` steps ahead, and the forecast of the future."""
    N, horizon = forecasts.shape
    shown = max(0, n - 2 * horizon)
    axes.plot(x[shown:N], values[shown:], color="black", lw=1.2, label="observed")
    for h, color in {1: "tab:blue", horizon: "tab:orange"}.items():
        made = np.arange(n - 1, N - h)
        if len(made):
            axes.plot(x[made + h], forecasts[made, h - 1], color=color, lw=1, label=f"forecast {h} ahead")
    following = np.concatenate([values[-1:], forecasts[-1]])
    axes.plot(x[N - 1 :], following, "o-", color="tab:red", ms=3, lw=1, label="what follows")
    if n < N:
        axes.axvline(x[n], color="gray", ls=":", lw=1)
        axes.annotate(
            "test", (x[n], 1), xycoords=("data", "axes fraction"), xytext=(4, -12), textcoords="offset points"
        )
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize="small")


def _draw_errors(axes: "Axes", by_method: Mapping[str, Array]) -> None:
    """RMSE by number of steps ahead."""
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullFormatter

    for i, (name, error) in enumerate(by_method.items()):
        style = {"lw": 2.5, "marker": "o", "ms": 4} if i == 0 else {"lw": 1.2}
        axes.plot(range(1, len(error) + 1), error, label=name, zorder=-i, **style)
    axes.set(xlabel="steps ahead", ylabel="test RMSE", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    low, high = axes.get_ylim()
    narrow = high < 30 * low  # otherwise the minor labels would overlap
    axes.yaxis.set_minor_formatter(FormatStrFormatter("%g") if narrow else NullFormatter())
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")


def _draw_penalty_search(left: "Axes", right: "Axes", training: _PenaltySearch) -> None:
    """Validation error of each L2 penalty, and the training loss of the final network."""
    from matplotlib.ticker import MaxNLocator

    for penalty, curve in training.validation.items():
        chosen = penalty == training.penalty
        left.plot(
            range(1, len(curve) + 1), curve, "o-", ms=3, lw=2.5 if chosen else 1,
            label=f"{penalty:g}, chosen" if chosen else f"{penalty:g}",
        )  # fmt: skip
    left.set(title="Validation", xlabel="epoch", ylabel="RMSE / deviation")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.legend(title="L2", frameon=False, fontsize="small")
    steps, epochs = training.history.steps["loss"], training.history.epochs
    ends = np.linspace(0, len(steps), len(epochs) + 1)[1:]
    right.plot(np.arange(1, len(steps) + 1), steps, alpha=0.4, lw=0.8, label="each update")
    right.plot(ends, [e["loss"] for e in epochs], "o-", color="tab:blue", ms=3, label="each epoch")
    right.set(title="Training, all rows to learn from", xlabel="updates", ylabel="loss")
    right.legend(frameon=False, fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)


def _write(path: str | os.PathLike[str], figure: "Figure") -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())


def plot_gradient_flow(path: str | os.PathLike[str], flows: Mapping[str, Array]) -> None:
    """Plot the norm of dL/dh_t against the distance from the last step.

    Parameters
    ----------
    path : path
        Of a PNG file, written atomically.
    flows : mapping of str to ndarray
        Results of `diagnostics.gradient_flow`, (L·D, T), by the name of the layer.

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
    _write(path, figure)


def _log_if_wide(axes: "Axes", values: Sequence[float]) -> None:
    """Use a logarithmic scale if the positive values span more than a factor of ten."""
    if values and max(values) > 10 * min(values) > 0:
        axes.set_yscale("log")


def plot_history(path: str | os.PathLike[str], history: _History) -> None:
    """Plot losses, learning rate and gradient norm of a training run over its updates.

    Parameters
    ----------
    path : path
        Of a PNG file, written atomically.
    history : History
        As returned by `Trainer.fit`, or any object with its attributes `epochs`, `steps` and `best_epoch`.

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
    _log_if_wide(above, [*steps["loss"], *(e["validation"] for e in epochs if "validation" in e)])
    above.legend(frameon=False)
    middle.plot(x, steps["lr"], color="tab:green", lw=1)
    middle.set(ylabel="learning rate")
    below.plot(x, steps["grad_norm"], color="tab:red", lw=0.8)
    below.set(ylabel="‖gradient‖", xlabel="updates")
    _log_if_wide(below, steps["grad_norm"])
    for axes in (above, middle, below):
        axes.grid(alpha=0.3)
    _write(path, figure)
