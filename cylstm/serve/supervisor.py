"""Supervision of worker processes: start, restart and shutdown."""

import contextlib
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from cylstm.serve.logs import printable
from cylstm.serve.metrics import forget

TICK = 0.2  # seconds between checks of the processes
PAUSE = 1.0  # minimum seconds between starts of a worker
BLOCKED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Supervisor:
    """A set of worker processes.

    Each worker has one end of a pipe, and the supervisor has the other. When that is closed, to stop the
    workers or because this process was killed, workers complete accepted requests and exit.

    Parameters
    ----------
    serve : callable
        Function of a worker. Its argument is a callable that returns whether to stop. Must be picklable.
    count : int
        Number of workers.
    patience : float
        Seconds to wait for workers to exit before they are killed.
    """

    def __init__(self, serve: Callable[[Callable[[], bool]], None], count: int, patience: float) -> None:
        self._serve, self._patience = serve, patience
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = [self._started() for _ in range(count)]

    def run(self, stop: threading.Event, close: Callable[[], Any]) -> None:
        """Restart workers that die until `stop` is set; then `close` the listener and stop the workers."""
        while not stop.is_set():
            wait([worker.process.sentinel for worker in self._workers], TICK)
            for k, worker in enumerate(self._workers):
                if worker.process.exitcode is not None:
                    worker.end()
                    stop.wait(max(0.0, worker.start + PAUSE - time.monotonic()))
                    if not stop.is_set():
                        self._workers[k] = self._started()
        close()
        end = time.monotonic() + self._patience
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.end()

    def _started(self) -> "_Worker":
        inner, outer = self._context.Pipe(duplex=False)
        with _blocked_signals(), inner:
            process = self._context.Process(target=_work, args=(self._serve, inner), name="cylstm-serve")
            process.start()
        return _Worker(process, outer)


class _Worker:
    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe, self.start = process, pipe, time.monotonic()

    def end(self) -> None:
        """Kill the process if necessary, and release its resources."""
        self.pipe.close()
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join()
        forget(self.process.pid)


def _work(serve: Callable[[Callable[[], bool]], None], pipe: Connection) -> None:
    """Run a worker process."""
    try:
        serve(pipe.poll)  # poll() is true once the other end is closed
    except (OSError, ValueError, MemoryError) as error:
        print(f"cylstm: worker: {printable(error)}", file=sys.stderr, flush=True)
        sys.exit(1)


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals that would end a starting process, such as Ctrl-C, which all processes receive."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
