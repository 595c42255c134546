"""Times cylstm beside PyTorch, ONNX Runtime, OpenVINO and the NumPy reference on named shapes.

    python benchmarks/run.py > results.jsonl         # all of it, about three minutes
    python benchmarks/run.py --shapes medium-16 tiny-1 --threads 1

Every contender has a process of its own, and the processes take turns within each round, so that a
slow moment of the machine meets all of them. The figure of a round is the median of its
calls, that of a contender the median over rounds, a ratio the median of the rounds' ratios.
Lines of JSON go to standard output, first one about the machine, then one a measurement, and
a table for people to standard error.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, FORWARD_ONLY, NEEDED
from shapes import SHAPES, Shape

from cylstm.threads import usable_cpus

MODES = ("forward", "training")


class Contender:
    """A process that times one library."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        script = Path(__file__).with_name("contenders.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(script), name, str(threads)], **pipes)
        self.version = self.answer()

    def answer(self) -> Any:
        """What the process says next."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with status {self.process.wait()}")
        return json.loads(line)

    def turn(self, shape: Shape, mode: str, seconds: float) -> float:
        """Median seconds of a call, over one turn."""
        print(
            json.dumps({"shape": shape, "mode": mode, "seconds": seconds}),
            file=self.process.stdin,
            flush=True,
        )
        return statistics.median(self.answer())


def measure(contenders: list[Contender], shape: Shape, mode: str, rounds: int, seconds: float) -> list[dict]:
    """One record a contender; ratios are its time over cylstm's, above 1 where cylstm is faster."""
    times = {contender.name: [] for contender in contenders}
    for i in range(rounds):
        for contender in contenders[i % len(contenders) :] + contenders[: i % len(contenders)]:
            times[contender.name].append(contender.turn(shape, mode, seconds))
    records = []
    for contender in contenders:
        own = times[contender.name]
        records.append(
            {
                "shape": shape.name,
                **{key: getattr(shape, key) for key in "BTIH"},
                "mode": mode,
                "contender": contender.name,
                "version": contender.version,
                "median_us": statistics.median(own) * 1e6,
                "min_us": min(own) * 1e6,
                "max_us": max(own) * 1e6,
                "rounds_us": [seconds * 1e6 for seconds in own],
                "gflops": shape.flops(mode) / statistics.median(own) / 1e9,
                "ratio": statistics.median(a / b for a, b in zip(own, times["cylstm"], strict=True)),
            }
        )
    return records


def machine(threads: int) -> dict:
    """What the figures belong to."""
    from cylstm import versions

    switches = ("OPENBLAS_", "OMP_", "MKL_", "ONEDNN_", "ATEN_", "CYLSTM_")
    return {
        **versions.describe(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(switches)},
        "threads": f"{threads} of {os.cpu_count()} CPUs",
        "compiler": platform.python_compiler(),
    }


def row(shape: Shape, mode: str, records: list[dict], names: list[str]) -> str:
    """A line of the table: microseconds of each contender, and its ratio to cylstm."""
    cells = [shape.name, f"{shape.B}, {shape.T}, {shape.I}, {shape.H}", mode]
    by_name = {record["contender"]: record for record in records}
    for name in names:
        if name not in by_name:
            cells.append("-")
            continue
        ratio = "" if name == "cylstm" else f" ({by_name[name]['ratio']:.2f})"
        cells.append(f"{by_name[name]['median_us']:.0f}{ratio}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [shape.name for shape in SHAPES]
    parser.add_argument(
        "--shapes", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="of calls in each turn")
    options = parser.parse_args()
    chosen = options.contenders or list(CONTENDERS)
    for name in list(chosen):
        missing = [module for module in NEEDED.get(name, ()) if not importlib.util.find_spec(module)]
        if missing:
            tell(f"{name}: left out, for {' and '.join(missing)} is not installed")
            chosen.remove(name)
    chosen = ["cylstm", *(name for name in chosen if name != "cylstm")]
    contenders = [Contender(name, options.threads) for name in chosen]
    about = machine(options.threads)
    print(json.dumps(about), flush=True)
    tell(f"{about['cpu']}, {options.threads} threads, " + ", ".join(c.version for c in contenders))
    tell("µs of a call; in brackets, how many times cylstm's\n")
    tell("| shape | B, T, I, H | pass | " + " | ".join(chosen) + " |\n|" + "---|" * (3 + len(chosen)))
    for shape in (shape for shape in SHAPES if shape.name in options.shapes):
        for mode in options.modes:
            able = [c for c in contenders if mode == "forward" or c.name not in FORWARD_ONLY]
            records = measure(able, shape, mode, options.rounds, options.seconds)
            print("\n".join(map(json.dumps, records)), flush=True)
            tell(row(shape, mode, records, chosen))


def tell(line: str) -> None:
    """Print for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
