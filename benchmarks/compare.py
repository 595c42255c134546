"""Compare two results of run.py, separating significant differences from noise.

    python benchmarks/compare.py before.jsonl after.jsonl

If both results include PyTorch, every round is divided by PyTorch's result in the same round, to compensate
for variations of the machine. A difference is significant if p < 0.01 in a two-sided Mann-Whitney test of the
rounds and it exceeds 3 %. The exit status is 1 if a measurement is slower.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

CERTAIN, LEAST = 0.01, 0.03
ROUNDS = 5  # p < 0.01 is impossible with fewer
SAME = ("cpu", "threads", "environment", "blas", "python")  # fields that should agree
Key = tuple[str, str, str]


class Difference(NamedTuple):
    """Ratio of the new time to the old time, and a verdict."""

    ratio: float
    verdict: str


def read(path: Path) -> tuple[dict[str, Any], dict[Key, list[float]]]:
    """Read the description of the machine, and the rounds by shape, pass and contender."""
    about, *records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if "peak_bytes" not in record]
    if any("rounds_us" not in record for record in records):
        raise SystemExit(f"{path}: contains no rounds; created by an older run.py")
    return about, {(r["shape"], r["mode"], r["contender"]): r["rounds_us"] for r in records}


def relative(rounds: dict[Key, list[float]], key: Key, to: str | None) -> list[float]:
    """Return rounds of cylstm, optionally relative to another contender."""
    shape, mode, _ = key
    base = rounds[shape, mode, to] if to else [1.0] * len(rounds[key])
    return [own / other for own, other in zip(rounds[key], base, strict=True)]


def difference(before: list[float], after: list[float]) -> Difference:
    """Test whether rounds have become slower or faster."""
    from scipy.stats import mannwhitneyu

    ratio = median(after) / median(before)
    if min(len(before), len(after)) < ROUNDS:
        return Difference(ratio, "too few rounds")
    certain = mannwhitneyu(before, after).pvalue < CERTAIN
    if not certain or abs(ratio - 1) <= LEAST:
        return Difference(ratio, "noise")
    return Difference(ratio, "slower" if ratio > 1 else "faster")


def main(arguments: list[str] | None = None) -> int:
    """Print a line for every common measurement; return 1 if one is slower."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    (about, old), (about_new, new) = read(options.before), read(options.after)
    for name in SAME:
        if about.get(name) != about_new.get(name):
            print(f"warning: {name} differs: {about.get(name)} and {about_new.get(name)}")
    keys = [key for key in old if key in new and key[2] == "cylstm"]
    if not keys:
        raise SystemExit("the two results have no measurement in common")
    slower = False
    print(f"{'shape':<13} {'pass':<9} {'after / before':>14}")
    for key in keys:
        shared = all((key[0], key[1], "torch") in rounds for rounds in (old, new))
        to = "torch" if shared else None
        found = difference(relative(old, key, to), relative(new, key, to))
        slower |= found.verdict == "slower"
        print(f"{key[0]:<13} {key[1]:<9} {found.ratio:>14.3f}  {found.verdict}")
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
