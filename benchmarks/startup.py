"""Benchmark the import time of libraries in addition to that of NumPy.

    python benchmarks/startup.py > startup.jsonl     # about a minute

Bytecode is cached by a first import that is not measured. The libraries take turns in each round.
JSON lines are written to standard output, a table to standard error.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys

from run import machine, tell
from tqdm import trange

LIBRARIES = ("numpy", "cylstm", "onnxruntime", "openvino", "torch")
ROUNDS = 20
IMPORT = """
import importlib, sys, time
name = sys.argv[1]
if name != "numpy":
    import numpy
start = time.perf_counter()
importlib.import_module(name)
print(time.perf_counter() - start)
"""


def milliseconds(library: str) -> float:
    """Measure an import in a new process."""
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", IMPORT, library]
    return 1e3 * float(subprocess.run(command, env=cached, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    libraries = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    times: dict[str, list[float]] = {name: [] for name in libraries}
    for name in libraries:
        milliseconds(name)
    for _ in trange(ROUNDS, unit="round", disable=None):
        for name in libraries:
            times[name].append(milliseconds(name))
    print(json.dumps(machine(1)))
    for name, rounds in times.items():
        record = {"library": name, "median_ms": statistics.median(rounds), "rounds_ms": rounds}
        print(json.dumps(record))
        tell(f"{name:12} {record['median_ms']:7.1f} ms, {min(rounds):.1f} to {max(rounds):.1f}")


if __name__ == "__main__":
    main()
