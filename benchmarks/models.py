"""Benchmark the training of whole models against PyTorch: data, forward, loss, backward, clipping, Adam.

    python benchmarks/models.py > models.jsonl       # about three minutes
    python benchmarks/models.py --tasks character --threads 1

Both train the same model on the same minibatches, each in a separate process, and take turns within each
round. The steps of cylstm are those of `Trainer.fit` with data source, history and checks. The fixed cost of
a step is measured with one unit on one sequence of one step: the time spent outside of the kernels. Memory is
the growth of a new process during training, also with `segments="auto"`.
JSON lines are written to standard output, a table to standard error.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from contenders import peak_of
from tqdm import tqdm

from cylstm._system.threads import usable_cpus


class Task(NamedTuple):
    """A model and its minibatches, with V symbols or I features per step and `outputs` outputs."""

    why: str
    B: int
    T: int
    I: int
    H: int
    layers: int
    outputs: int
    symbols: int = 0
    both: bool = False
    ragged: bool = False
    last: bool = False

    def one(self) -> "Task":
        """Return the same model at minimal size."""
        return self._replace(B=1, T=1, I=1, H=1, outputs=1, symbols=min(1, self.symbols))

    def lengths(self, n: int) -> np.ndarray:
        """Draw lengths of n sequences, distributed like sentences of 1 to T words."""
        if not self.ragged:
            return np.full(n, self.T)
        drawn = np.random.default_rng(1).gamma(2.0, self.T / 8, n).astype(int)
        return np.clip(drawn, 1, self.T)

    def data(self, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Draw n sequences and their targets: classes, or numbers for models without an embedding."""
        rng = np.random.default_rng(0)
        lengths = self.lengths(n)
        if self.symbols:
            x = [rng.integers(0, self.symbols, t) for t in lengths]
            return x, [rng.integers(0, self.outputs, t) for t in lengths]
        x = [rng.standard_normal((t, self.I)).astype(np.float32) for t in lengths]
        shapes = [(self.outputs,) if self.last else (t, self.outputs) for t in lengths]
        return x, [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


TASKS = {
    "character": Task("a language model of characters", 64, 100, 64, 256, 1, 65, symbols=65),
    "forecaster": Task("a small forecaster: overhead shows here", 128, 96, 7, 32, 2, 24, last=True),
    "tagger": Task("ragged sentences", 32, 60, 100, 128, 1, 17, symbols=10000, both=True, ragged=True),
    "long": Task("memory: a long sequence", 64, 1000, 256, 256, 1, 16),
}


def cylstm_epoch(task: Task, batches: int, segments: Any = None):
    """Return a function that trains on a number of minibatches and returns the seconds per minibatch."""
    import cylstm
    from cylstm import data

    layers = [cylstm.Embedding(task.symbols, task.I)] if task.symbols else []
    layers += [cylstm.LSTM(task.I, task.H, task.layers, bidirectional=task.both)]
    layers += [cylstm.Pooling("last")] if task.last else []
    layers += [cylstm.Linear((1 + task.both) * task.H, task.outputs)]
    loss = cylstm.losses.CrossEntropy() if task.symbols else cylstm.losses.MSE()
    trainer = cylstm.Trainer(cylstm.Sequential(*layers), loss, clip_norm=1.0, segments=segments)
    x, target = task.data(batches * task.B)
    if not task.ragged:
        x, target = np.stack(x), np.stack(target)
    source = data.Arrays(x, target, task.B)

    def epoch() -> float:
        return trainer.fit(source, epochs=1, progress=False).epochs[0]["seconds"] / batches

    return epoch


def torch_epoch(task: Task, batches: int):
    """Return the same function in idiomatic PyTorch."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(task.symbols, task.I) if task.symbols else torch.nn.Identity()
            self.lstm = torch.nn.LSTM(task.I, task.H, task.layers, bidirectional=task.both, batch_first=True)
            self.linear = torch.nn.Linear((1 + task.both) * task.H, task.outputs)

        def forward(self, x, lengths):
            x = self.embed(x)
            if task.ragged:
                rnn = torch.nn.utils.rnn
                packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                y = rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
            else:
                y = self.lstm(x)[0]
            return self.linear(y[:, -1] if task.last else y)

    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    pad = torch.nn.utils.rnn.pad_sequence
    x, target = ([torch.from_numpy(a) for a in part] for part in task.data(batches * task.B))
    order = sorted(range(len(x)), key=lambda i: len(x[i])) if task.ragged else list(range(len(x)))
    cross_entropy = torch.nn.CrossEntropyLoss(ignore_index=-1)

    def epoch() -> float:
        start = time.perf_counter()
        for first in range(0, len(x), task.B):
            chosen = order[first : first + task.B]
            lengths = torch.tensor([len(x[i]) for i in chosen])
            y = model(pad([x[i] for i in chosen], batch_first=True), lengths)
            wanted = pad([target[i] for i in chosen], batch_first=True, padding_value=-1)
            if task.symbols:
                loss = cross_entropy(y.flatten(0, 1), wanted.flatten())
            else:
                loss = torch.nn.functional.mse_loss(y, wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
        return (time.perf_counter() - start) / batches

    return epoch


def work(name: str, threads: int) -> None:
    """Answer requests: lines of JSON with a task, minibatches, and whether time or memory is asked for."""
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
        version = f"torch {torch.__version__}"
    else:
        import cylstm

        version = f"cylstm {cylstm.__version__}"
    print(json.dumps(version), flush=True)
    epochs: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        make = torch_epoch if name == "torch" else cylstm_epoch
        more = {"segments": request["segments"]} if request.get("segments") else {}
        task = TASKS[request["task"]]._replace(**request.get("sizes", {}))
        if request.get("memory"):
            answer = peak_of(make(task, 1, **more))
        else:
            key = f"{request['task']} {request['one']}"
            if key not in epochs:
                epochs[key] = make(task.one() if request["one"] else task, request["batches"])
                epochs[key]()
            answer = epochs[key]()
        print(json.dumps(answer), flush=True)


class Worker:
    """A process that trains with one library."""

    def __init__(self, name: str, threads: int) -> None:
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CYLSTM_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(variables, str(threads)),
        )
        self.version = json.loads(self.process.stdout.readline())

    def ask(self, **request: Any) -> float:
        """Send a request and return the answer."""
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def timed(name: str, workers: dict[str, Worker], rounds: int, batches: int) -> dict[str, Any]:
    """Measure seconds per step of each library by round, and the fixed cost of cylstm."""
    times: dict[str, list[float]] = {library: [] for library in workers}
    for i in range(rounds):
        for library in sorted(workers, reverse=i % 2 == 1):
            times[library].append(workers[library].ask(task=name, one=False, batches=batches))
    fixed = [workers["cylstm"].ask(task=name, one=True, batches=200) for _ in range(rounds)]
    return {"times": times, "fixed": statistics.median(fixed)}


def peaks(name: str, threads: int, **sizes: int) -> dict[str, float]:
    """Measure the bytes that training adds to a new process, optionally with other sizes of the task."""
    found = {}
    for label, library, segments in (
        ("cylstm", "cylstm", None), ("segments", "cylstm", "auto"), ("torch", "torch", None),
    ):  # fmt: skip
        if label == "segments" and (TASKS[name].both or TASKS[name].last):
            continue
        worker = Worker(library, threads)
        found[label] = worker.ask(task=name, memory=True, segments=segments, sizes=sizes)
        worker.close()
    return found


def table(records: list[dict[str, Any]]) -> str:
    """Format the records as a Markdown table."""
    lines = [
        "| model | B, T, H | a step | time steps a second | PyTorch takes | fixed cost "
        "| memory | in segments | PyTorch's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        ours = statistics.median(r["times"]["cylstm"])
        ratio = statistics.median(
            b / a for a, b in zip(r["times"]["cylstm"], r["times"]["torch"], strict=True)
        )
        memory = [
            f"{r['peaks'][label] / 1e6:.0f} MB" if label in r["peaks"] else "-"
            for label in ("cylstm", "segments", "torch")
        ]
        lines.append(
            f"| {r['task']} | {r['B']}, {r['T']}, {r['H']} | {1e3 * ours:.2f} ms | {r['rows'] / ours:,.0f} "
            f"| {ratio:.2f} | {1e6 * r['fixed']:.0f} µs, {r['fixed'] / ours:.1%} | {' | '.join(memory)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, options.threads)
    from run import arithmetic_limit, machine

    workers = {name: Worker(name, options.threads) for name in ("cylstm", "torch")}
    about = machine(options.threads, arithmetic_limit(options.threads))
    about["versions"] = [worker.version for worker in workers.values()]
    print(json.dumps(about), flush=True)
    records = []
    for name in tqdm(options.tasks, unit="model", disable=None):
        task = TASKS[name]
        batches = 2 if name == "long" else 12
        rows = int(task.lengths(batches * task.B).sum()) / batches
        record = {"task": name, **task._asdict(), "rows": rows}
        record |= timed(name, workers, options.rounds, batches) | {"peaks": peaks(name, options.threads)}
        records.append(record)
        print(json.dumps(record), flush=True)
    for worker in workers.values():
        worker.close()
    tqdm.write(table(records), file=sys.stderr)


if __name__ == "__main__":
    main()
