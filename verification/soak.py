"""An hour of everything at once: every result has the bits of the first, and memory stays flat.

    python verification/soak.py > soak.jsonl                # an hour
    python verification/soak.py --minutes 2

Models of every cell and dtype are run once on one thread. Then one to four Python threads at a time do
what is drawn for them: whole calls and parts of batches on 1 to 4 threads, streams whose clients join
and leave, sessions, requests joined into batches, gradients, trainings that stop and go on, and new
random layers against the NumPy reference. Children are forked in the middle of it and do the same. Every
result is compared with the first one bit by bit (packed path), or with the reference within its
tolerance.

Lines of JSON: the machine, a line a minute (work done, memory, threads, open files), a summary. A
wrong result, an exception, a child that hangs or memory that grows ends with status 1.
"""

import argparse
import collections
import contextlib
import copy
import ctypes
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from problems import LAYERS, assert_agrees_with_reference, for_caller, make, parts_of, problem
from training_problems import pooled, series, tagged, tagger

import cylstm
from cylstm import losses, optim
from cylstm._engine import isa
from cylstm._system import versions
from cylstm.recurrent import stack_buffers

WARM_UP, JUDGED = 1 / 6, 10  # of the whole time, before memory counts; minutes of a run from which on it does
# Memory in the last third: at most this times that of the first after warm-up, and so many bytes.
GROWTH = 1.05, 4e6
PATIENCE = 900.0  # seconds for a child; the machine may be stopped for some minutes
# Short trainings of LSTMs compute states again, as only long ones do otherwise.
stack_buffers.MIN_SEGMENTS, stack_buffers.MIN_STATE_BYTES = 1, 0


class Wrong(AssertionError):
    """A result that is not what it was the first time."""


def same(ours, theirs, what):
    if ours.tobytes() != np.ascontiguousarray(theirs).tobytes():
        raise Wrong(f"{what}: {np.abs(ours - theirs).max()} apart")


class Case:
    """A layer, a batch for it, and what came out the first time."""

    def __init__(self, name, layer, T, B, seed):
        rng = np.random.default_rng(seed)
        self.name, self.layer, self.T, self.B = name, layer, T, B
        self.x, self.state, self.dy, self.dlast = problem(rng, layer, T, B)
        self.lengths = rng.integers(0, T + 1, B)
        self.y, final = layer(self.x, for_caller(self.state), threads=1)
        self.final = parts_of(final)
        self.ragged, last = layer(self.x, for_caller(self.state), lengths=self.lengths, threads=1)
        self.ragged_final = parts_of(last)
        self.session = cylstm.Session(layer, threads=2)
        self.requests = self.session.micro_batch(max_batch=8, max_delay=0.001)
        self.learner, self.lock = copy.deepcopy(layer).train(), threading.Lock()
        self.masks = self.learner._random_state()
        self.gradients = self.training_pass(1)

    def start_of(self, chosen):
        return [part[:, chosen].copy() for part in self.state]

    def training_pass(self, threads):
        """Everything that a forward and a backward pass give, with the masks of the first time."""
        layer = self.learner
        layer._set_random_state(self.masks)
        layer.zero_grad()
        y, _ = layer(self.x, for_caller(self.state), lengths=self.lengths, threads=threads)
        dx, first = layer.backward(self.dy, for_caller(self.dlast), threads=threads)
        results = {"y": y, "dx": dx} | {name: value.copy() for name, value in layer.gradients.items()}
        return results | {f"d{n}_0": part for n, part in zip(layer.spec.states, parts_of(first), strict=True)}

    def compare(self, y, final, b, what):
        """The result of some sequences, as long as they are."""
        same(y, self.y[:, b], f"{self.name}: y of {what}")
        for part, whole in zip(parts_of(final), self.final, strict=True):
            same(part, whole[:, b], f"{self.name}: last state of {what}")


def cases():
    """Every cell, both dtypes; sizes at which calls are divided by rows, by units and not at all."""
    sizes = [(23, 17, 5, 37), (9, 5, 30, 70), (31, 1, 3, 16), (12, 40, 24, 33), (6, 3, 8, 130)]
    kinds = [{}, {"bidirectional": True}, {"reverse": True}, {"num_layers": 2, "dropout": 0.2}]
    made = []
    for number, cell in enumerate(LAYERS):
        for position, dtype in enumerate(("float32", "float64")):
            T, B, I, H = sizes[(2 * number + position) % len(sizes)]
            options = kinds[(number + 2 * position) % len(kinds)]
            if position and cell == "lstm":
                options = options | {"proj_size": H // 2, "zoneout": 0.1, "clip": 2.0}
            layer = make(cell, I, H, dtype=dtype, seed=number, **options)
            made.append(Case(f"{cell} {dtype} {options}", layer, T, B, number))
    return made


def whole_call(rng, case):
    y, final = case.layer(case.x, for_caller(case.state), threads=int(rng.integers(1, 5)))
    case.compare(y, final, slice(None), "a whole call")


def part_of_batch(rng, case):
    chosen = rng.permutation(case.B)[: rng.integers(1, case.B + 1)]
    threads = int(rng.integers(1, 5))
    y, final = case.layer(case.x[:, chosen], for_caller(case.start_of(chosen)), threads=threads)
    case.compare(y, final, chosen, f"sequences {chosen}")


def different_lengths(rng, case):
    run = case.session.run if rng.random() < 0.5 else case.layer
    y, final = run(case.x, for_caller(case.state), lengths=case.lengths)
    same(y, case.ragged, f"{case.name}: y of different lengths")
    for part, whole in zip(parts_of(final), case.ragged_final, strict=True):
        same(part, whole, f"{case.name}: last state of different lengths")


def session_again(rng, case):
    """Calls that are alike take a short way, into the caller's arrays."""
    y, final = case.session.run(case.x, for_caller(case.state))
    for _ in range(rng.integers(1, 4)):
        case.compare(y, final, slice(None), "a session")
        y, final = case.session.run(case.x, for_caller(case.state), out=(y, final))
    case.compare(y, final, slice(None), "a session with out=")


def joined_requests(rng, case):
    chosen = rng.integers(case.B, size=rng.integers(1, 9))
    futures = [(b, case.requests.submit(case.x[:, b], for_caller(case.start_of(b)))) for b in chosen]
    for b, future in futures:
        case.compare(*future.result(timeout=PATIENCE), b, f"a joined request of sequence {b}")


def clients_of_a_stream(rng, case):
    """Each has a row while it is there, sends steps when it wants to, and may leave early."""
    if not case.layer.causal:
        return
    model = case.session if rng.random() < 0.5 else case.layer
    stream = cylstm.Stream(model, batch_size=int(rng.integers(1, 9)))
    waiting, rows = list(rng.permutation(case.B)[:8]), {}
    while waiting or rows:
        if waiting and len(rows) < stream.batch_size and (not rows or rng.random() < 0.5):
            b = waiting.pop()
            rows[stream.join(for_caller(case.start_of(b)))] = [b, 0]
        chosen = [row for row in rows if rng.random() < 0.7]
        if not chosen:
            continue
        x = np.array([case.x[rows[row][1], rows[row][0]] for row in chosen])
        y = stream.step(x, rows=chosen)
        for row, y_row in zip(chosen, y, strict=True):
            b, t = rows[row]
            same(y_row, case.y[t, b], f"{case.name}: step {t} of sequence {b}")
            rows[row][1] += 1
            if t + 1 == case.T or rng.random() < 0.02:
                stream.leave(row)
                del rows[row]


def chunks_of_a_stream(rng, case):
    if not case.layer.causal:
        return
    stream, t = cylstm.Stream(case.layer, batch_size=case.B), 0
    stream.state = for_caller(case.start_of(slice(None)))
    while t < case.T:
        n = int(rng.integers(1, 9))
        x = case.x[t : t + n]
        y = stream.run(x, threads=int(rng.integers(1, 5))) if n > 1 else stream.step(x[0])[None]
        same(y, case.y[t : t + n], f"{case.name}: steps {t} to {t + n}")
        t += len(y)


def gradients(rng, case):
    with case.lock:
        results = case.training_pass(int(rng.integers(1, 5)))
        for name, value in results.items():
            same(value, case.gradients[name], f"{case.name}: {name}")


def saved_and_loaded(rng, case):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.safetensors")
        cylstm.save(case.layer, path)
        case.compare(*cylstm.load(path)(case.x, for_caller(case.state)), slice(None), "a loaded model")


def another_layer(rng, case):
    """A random layer of random sizes, with all gradients, against the reference."""
    cell = str(rng.choice(list(LAYERS)))
    T, B, I, H = (int(rng.integers(low, high)) for low, high in ((0, 9), (0, 6), (1, 20), (1, 40)))
    directions = ({}, {"bidirectional": True}, {"reverse": True})[rng.integers(3)]
    dtype = str(rng.choice(["float32", "float64"]))
    layer = make(cell, I, H, int(rng.integers(1, 3)), dtype=dtype, seed=int(rng.integers(1000)), **directions)
    lengths = rng.integers(0, T + 1, B) if rng.random() < 0.5 else None
    assert_agrees_with_reference(layer, *problem(rng, layer, T, B), lengths)


def train(kind, **fit):
    """A short training; the parameters after it."""
    if kind == "regression":
        data, model, loss = series(), pooled(), losses.MSE()
    else:
        data, model, loss = tagged(), tagger(), losses.CrossEntropy()
    options = {"segments": 4} if kind == "segments" else {}
    trainer = cylstm.Trainer(model, loss, optim.Adam(0.01), clip_norm=1.0, seed=1, **options)
    trainer.fit(data, progress=False, **{"epochs": 2} | fit)
    return model._store.data


TRAINED = {}  # the parameters after each kind's first training


def training(rng, case):
    """The same training again, sometimes stopped after an epoch and gone on with."""
    kind = str(rng.choice(["regression", "tagging", "segments"]))
    with (
        tempfile.TemporaryDirectory() as folder,
        cylstm._system.threads.call_threads(int(rng.integers(1, 5))),
    ):
        path = Path(folder, "run.ckpt")
        if rng.random() < 0.3:
            train(kind, epochs=1, checkpoints=path)
            result = train(kind, checkpoints=path, resume=True)
        else:
            result = train(kind)
    same(result, TRAINED[kind], f"training: {kind}")


TASKS = {
    whole_call: 4, part_of_batch: 4, different_lengths: 3, session_again: 4, joined_requests: 3,
    clients_of_a_stream: 2, chunks_of_a_stream: 3, gradients: 3, saved_and_loaded: 1, another_layer: 1,
    training: 0.3,
}  # fmt: skip


class Soak:
    """Rounds of threads and children, with what they did."""

    def __init__(self, seed):
        self.sequence = np.random.SeedSequence(seed)
        self.cases = cases()
        TRAINED.update((kind, train(kind)) for kind in ("regression", "tagging", "segments"))
        self.done, self.faults = collections.Counter(), []

    def work(self, seed, seconds):
        """What one thread does until its time is over."""
        rng, end = np.random.default_rng(seed), time.monotonic() + seconds
        weights = np.array(list(TASKS.values())) / sum(TASKS.values())
        while time.monotonic() < end and not self.faults:
            task = list(TASKS)[rng.choice(len(TASKS), p=weights)]
            case = self.cases[rng.integers(len(self.cases))]
            try:
                task(rng, case)
            except BaseException:
                self.faults.append(f"{task.__name__}, {case.name}, {seed}\n{traceback.format_exc()}")
                return
            self.done[task.__name__] += 1

    def child(self, seed):
        """Fork: the child works for a second, with whatever the other threads were in the middle of."""
        pid = os.fork()
        if pid == 0:
            for case in self.cases:
                case.lock = threading.Lock()  # a thread that is not here may have held it
            self.work(seed, 1.0)
            sys.stderr.write("".join(self.faults))
            sys.stderr.flush()
            os._exit(bool(self.faults))
        end = time.monotonic() + PATIENCE
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > end:
                os.kill(pid, 9)
            time.sleep(0.01)
        if status:
            self.faults.append(f"a child ended with status {status}")
        self.done["fork"] += 1

    def round(self, seconds):
        """One to four threads, a fork in the middle, and for a while another number of threads for all."""
        seeds = self.sequence.spawn(6)
        rng = np.random.default_rng(seeds[5])
        threads = [
            threading.Thread(target=self.work, args=(seed, seconds)) for seed in seeds[: rng.integers(1, 5)]
        ]
        with cylstm.num_threads(int(rng.integers(1, 5))):
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0, seconds))
            self.child(seeds[4])
            for thread in threads:
                thread.join()


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def trim():
    """Give back what malloc keeps for later: it has an arena for each thread, which all fill up slowly."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def sample(soak, begin):
    """Where it stands; memory as it is, and without what malloc keeps."""
    kept = resident()
    trim()
    return {
        "minutes": round((time.monotonic() - begin) / 60, 2),
        "cpu_minutes": round(time.process_time() / 60, 2),
        "resident": kept,
        "used": resident(),
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
        "done": sum(soak.done.values()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if isa.path() != "packed":
        sys.exit("only the packed path promises bits")
    print(json.dumps({**versions.describe(), **vars(options)}), flush=True)
    soak, samples, begin = Soak(options.seed), [], time.monotonic()
    every = min(60.0, options.minutes * 60 / 20)  # seconds between samples
    with contextlib.ExitStack() as stack:
        for case in soak.cases:
            stack.enter_context(case.requests)
        while time.monotonic() - begin < options.minutes * 60 and not soak.faults:
            soak.round(min(5.0, every))
            if time.monotonic() - begin >= every * (len(samples) + 1):
                samples.append(sample(soak, begin))
                print(json.dumps(samples[-1]), flush=True)
    settled = [s["used"] for s in samples if s["minutes"] >= WARM_UP * options.minutes]
    third = max(1, len(settled) // 3)
    first, last = (statistics.median(part or [0]) for part in (settled[:third], settled[-third:]))
    if options.minutes >= JUDGED and last > first * GROWTH[0] + GROWTH[1]:
        soak.faults.append(f"memory grew from {first:.0f} to {last:.0f} bytes")
    print(json.dumps({"done": soak.done, "faults": soak.faults, "used": [first, last]}), flush=True)
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()
