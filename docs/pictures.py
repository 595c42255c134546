"""Makes the pictures of the documentation.

    python docs/pictures.py                       # all of them, about three minutes
    python docs/pictures.py gates memory          # some

`memory` and `curves` are drawn from the results of benchmarks/memory.py and benchmarks/tasks/curves.py in
benchmarks/results. The pictures of speeds there are made by benchmarks/readme.py and benchmarks/scaling.py.
"""

import argparse
import json
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import cylstm
from cylstm import cli, losses, optim

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FOLDER = Path(__file__).with_name("pictures")
OURS, THEIRS, SEGMENTS = "#1f77b4", "#d95f02", "#1b9e77"


def write(figure: Figure, path: Path) -> None:
    """A PNG of few colours, which is a third of the size."""
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.png"
        figure.savefig(full, dpi=110)
        reduce(full, path)


def reduce(full: Path, path: Path, width: int = 1100) -> None:
    """The same picture, no wider than a page shows it on a fine screen."""
    with Image.open(full) as opened:
        picture = opened.convert("RGB")
    if picture.width > width:
        picture = picture.resize(
            (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
        )
    picture.quantize(256).save(path, optimize=True)


def lines(pattern: str) -> list[dict]:
    """What the newest result of this name holds, after the line about the machine."""
    newest = sorted(RESULTS.glob(pattern))[-1]
    return [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()][1:]


def worked_example(path: Path) -> None:
    """The parts of dL_3/dW_f, from the steps of tutorials/equation-to-kernel.md."""
    layer, x, first, dh = example_of_the_tutorial()
    parts = parts_by_step(layer, x, first, dh)
    shown = {f"step {t}": part for t, part in enumerate(parts, 1)} | {"sum": sum(parts)}
    largest = max(abs(part).max() for part in shown.values())
    figure = Figure(figsize=(8.5, 1.7), layout="constrained")
    axes = figure.subplots(1, len(shown))
    for axis, (name, part) in zip(axes, shown.items(), strict=True):
        axis.imshow(part, cmap="RdBu_r", vmin=-largest, vmax=largest)
        for (j, k), value in np.ndenumerate(part):
            dark = abs(value) > 0.6 * largest
            axis.text(
                k, j, f"{1e3 * value:.1f}", ha="center", va="center", color="white" if dark else "black"
            )
        axis.set_xticks(range(4), ["h₁", "h₂", "x₁", "x₂"])
        axis.set_yticks(range(2), ["unit 1", "unit 2"] if axis is axes[0] else ["", ""])
        axis.set_title(name)
    figure.suptitle("∂L₃/∂W_f, in thousandths", fontsize=10)
    write(figure, path)


def example_of_the_tutorial() -> tuple:
    """Its layer, x, first state and dL_3/dh_3, as the page says them."""
    page = (ROOT / "docs" / "tutorials" / "equation-to-kernel.md").read_text(encoding="utf-8")
    names: dict = {}
    wanted = (
        "import numpy",
        "import cylstm",
        "layer = ",
        "layer.load_state_dict",
        "x = ",
        "first = ",
        "dh_3 = ",
    )
    code = page.replace("\n... ", "\n    ").replace("\n...\n", "\n")
    for block in code.split("\n>>> ")[1:]:
        source = block.split("\n```")[0]
        if source.startswith(wanted):
            exec(source, names)
    return names["layer"], names["x"], names["first"], names["dh_3"]


def parts_by_step(layer: cylstm.LSTM, x: np.ndarray, first: tuple, dh: np.ndarray) -> list[np.ndarray]:
    """What each step adds to the gradient of the forget gate's weights."""
    H, before = layer.hidden_size, [first]
    for x_t in x[:-1]:
        before.append(layer.eval()(x_t[None], before[-1])[1])
    parts, gradient = [], (dh[None], np.zeros((1, H)))
    for x_t, state in zip(x[::-1], before[::-1], strict=True):
        layer.train()(x_t[None], state)
        layer.zero_grad()
        _, gradient = layer.backward(np.zeros((1, H)), gradient)
        both = [layer.gradients[name][H : 2 * H] for name in ("weight_hh_l0", "weight_ih_l0")]
        parts.append(np.hstack(both))
    return parts[::-1]


def gates(path: Path) -> None:
    """Gates and memory of an LSTM that has learned to add two marked numbers, on one sequence."""
    sys.path.append(str(ROOT / "examples"))
    from long_memory import Adding, layer_for

    T = 50
    layer = layer_for("LSTM", T)
    model = cylstm.Sequential(layer, cylstm.Pooling("last"), cylstm.Linear(layer.hidden_size, 1, seed=1))
    trainer = cylstm.Trainer(
        model, losses.MSE(), optim.Adam(5e-3), schedule=optim.CosineDecay(), clip_norm=1.0, seed=0
    )
    trainer.fit(Adding(T, 50, 1000), epochs=1)
    x = next(Adding(T, 1, 1).epoch()).x
    seen = {name: values[0, :, 0] for name, values in layer.trace(x).items()}  # (T, H)
    marked = x[:, 0, 1] > 0
    order = np.argsort(seen["i"][~marked].mean(axis=0) - seen["i"][marked].mean(axis=0))[:16]
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    rows = figure.subplots(4, 1, sharex=True, height_ratios=[1, 2, 2, 2])
    rows[0].bar(np.arange(T), x[:, 0, 0], color=np.where(marked, "#d62728", "#cccccc"))
    rows[0].set(ylabel="x", title="Two marked numbers (red) are to be added")
    bound = abs(seen["c"][:, order]).max()
    panels = {
        "i": ("input gate", 0, 1, "Blues"),
        "f": ("forget gate", 0, 1, "Blues"),
        "c": ("memory C", -bound, bound, "RdBu_r"),
    }
    for axis, (name, (title, low, high, colors)) in zip(rows[1:], panels.items(), strict=True):
        values = seen[name].T[order]
        image = axis.imshow(values, aspect="auto", cmap=colors, vmin=low, vmax=high, interpolation="nearest")
        axis.set(ylabel="units")
        axis.set_yticks([])
        figure.colorbar(image, ax=axis, label=title)
    rows[-1].set_xlabel("step")
    write(figure, path)


def memory(path: Path) -> None:
    """What a training adds to a new process, over T."""
    records = lines("*-memory.jsonl")
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    names = {
        "torch": ("PyTorch", THEIRS), "cylstm": ("cylstm", OURS),
        "segments": ('cylstm, segments="auto"', SEGMENTS),
    }  # fmt: skip
    for key, (label, color) in names.items():
        peaks = [record["peaks"][key] / 1e6 for record in records]
        axes.loglog([record["T"] for record in records], peaks, "o-", label=label, color=color)
        axes.annotate(
            f"{peaks[-1]:,.0f} MB", (records[-1]["T"], peaks[-1]), xytext=(6, -3), textcoords="offset points"
        )
    first = records[0]
    axes.set(
        xlabel="time steps T",
        ylabel="MB",
        title=f"Memory of a training (B {first['B']}, I and H {first['H']})",
    )
    axes.set_xlim(right=1.8 * records[-1]["T"])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write(figure, path)


def curves(path: Path) -> None:
    """The same training in both libraries, over updates and over the CPU's time."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    records = {record["library"]: record for record in lines("*-curves.jsonl")}
    styles = {"torch": ("PyTorch", THEIRS, 3.5, 0.6), "cylstm": ("cylstm", OURS, 1.2, 1)}
    for name, (label, color, width, alpha) in styles.items():
        loss, seconds = records[name]["loss"], records[name]["cpu_seconds"]
        style = {"label": label, "color": color, "alpha": alpha}
        left.plot(np.arange(1, len(loss) + 1), loss, lw=width, **style)
        right.plot(seconds, loss, lw=1.2, **style)
        right.plot(seconds[-1], loss[-1], "o", color=color, ms=4)
    left.set(xlabel="updates", ylabel="loss, nats a character", title="The same losses")
    right.set(xlabel="seconds of one CPU since the first", title="in other times")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    write(figure, path)


def forecast(path: Path) -> None:
    """What `cylstm demo` draws."""
    with tempfile.TemporaryDirectory() as folder:
        if cli.main(["demo", "--folder", folder]):
            raise SystemExit("cylstm demo failed")
        reduce(Path(folder) / "elnino.png", path, 1400)


def of_example(name: str) -> Callable[[Path], None]:
    """What an example draws."""

    def draw(path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            full = str(Path(folder) / "full.png")
            arguments, sys.argv = sys.argv, [f"{name}.py", "--plot", full]
            try:
                runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
            finally:
                sys.argv = arguments
            reduce(Path(full), path)

    return draw


PICTURES: dict[str, Callable[[Path], None]] = {
    "worked-example": worked_example,
    "forecast": forecast,
    "curves": curves,
    "memory": memory,
    "gates": gates,
    "long-memory": of_example("long_memory"),
    "attention": of_example("attention"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: docs/pictures)")
    options = parser.parse_args()
    for name in options.names or PICTURES:
        PICTURES[name](options.folder / f"{name}.png")
        print(f"Saved {options.folder / name}.png")


if __name__ == "__main__":
    main()
