"""Run the benchmarks; write the summary of README.md, and the tables and picture of docs/speed.md.

    python benchmarks/readme.py                 # about twenty minutes
    python benchmarks/readme.py --from results.jsonl --models-from models.jsonl

Tables are written between markers in README.md and docs/speed.md; each is based on one result.
"""

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path
from statistics import geometric_mean

import models
import plot

from cylstm._system import versions
from cylstm._system.threads import usable_cpus

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("torch", "onnxruntime", "openvino", "jax")
GROUPS = {
    "main": "one LSTM layer",
    "other": "other layers",
    "variant": "variants of one layer",
    "step": "one step from Python",
}


def table(about: dict, records: list[dict]) -> str:
    """Format microseconds, ratios to cylstm, and the fraction of the peak GFLOP/s."""
    lines = [
        f"{about['cpu']} ({about['cpu instruction sets'].split(', ')[-1]}), {about['threads']}; "
        + ", ".join(dict.fromkeys(r["version"] for r in records))
        + f". A large float32 product by OpenBLAS: {about['sgemm_gflops']:.0f} GFLOP/s.",
        "",
        "| shape | B, T, I, H | pass | cylstm | of sgemm | cylstm-blas | " + " | ".join(PEERS) + " |",
        "|" + "---|" * (6 + len(PEERS)),
    ]
    for shape, mode in dict.fromkeys((r["shape"], r["mode"]) for r in records):
        own = {r["contender"]: r for r in records if (r["shape"], r["mode"]) == (shape, mode)}
        ours = own["cylstm"]
        cells = [shape, f"{ours['B']}, {ours['T']}, {ours['I']}, {ours['H']}", mode]
        cells += [f"{ours['median_us']:,.0f}" if mode != "step" else f"{ours['median_us']:.1f}"]
        cells += [f"{ours['share_of_limit']:.0%}"]
        for name in ("cylstm-blas", *PEERS):
            cells.append(f"{own[name]['ratio']:.2f}" if name in own else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def means(records: list[dict]) -> str:
    """Format geometric means of the speedup over the best peer, by group and pass."""
    lines = ["| | inference | training | step |", "|---|---|---|---|"]
    for group, title in GROUPS.items():
        cells = []
        for mode in ("forward", "training", "step"):
            ratios = [r["ratio"] for r in best_peers(records, group, mode).values()]
            cells.append(f"{geometric_mean(ratios):.2f}, minimum {min(ratios):.2f}" if ratios else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def best_peers(records: list[dict], group: str, mode: str) -> dict[str, dict]:
    """Return the record of the fastest peer for each shape of a group and pass."""
    best: dict[str, dict] = {}
    for r in records:
        if (r["group"], r["mode"]) == (group, mode) and r["contender"] in PEERS:
            best[r["shape"]] = min(best.get(r["shape"], r), r, key=lambda record: record["ratio"])
    return best


def peaks_of(path: Path) -> dict[str, float]:
    """Return the peak memory by contender for the shape of the group "memory"."""
    _, *records = plot.lines(path)
    return {r["contender"]: r["peak_bytes"] for r in records if "peak_bytes" in r}


def summary(about: dict, records: list[dict], peaks: dict[str, float]) -> str:
    """Format the table of README.md: geometric mean, and worst case with its peer."""
    lines = ["| | geometric mean | worst case |", "|---|---|---|"]
    rows = ("inference", "main", "forward"), ("training", "main", "training"), ("one step", "step", "step")
    for title, group, mode in rows:
        best = best_peers(records, group, mode)
        if not best:
            continue
        worst = min(best.values(), key=lambda record: record["ratio"])
        slower = f": {worst['contender']} is faster" if worst["ratio"] < 1 else ""
        sizes = f"T {worst['T']}, B {worst['B']}, H {worst['H']}"
        mean = geometric_mean(r["ratio"] for r in best.values())
        what = f"{title}, {len(best)} shapes of one LSTM layer"
        lines.append(f"| {what} | {mean:.2f} | {worst['ratio']:.2f} ({sizes}{slower}) |")
    if "torch" in peaks:
        share = peaks["cylstm"] / peaks["torch"]
        lines.append(
            f"| memory of a training pass, T 1000, B 64, H 256 | {share:.2f} of PyTorch's "
            f"| {peaks['cylstm'] / 1e6:.0f} MB, PyTorch {peaks['torch'] / 1e6:.0f} MB |"
        )
    return "\n".join([*lines, "", f"{about['cpu']}, {about['threads']}."]) + "\n"


def memory(peaks: dict[str, float]) -> str:
    """Format the peaks as a sentence."""
    if "torch" not in peaks:
        return ""
    share = peaks["cylstm"] / peaks["torch"]
    return (
        f"\nMemory of a training pass of `long-64` (T 1000, B 64, I and H 256), above inputs and weights: "
        f"{peaks['cylstm'] / 1e6:.0f} MB, PyTorch {peaks['torch'] / 1e6:.0f} MB ({share:.2f}).\n"
    )


def result_of(script: str, what: str) -> Path:
    """Run a benchmark and return the file with its result."""
    cpu = re.sub(r"\W+", "-", versions.describe()["cpu"]).strip("-").lower()
    path = RESULTS / f"{datetime.date.today()}-{cpu}-{what}.jsonl"
    with path.open("w", encoding="utf-8") as out:
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], stdout=out, check=True)
    return path


def between(text: str, name: str, body: str) -> str:
    """Replace the body between the markers of this name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    return re.sub(f"{begin}.*{end}", lambda _: begin + "\n" + body + "\n" + end, text, flags=re.DOTALL)


def write(page: str, **tables: str) -> None:
    """Replace the tables of a page by name."""
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for name, body in tables.items():
        text = between(text, name, body)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="result", type=Path, help="a result of run.py, instead of a new one")
    parser.add_argument("--models-from", type=Path, help="a result of models.py, instead of a new one")
    options = parser.parse_args()
    path = options.result or result_of("run.py", f"{usable_cpus()}-threads")
    about, records = plot.read(path)
    plot.draw(records, about, RESULTS / "speed-up.png")
    peaks = peaks_of(path)
    _, *of_models = plot.lines(options.models_from or result_of("models.py", "models"))
    tables = means(records) + "\n" + table(about, records) + memory(peaks)
    write("README.md", summary=summary(about, records, peaks))
    write("docs/speed.md", benchmarks=tables, models=models.table(of_models))


if __name__ == "__main__":
    main()
