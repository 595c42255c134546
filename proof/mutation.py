"""What mutants of Python and of C share: tests in a forked process, and the lines that say what came out."""

import argparse
import collections
import io
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy  # noqa: F401  what every child would import, once
import pytest
import scipy.linalg  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
# Of CPU time, for the tests of a mutant that come first, and for all; ten times that for those that wait.
FIRST, SECONDS = 60, 900
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
Found = Iterator[tuple[str, str, str | None]]  # mutant, line of the source, what has seen it if anything


def in_child(work: Callable[[], int], seconds: int = SECONDS) -> bool:
    """Whether work in a forked process gives 0: if it does not end in time or crashes it does not."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(10 * seconds)
        os._exit(work())
    return os.waitpid(pid, 0)[1] == 0


def passes(prepare: Callable[[], None], *arguments: str, seconds: int = SECONDS) -> bool:
    """Whether pytest passes with these arguments, in a process that `prepare` was called in."""

    def work():
        prepare()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return int(pytest.main([*OPTIONS, *arguments]))

    return in_child(work, seconds)


def seen_by(prepare: Callable[[], None], tests: list[str], first: str, quick: bool) -> str | None:
    """Which tests see it: those that come first, all, or none."""
    if not passes(prepare, "-k", first, *tests, seconds=FIRST):
        return "quick"
    return None if quick or passes(prepare, *tests) else "all"


def describe() -> int:
    from cylstm._system import versions  # here, for a parent may not have imported what its children replace

    print(json.dumps(versions.describe()), flush=True)
    return 0


def report(
    description: str,
    files: Iterable[str],
    mutants: Callable[[str, int, bool], Found],
    equivalent: dict[str, str],
) -> None:
    """Lines of JSON for `mutants(file, every, quick)` of each file; status 1 if some survive without reason.

    A line for each that neither compiler nor first tests see, then the counts of the file, at
    the end of all. `equivalent` has reasons by mutant, or by the line for all mutants of it.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--file", action="append", choices=files, help="of these only")
    parser.add_argument("--every", type=int, default=1, help="only every so many")
    parser.add_argument("--quick", action="store_true", help="the quick tests only: not all see every defect")
    options = parser.parse_args()
    os.chdir(ROOT)
    if not in_child(describe):
        sys.exit("cylstm cannot be imported")
    total: collections.Counter[str] = collections.Counter()
    for name in options.file or files:
        counts: collections.Counter[str] = collections.Counter()
        for mutant, line, seen in mutants(name, options.every, options.quick):
            why = equivalent.get(mutant) or equivalent.get(line)
            counts.update(["mutants", f"seen by {seen}"])
            counts["unknown survivors"] += seen is None and why is None
            if seen not in ("quick", "compiler"):
                print(json.dumps({"mutant": mutant, "line": line, "seen": seen, "why": why}), flush=True)
        print(json.dumps({"file": name, **counts}), flush=True)
        total.update(counts)
    print(json.dumps({"file": "all", **total}), flush=True)
    sys.exit(bool(total["unknown survivors"]))
