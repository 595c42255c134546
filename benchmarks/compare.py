"""Compares two results of run.py: what has become slower or faster, and what is noise.

    python benchmarks/compare.py before.jsonl after.jsonl

Where both results also timed PyTorch, every round is divided by PyTorch's of the same round, so that a slower
moment of the machine, or another machine of the same kind, does not count. A difference is real if the rounds
of both results hardly overlap (two-sided Mann-Whitney test, p < 0.01) and it is more than 3 %. Exit status 1
if something is slower.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

CERTAIN, LEAST = 0.01, 0.03
ROUNDS = 5  # with fewer no p is below 0.01
SAME = ("cpu", "threads", "environment", "blas", "python")  # of the line about the machine
Key = tuple[str, str, str]


class Difference(NamedTuple):
    """New time over old time, and what it is."""

    ratio: float
    verdict: str


def read(path: Path) -> tuple[dict[str, Any], dict[Key, list[float]]]:
    """The line about the machine, and the rounds by shape, pass and contender."""
    about, *records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if "peak_bytes" not in record]
    if any("rounds_us" not in record for record in records):
        raise SystemExit(f"{path}: no rounds in it; it is of an older run.py")
    return about, {(r["shape"], r["mode"], r["contender"]): r["rounds_us"] for r in records}


def relative(rounds: dict[Key, list[float]], key: Key, to: str | None) -> list[float]:
    """Rounds of cylstm, as shares of another contender's if that is wanted."""
    shape, mode, _ = key
    base = rounds[shape, mode, to] if to else [1.0] * len(rounds[key])
    return [own / other for own, other in zip(rounds[key], base, strict=True)]


def difference(before: list[float], after: list[float]) -> Difference:
    """Whether rounds have become slower, faster, or neither for all that can be seen."""
    from scipy.stats import mannwhitneyu

    ratio = median(after) / median(before)
    if min(len(before), len(after)) < ROUNDS:
        return Difference(ratio, "too few rounds")
    certain = mannwhitneyu(before, after).pvalue < CERTAIN
    if not certain or abs(ratio - 1) <= LEAST:
        return Difference(ratio, "noise")
    return Difference(ratio, "slower" if ratio > 1 else "faster")


def main(arguments: list[str] | None = None) -> int:
    """Print a line for every measurement that both have; 1 if one is slower."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    (about, old), (about_new, new) = read(options.before), read(options.after)
    for name in SAME:
        if about.get(name) != about_new.get(name):
            print(f"careful, {name} differs: {about.get(name)} and {about_new.get(name)}")
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
