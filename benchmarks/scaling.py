"""Measure cylstm over a range of T, B and H, and plot whether the cost is linear in T, B and (I + H) H.

    python benchmarks/scaling.py benchmarks/results/scaling.png > scaling.jsonl

Drawn is the time of a step of one sequence: flat, or falling where fixed costs fade, is linear. Rises at the
sizes of caches are real: weights are read from there.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import cylstm

BASE = {"T": 100, "B": 16, "H": 128}
RANGES = {
    "T": (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000),
    "B": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "H": (8, 16, 32, 64, 128, 256, 512, 1024, 2048),
}


def seconds(T: int, B: int, H: int, mode: str) -> float:
    """Measure the median duration of a call with I = H."""
    layer = cylstm.LSTM(H, H, seed=0)
    x = np.random.default_rng(0).standard_normal((T, B, H)).astype(np.float32)
    if mode == "training":
        layer.train()

    def call() -> None:
        y, _ = layer(x)
        if mode == "training":
            layer.backward(y, need_dx=False)

    call()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 0.5 and len(times) < 500):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    cases = [
        (name, value, mode) for name in RANGES for value in RANGES[name] for mode in ("forward", "training")
    ]
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for name, value, mode in tqdm(cases, unit="case", disable=None):
        sizes = BASE | {name: value} | ({"T": 20} if name == "H" and value >= 1024 else {})
        flops = 2 * sizes["T"] * sizes["B"] * 8 * sizes["H"] ** 2 * (3 if mode == "training" else 1)
        took = seconds(**sizes, mode=mode)
        print(
            json.dumps({**sizes, "varied": name, "mode": mode, "seconds": took, "gflops": flops / took / 1e9})
        )
        found.setdefault((name, mode), []).append((value, took / (sizes["T"] * sizes["B"]) * 1e9))
    for axis, name in zip(axes, RANGES, strict=True):
        for mode in ("forward", "training"):
            values, costs = zip(*found[name, mode], strict=True)
            if name == "H":
                costs = tuple(cost / (2 * H * H) for H, cost in zip(values, costs, strict=True))
            axis.loglog(values, costs, "o-", label=mode, markersize=4)
        others = ", ".join(f"{key} {value}" for key, value in BASE.items() if key != name)
        axis.set_xlabel(f"{name}   ({others}, I = H)")
        axis.set_ylabel("ns / (T B (I+H) H)" if name == "H" else "ns / (T B)")
        axis.grid(alpha=0.3, which="both")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
