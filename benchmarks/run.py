"""Benchmark cylstm against PyTorch, ONNX Runtime, OpenVINO, JAX and the NumPy reference on named shapes.

    python benchmarks/run.py > results.jsonl         # all shapes, about ten minutes
    python benchmarks/run.py --shapes medium-16 tiny-1 --threads 1
    python benchmarks/run.py --groups step --threads 1

Every contender runs in a separate process. The processes take turns within each round, so that variations of
the machine affect all of them. The result of a round is the median of its calls, that of a contender the
median over rounds, and a ratio the median of the ratios of rounds. Weights are packed before inference calls,
and within every training call.
JSON lines are written to standard output, first one about the machine, then one per measurement. A table is
written to standard error. Shapes of the group "memory" are not timed: the peak memory of a new process is
measured.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contenders import CONTENDERS, NEEDED, able
from shapes import MODES, SHAPES, Shape, modes_of
from tqdm import tqdm

from cylstm._system.threads import usable_cpus


class Contender:
    """A process that times one library."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        script = Path(__file__).with_name("contenders.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(script), name, str(threads)], **pipes)
        self.version = self.answer()

    def answer(self) -> Any:
        """Read the next answer of the process."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, shape: Shape, mode: str, **more: Any) -> Any:
        """Send a request and return the answer."""
        print(json.dumps({"shape": shape, "mode": mode, **more}), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(
    contenders: list[Contender], shape: Shape, mode: str, rounds: int, seconds: float, limit: float
) -> list[dict]:
    """Return one record per contender; ratios are its time over cylstm's, above 1 if cylstm is faster."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for i in range(rounds):
        for contender in contenders[i % len(contenders) :] + contenders[: i % len(contenders)]:
            if contender.name != "reference" or i == 0:  # one round of the slow reference is enough
                turn = contender.ask(shape, mode, seconds=seconds)
                times[contender.name].append(statistics.median(turn))
    records = []
    for contender in contenders:
        own = times[contender.name]
        gflops = shape.flops(mode) / statistics.median(own) / 1e9
        pairs = zip(own, times["cylstm"], strict=False)
        records.append(
            {
                **about_shape(shape, mode, contender),
                "median_us": statistics.median(own) * 1e6,
                "min_us": min(own) * 1e6,
                "max_us": max(own) * 1e6,
                "rounds_us": [seconds * 1e6 for seconds in own],
                "gflops": gflops,
                "share_of_limit": gflops / limit,
                "ratio": statistics.median(a / b for a, b in pairs),
            }
        )
    return records


def measure_memory(names: list[str], shape: Shape, mode: str, threads: int) -> list[dict]:
    """Measure peak memory of new processes relative to that before the call."""
    records = []
    for name in names:
        contender = Contender(name, threads)
        peak = contender.ask(shape, mode, memory=True)
        records.append({**about_shape(shape, mode, contender), "peak_bytes": peak})
        contender.close()
    return records


def about_shape(shape: Shape, mode: str, contender: Contender) -> dict:
    """Return the fields of a record that describe the measurement."""
    facts = {key: value for key, value in shape._asdict().items() if key not in ("name", "why")}
    return {
        "shape": shape.name, **facts, "mode": mode, "contender": contender.name, "version": contender.version,
    }  # fmt: skip


def arithmetic_limit(threads: int) -> float:
    """Measure the GFLOP/s of a large float32 product with NumPy's BLAS, the best of several runs."""
    import threadpoolctl

    a, best = np.ones((2048, 2048), np.float32), 0.0
    with threadpoolctl.threadpool_limits(threads):
        for _ in range(7):
            start = time.perf_counter()
            a @ a
            best = max(best, 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return best


def machine(threads: int, limit: float | None = None) -> dict:
    """Describe the machine and the software versions."""
    from cylstm._system import versions

    switches = ("OPENBLAS_", "OMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "CYLSTM_", "XLA_")
    return {
        **versions.describe(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(switches)},
        "threads": f"{threads} of {os.cpu_count()} CPUs",
        **({} if limit is None else {"sgemm_gflops": limit}),
        "compiler": platform.python_compiler(),
    }


def row(shape: Shape, mode: str, records: list[dict], names: list[str]) -> str:
    """Format a table row: microseconds or MB of each contender, and its ratio to cylstm."""
    cells = [shape.name, f"{shape.B}, {shape.T}, {shape.I}, {shape.H}", mode]
    by_name = {record["contender"]: record for record in records}
    for name in names:
        record = by_name.get(name)
        if record is None:
            cells.append("-")
        elif "peak_bytes" in record:
            cells.append(f"{record['peak_bytes'] / 1e6:.0f} MB")
        else:
            ratio = "" if name == "cylstm" else f" ({record['ratio']:.2f})"
            cells.append(f"{record['median_us']:.4g}{ratio}")
    return "| " + " | ".join(cells) + " |"


def chosen_contenders(wanted: list[str] | None) -> list[str]:
    """Return the installed contenders, cylstm first."""
    names = wanted or [name for name in CONTENDERS if name != "cylstm-session"]  # see serving.py
    for name in list(names):
        missing = [module for module in NEEDED.get(name, ()) if not importlib.util.find_spec(module)]
        if missing:
            tell(f"{name}: left out, for {' and '.join(missing)} is not installed")
            names = [other for other in names if other != name]
    return ["cylstm", *(name for name in names if name != "cylstm")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, groups = [shape.name for shape in SHAPES], list(dict.fromkeys(shape.group for shape in SHAPES))
    parser.add_argument("--shapes", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--groups", nargs="+", choices=groups, default=groups)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.15, help="duration of each turn")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    chosen = chosen_contenders(options.contenders)
    limit = arithmetic_limit(options.threads)
    contenders = [Contender(name, options.threads) for name in chosen]
    about = machine(options.threads, limit)
    print(json.dumps(about), flush=True)
    tell(f"{about['cpu']}, {options.threads} threads, " + ", ".join(c.version for c in contenders))
    tell("µs of a call; in brackets, how many times cylstm's\n")
    tell("| shape | B, T, I, H | pass | " + " | ".join(chosen) + " |\n|" + "---|" * (3 + len(chosen)))
    wanted = [
        (shape, mode)
        for shape in SHAPES
        if (shape.name in options.shapes if options.shapes else shape.group in options.groups)
        for mode in modes_of(shape)
        if mode in options.modes
    ]
    for shape, mode in tqdm(wanted, unit="shape", disable=None):
        names = [name for name in chosen if able(name, shape, mode)]
        if shape.group == "memory":
            records = measure_memory(names, shape, mode, options.threads)
        else:
            having = [contender for contender in contenders if contender.name in names]
            records = measure(having, shape, mode, options.rounds, options.seconds, limit)
        print("\n".join(map(json.dumps, records)), flush=True)
        tell(row(shape, mode, records, chosen))


def tell(line: str) -> None:
    """Print to standard error."""
    tqdm.write(line, file=sys.stderr)


if __name__ == "__main__":
    main()
