"""The table of docs/tasks.md from the results of main.py.

python benchmarks/tasks/table.py benchmarks/results/NAME-tasks.jsonl
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from main import TASKS
from recipe import Figure

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
BEGIN, END = "<!-- tasks: begin -->\n", "<!-- tasks: end -->\n"


def spread(values: list[float]) -> str:
    """Mean and standard deviation, with as many digits as the deviation is worth."""
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 2 if mean >= 10 else 4 if mean < 2 else 3
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def cells(records: list[dict[str, Any]], name: str, key: str, figure: Figure) -> list[str]:
    """A row: scores, and the middle of times and peaks, of both libraries."""
    own = {library: [r for r in records if r["library"] == library] for library in ("cylstm", "torch")}
    scores = [spread([r["scores"][key] for r in own[library]]) if own[library] else "-" for library in own]
    mean = statistics.mean(r["scores"][key] for r in own["cylstm"])
    reached = mean >= figure.goal if figure.higher else mean <= figure.goal
    goal = (
        f"{'at least' if figure.higher else 'at most'} {figure.goal:g}, {'reached' if reached else 'missed'}"
    )
    middle = {
        (library, what): statistics.median(r[what] for r in own[library]) if own[library] else float("nan")
        for library in own
        for what in ("cpu_seconds", "peak_bytes")
    }
    seconds = [f"{middle[library, 'cpu_seconds']:.3g} s" for library in own]
    memory = [f"{middle[library, 'peak_bytes'] / 1e6:.0f} MB" for library in own]
    return [
        figure.title,
        *scores,
        goal,
        figure.baselines,
        *seconds,
        *memory,
        str(len(own["cylstm"])),
        f"`{name}`",
    ]


def table(records: list[dict[str, Any]]) -> str:
    """Lines of Markdown."""
    head = [
        "",
        "cylstm",
        "PyTorch",
        "goal",
        "others",
        "time",
        "PyTorch's",
        "memory",
        "PyTorch's",
        "seeds",
        "task",
    ]
    rows = [head, ["---"] * len(head)]
    for name, task in TASKS.items():
        own = [record for record in records if record["task"] == name]
        if own:
            rows += [cells(own, name, key, figure) for key, figure in task.figures.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", help="files that main.py made")
    options = parser.parse_args()
    lines = [json.loads(line) for path in options.results for line in Path(path).read_text().splitlines()]
    about = next(line for line in lines if "task" not in line)
    made = table([line for line in lines if "task" in line])
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    where = f"{about['cpu']}, one thread each, {', '.join(about['versions'])}.\n"
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{where}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
