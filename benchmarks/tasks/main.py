"""Real tasks in cylstm and in PyTorch, side by side: scores, time and memory of both.

    python benchmarks/tasks/main.py --data DIR > tasks.jsonl      # all of it: hours
    python benchmarks/tasks/main.py --data DIR --tasks elnino chorales --seeds 0 1

DIR holds the data sets by the names of their folders. For each task and seed both libraries begin at the
same weights and see the same minibatches; each is a process of its own, on a CPU of its own, with one
thread, and both run at the same time, so that a slow moment of the machine meets both. Seconds are those of
the training with its validation, on the wall and of the CPU; the peak of memory is that of the whole
process, libraries and data included. Lines of JSON go to standard output, first one about the machine;
table.py makes the table.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import language
import sequences
import series
from tqdm import tqdm

TASKS = {**series.TASKS, **sequences.TASKS, **language.TASKS}
LIBRARIES = ("cylstm", "torch")


def work(name: str, library: str, seed: int, data: Path) -> None:
    """Train and score in this process, and print the record."""
    import twins

    if library == "torch":
        import torch

        torch.set_num_threads(1)
    task = TASKS[name]
    recipe = task.make(data / task.folder, seed)
    outputs, facts = getattr(twins, f"with_{library}")(recipe, seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record = {"task": name, "library": library, "seed": seed, "scores": recipe.score(outputs), **facts}
    print(json.dumps({**record, "peak_bytes": peak, "parameters": recipe.model._store.size}), flush=True)


def side_by_side(name: str, seed: int, data: str, libraries: list[str]) -> list[str]:
    """The records of all libraries, each on a CPU of its own."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CYLSTM_NUM_THREADS")
    processes = []
    for k, library in enumerate(libraries):
        command = [sys.executable, __file__, "--data", data, "--worker", name, library, str(seed)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | dict.fromkeys(variables, "1")
        )
        if cpus:
            os.sched_setaffinity(process.pid, {cpus[k % len(cpus)]})
        processes.append(process)
    answers = [process.communicate()[0].strip() for process in processes]
    for process in processes:
        if process.returncode:
            raise SystemExit(f"{name}: ended with status {process.returncode}")
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="where the data sets are")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, library, seed = options.worker
        return work(name, library, int(seed), Path(options.data))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from run import machine

    about = machine(1, 0.0)
    about["versions"] = [f"{library} {version(library)}" for library in options.libraries]
    print(json.dumps(about), flush=True)
    turns = [(name, seed) for name in options.tasks for seed in options.seeds]
    for name, seed in tqdm(turns, unit="training", disable=None):
        for answer in side_by_side(name, seed, options.data, options.libraries):
            print(answer, flush=True)


if __name__ == "__main__":
    main()
