"""Benchmark serving: single calls, and concurrent requests with and without micro-batches.

    python benchmarks/serving.py > serving.jsonl     # about five minutes
    python benchmarks/serving.py --parts throughput --hidden 256

"Steps" are single steps of stateful streams on one thread, with `Stream`, ONNX Runtime and PyTorch. "Latency"
is the time of one call on one thread, with a session, the layer itself and ONNX Runtime. Both are measured as
in run.py, in separate processes that take turns. "Throughput" is measured with client threads of one process
that request one sequence at a time; methods take turns within each round. A session uses `--threads` CPUs in
total, ONNX Runtime per call.
JSON lines are written to standard output, tables to standard error.
"""

import argparse
import importlib.util
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contenders import CONTENDERS
from run import Contender, arithmetic_limit, chosen_contenders, machine, measure, row, tell
from shapes import Shape
from tqdm import tqdm

import cylstm
from cylstm._system.threads import usable_cpus

CALLERS = ["cylstm", "cylstm-session", "onnxruntime"]
STEPPERS = ["cylstm", "onnxruntime", "torch"]
CLIENTS = (1, 8, 64)
T = 20  # steps per sequence


def steps(options: argparse.Namespace) -> None:
    """Measure single steps of stateful streams."""
    shapes = [
        Shape(f"step-{H}", B, 1, H, H, "one step of a server's streams", "serving")
        for H in options.hidden
        for B in (1, 16)
    ]
    timed(options, STEPPERS, shapes, "step")


def latency(options: argparse.Namespace) -> None:
    """Measure calls for whole sequences."""
    shapes = [
        Shape(f"call-{H}", B, T, H, H, "one call of a server", "serving")
        for H in options.hidden
        for B in (1, 16)
        for T in (1, 50)
    ]
    timed(options, CALLERS, shapes, "forward")


def timed(options: argparse.Namespace, wanted: list[str], shapes: list[Shape], mode: str) -> None:
    """Measure calls on one thread for all sizes, and print a table."""
    names, limit = chosen_contenders(wanted), arithmetic_limit(1)
    contenders = [Contender(name, 1) for name in names]
    print(json.dumps(machine(1, limit)), flush=True)
    tell("µs of a call on one thread; in brackets, how many times cylstm's\n")
    tell("| shape | B, T, I, H | pass | " + " | ".join(names) + " |\n|" + "---|" * (3 + len(names)))
    for shape in tqdm(shapes, unit="shape", disable=None):
        records = measure(contenders, shape, mode, options.rounds, options.seconds, limit)
        print("\n".join(map(json.dumps, records)), flush=True)
        tell(row(shape, mode, records, names))
    for contender in contenders:
        contender.close()


@contextmanager
def ways(H: int, threads: int) -> Iterator[dict[str, Callable[[], object]]]:
    """Yield the methods of running one sequence, as thread-safe calls."""
    shape = Shape("request", 1, T, H, H, "a client's sequence", "serving")
    session, x = cylstm.Session(cylstm.LSTM(H, H, seed=0), threads=threads), shape.x()[:, 0].copy()
    with session.micro_batch(max_batch=32, max_delay=0) as requests:
        calls = {"session": lambda: session.run(x), "micro-batch": lambda: requests.run(x)}
        if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
            calls["onnxruntime"] = CONTENDERS["onnxruntime"](shape, "forward")
        yield calls


def requests_a_second(call: Callable[[], object], clients: int, seconds: float) -> float:
    """Measure the rate of calls from a number of threads."""
    counts, start = [0] * clients, threading.Barrier(clients + 1)

    def client(k: int) -> None:
        call()
        start.wait()
        while time.perf_counter() < end:
            call()
            counts[k] += 1

    end = float("inf")
    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    end = begin + seconds
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def throughput(options: argparse.Namespace) -> None:
    """Measure requests per second for different numbers of clients."""
    tell(f"\nrequests of {T} steps a second, {options.threads} CPUs\n")
    for H in options.hidden:
        with ways(H, options.threads) as calls:
            if options.hidden[0] == H:
                tell("| H | clients | " + " | ".join(calls) + " |\n|" + "---|" * (2 + len(calls)))
            for clients in CLIENTS:
                rates: dict[str, list[float]] = {name: [] for name in calls}
                for _ in range(options.rounds):
                    for name, call in calls.items():
                        rates[name].append(requests_a_second(call, clients, 2 * options.seconds))
                record = {"H": H, "T": T, "clients": clients, "threads": options.threads, "requests": rates}
                print(json.dumps(record), flush=True)
                medians = [f"{statistics.median(own):,.0f}" for own in rates.values()]
                tell(f"| {H} | {clients} | " + " | ".join(medians) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"steps": steps, "latency": latency, "throughput": throughput}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128, 256, 512, 1024], metavar="H")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="threads for throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.15, help="duration of each turn")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # ONNX Runtime's in this process
    for part in options.parts:
        parts[part](options)


if __name__ == "__main__":
    main()
