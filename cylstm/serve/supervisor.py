"""Processes of a server: started, replaced when they die, and stopped."""

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

TICK = 0.2  # seconds between looks at the processes
PAUSE = 1.0  # seconds between two starts of a worker
HELD_BACK = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Supervisor:
    """A number of worker processes.

    A worker has one end of a pipe, whose other end is here: when it is closed, because the workers are to
    stop or this process was killed, they finish what they have and end.

    Parameters
    ----------
    serve : callable
        What a worker does, told what says whether to stop. It can be pickled.
    count : int
    patience : float
        Seconds for workers to end before they are killed.
    """

    def __init__(self, serve: Callable[[Callable[[], bool]], None], count: int, patience: float) -> None:
        self._serve, self._patience = serve, patience
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = [self._started() for _ in range(count)]

    def run(self, stop: threading.Event, close: Callable[[], Any]) -> None:
        """Keep the workers running until `stop` is set; then `close` the listener, and end them."""
        while not stop.is_set():
            wait([worker.process.sentinel for worker in self._workers], TICK)
            for k, worker in enumerate(self._workers):
                if worker.process.exitcode is not None:
                    worker.end()
                    stop.wait(max(0.0, worker.begun + PAUSE - time.monotonic()))
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
        with _held_back(), inner:
            process = self._context.Process(target=_work, args=(self._serve, inner), name="cylstm-serve")
            process.start()
        return _Worker(process, outer)


class _Worker:
    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe, self.begun = process, pipe, time.monotonic()

    def end(self) -> None:
        """Let nothing of it stay."""
        self.pipe.close()
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join()
        forget(self.process.pid)


def _work(serve: Callable[[Callable[[], bool]], None], pipe: Connection) -> None:
    """The process of a worker."""
    try:
        serve(pipe.poll)  # of a pipe that was closed it says that there is something to read
    except (OSError, ValueError, MemoryError) as error:
        print(f"cylstm: worker: {printable(error)}", file=sys.stderr, flush=True)
        sys.exit(1)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold back the signals that would end a process that is starting: Ctrl-C reaches all of them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
