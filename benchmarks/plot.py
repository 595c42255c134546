"""Plot the speedup of cylstm over other libraries for each shape.

    python benchmarks/plot.py results.jsonl picture.png

A point for each contender, above 1 where cylstm is faster; the bar is the fastest of them.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"torch": "#d95f02", "onnxruntime": "#7570b3", "openvino": "#1b9e77", "jax": "#e7298a"}
TITLES = {"forward": "inference", "training": "training", "step": "one step"}


def lines(path: Path) -> list[dict]:
    """Read all records of a result."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(path: Path) -> tuple[dict, list[dict]]:
    """Read the description of the machine, and the timings."""
    about, *records = lines(path)
    return about, [record for record in records if "ratio" in record]


def draw(records: list[dict], about: dict, picture: Path) -> None:
    """Plot a panel for each pass with a row for each shape."""
    modes = [mode for mode in TITLES if any(r["mode"] == mode for r in records)]
    shapes = {m: list(dict.fromkeys(r["shape"] for r in records if r["mode"] == m)) for m in modes}
    height = 1.6 + 0.24 * max(map(len, shapes.values()))
    figure, axes = plt.subplots(1, len(modes), figsize=(4.2 * len(modes), height), squeeze=False)
    for axis, mode in zip(axes[0], modes, strict=True):
        for row, name in enumerate(shapes[mode]):
            found = [
                r for r in records if (r["mode"], r["shape"]) == (mode, name) and r["contender"] in COLORS
            ]
            if found:
                axis.barh(row, min(r["ratio"] for r in found) - 1, left=1, color="#cccccc", zorder=1)
            for record in found:
                axis.plot(record["ratio"], row, "o", color=COLORS[record["contender"]], zorder=2)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axis.set_yticks(range(len(shapes[mode])), shapes[mode], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel("times faster than …")
        axis.set_title(TITLES[mode])
        axis.grid(axis="x", alpha=0.3)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=c, label=n) for n, c in COLORS.items()]
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), fontsize=8, frameon=False)
    figure.suptitle(f"cylstm on {about['cpu']}, {about['threads']}", x=0.01, ha="left", fontsize=10)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    about, records = read(options.result)
    draw(records, about, options.picture)


if __name__ == "__main__":
    main()
