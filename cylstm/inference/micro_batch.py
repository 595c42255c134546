"""Batching of requests from many threads."""

import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._system import forks
from cylstm.layers import states
from cylstm.layers.base import check_indices
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.sequences.packed import pack, unpack

Array = NDArray[Any]
IDLE_SECONDS = (
    10.0  # seconds without requests before the worker thread ends; the next request starts a new one
)
CHECK_SECONDS = 10.0  # seconds between checks for buffers that are too large for recent batches
MAX_STEPS = 2**15  # of a batch of several sequences; larger batches are hardly more efficient


class QueueFull(queue.Full):
    """The queue is full; try again later, or pass a timeout."""


class _Runner(Protocol):
    """The methods of a `Session` that a micro-batch uses."""

    def run(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Outputs and final state of a sequence or a batch of packed sequences."""

    def release(self) -> None:
        """Release buffers that are not in use."""


class Request(NamedTuple):
    """One sequence waiting to be run."""

    x: Array  # (T, I)
    state: Any  # internal, (L.D, 1, width), or None
    future: "Future[tuple[Array, Any]]"
    deadline: float  # latest start of the batch, in time.monotonic()


class MicroBatch:
    """A queue that combines requests of many threads into batches, and runs them in a worker thread.

    A batch starts when `max_batch` requests wait, or the oldest of them has waited for `max_delay`. Sequences
    of different lengths are combined without padding. If the model has attention, whose rounding depends on
    the longest sequence, only sequences of the same length are combined. On the packed path, each result is
    therefore bit-identical to a single call. If a batch fails, its requests are run one by one, each with a
    separate result or exception.

    Created by `Session.micro_batch`. Can be used in a `with` statement, which closes it. In a forked child
    the queue is empty; the parent completes requests submitted before the fork.

    Parameters
    ----------
    session : Session
    model : SequenceLayer
        The session's model, which checks requests.
    max_batch : int
        Maximum number of requests in a batch.
    max_delay : float
        Maximum seconds that a request waits for others. With 0, a batch consists of the requests that arrived
        during the previous batch.
    max_queue : int
        Maximum number of waiting requests. When the queue is full, further ones wait or raise `QueueFull`.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> session = cylstm.Session(cylstm.LSTM(3, 8, seed=0))
    >>> with session.micro_batch(max_batch=8, max_delay=0.01) as requests:
    ...     futures = [requests.submit(np.ones((T, 3))) for T in (5, 2, 7)]
    ...     [future.result()[0].shape for future in futures]
    [(5, 8), (2, 8), (7, 8)]
    """

    def __init__(
        self,
        session: _Runner,
        model: SequenceLayer,
        *,
        max_batch: int = 16,
        max_delay: float = 0.001,
        max_queue: int = 1024,
    ) -> None:
        self._session, self._model = session, model
        self._max_batch = _checks.positive("max_batch", max_batch)
        self._max_delay = _checks.number("max_delay", max_delay, 0, threading.TIMEOUT_MAX)
        self._max_queue = _checks.positive("max_queue", max_queue)
        self._closed = False
        self.reset_after_fork()
        forks.register(self)

    def __repr__(self) -> str:
        """Return the constructor call."""
        options = f"max_batch={self._max_batch}, max_delay={self._max_delay}, max_queue={self._max_queue}"
        return f"MicroBatch({self._session!r}, {options})"

    def reset_after_fork(self) -> None:
        """Reset to an empty queue without a worker thread, in a forked child."""
        lock = threading.Lock()
        self._changed, self._not_full = threading.Condition(lock), threading.Condition(lock)
        self._waiting: deque[Request] = deque()
        self._worker: threading.Thread | None = None
        self._max_rows, self._recent_max_rows, self._next_check = 0, 0, 0.0

    def run(self, x: Any, state: Any = None, *, timeout: float | None = None) -> tuple[Array, Any]:
        """Run one sequence and wait for the result.

        Parameters
        ----------
        x : array of real numbers
            (T, I); ints (T,) if the first layer is an `Embedding`.
        state : optional
            The state before the first step, as returned by an earlier call.
        timeout : float, optional
            Maximum seconds to wait while the queue is full. By default, wait indefinitely.

        Returns
        -------
        y : ndarray
            (T, O); (O,) if a layer pools over time.
        state
            The state after the last step, without a batch.

        Raises
        ------
        QueueFull
            If the queue is still full after `timeout`.
        ValueError, TypeError
            If a shape, a dtype or the state is not as above.
        RuntimeError
            If the micro-batch is closed.
        """
        future = self.submit(x, state, timeout=timeout)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # after Ctrl-C the result is not needed
            raise

    def submit(
        self, x: Any, state: Any = None, *, timeout: float | None = 0.0
    ) -> "Future[tuple[Array, Any]]":
        """Submit one sequence, and return a future of the result of `run`.

        x and state are copied. By default, raises `QueueFull` immediately if the queue is full.
        `asyncio.wrap_future` converts the future for asyncio.
        """
        request = self._checked(x, state)
        deadline = None if timeout is None else time.monotonic() + _checks.number("timeout", timeout, 0)
        with self._not_full:
            while self._is_full() and not self._closed:
                remaining = 1.0 if deadline is None else deadline - time.monotonic()
                if remaining <= 0:
                    raise QueueFull(f"{self._max_queue} requests are waiting already; try again later")
                self._not_full.wait(
                    min(remaining, 1.0)
                )  # a bounded wait, because Ctrl-C may lose a notification
            if self._closed:
                raise RuntimeError(
                    "this micro-batch was closed; create another one with session.micro_batch()"
                )
            if self._worker is None or not self._worker.is_alive():
                worker = threading.Thread(target=self._work, name="cylstm-micro-batch", daemon=True)
                worker.start()  # may raise; the worker waits for the lock, so it sees the request
                self._worker = worker
            self._waiting.append(request)
            if len(self._waiting) == 1 or len(self._waiting) >= self._max_batch:
                self._changed.notify()
        return request.future

    def _is_full(self) -> bool:
        """Whether the queue is full, after removing cancelled requests."""
        if len(self._waiting) < self._max_queue:
            return False
        active = [request for request in self._waiting if not request.future.cancelled()]
        self._waiting.clear()
        self._waiting.extend(active)
        return len(active) >= self._max_queue

    def _checked(self, x: Any, state: Any) -> Request:
        """Check and copy the arguments of a request."""
        model = self._model
        steps, unbatched = model.steps_of(x)
        if not unbatched:
            expected = "(T,)" if model.reads_single_indices else f"(T, {model.input_size})"
            raise ValueError(f"x: expected one sequence, {expected}, got {np.shape(x)}")
        check_indices(model, steps)
        dtype = np.intp if model.reads_indices else model.dtype
        initial = None
        if state is not None:
            initial = model.initial_state(1)
            states.assign(initial, model._checked_state("state", state, None))
        return Request(np.array(steps[:, 0], dtype), initial, Future(), time.monotonic() + self._max_delay)

    def close(self) -> None:
        """Stop accepting requests, and wait until the accepted ones are completed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._not_full.notify_all()
            worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def __enter__(self) -> "MicroBatch":
        """Return the micro-batch."""
        return self

    def __exit__(self, *exception: Any) -> None:
        """Close the micro-batch."""
        self.close()

    def _work(self) -> None:
        """Run batches until the queue has been empty for `IDLE_SECONDS`."""
        while (batch := self._next_batch()) is not None:
            self._run(batch)
            del batch  # do not retain requests and results while idle

    def _run(self, batch: list[Request]) -> None:
        requests = [request for request in batch if request.future.set_running_or_notify_cancel()]
        try:
            results = self._results(requests)
        except Exception:
            self._run_one_by_one(requests)
            return
        for request, result in zip(requests, results, strict=True):
            request.future.set_result(result)
        self._release_large(sum(len(request.x) for request in requests))

    def _release_large(self, rows: int) -> None:
        """Release the buffers if they are four times as large as recent batches need."""
        self._max_rows, self._recent_max_rows = max(self._max_rows, rows), max(self._recent_max_rows, rows)
        now = time.monotonic()
        if now < self._next_check:
            return
        if 4 * self._recent_max_rows <= self._max_rows:
            self._session.release()
            self._max_rows = self._recent_max_rows
        self._recent_max_rows, self._next_check = 0, now + CHECK_SECONDS

    def _run_one_by_one(self, requests: list[Request]) -> None:
        for request in requests:
            try:
                (result,) = self._results([request])
            except Exception as error:
                request.future.set_exception(error)
            else:
                request.future.set_result(result)

    def _next_batch(self) -> list[Request] | None:
        """Wait for the requests of the next batch; None if the worker should end."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(IDLE_SECONDS)
            if not self._waiting:
                self._worker, self._max_rows = None, 0
                self._session.release()
                return None
            while len(self._waiting) < self._max_batch and not self._closed:
                remaining = self._waiting[0].deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            batch = self._take_batch()
            self._not_full.notify(len(batch))
        return batch

    def _take_batch(self) -> list[Request]:
        """Remove the oldest request, and those that can be combined with it, from the queue."""
        batch: list[Request] = []
        others: list[Request] = []
        rows = 0
        while self._waiting and len(batch) < self._max_batch and rows < MAX_STEPS:
            request = self._waiting.popleft()
            is_compatible = not self._model.pads or not batch or len(request.x) == len(batch[0].x)
            fits = not batch or (is_compatible and rows + len(request.x) <= MAX_STEPS)
            (batch if fits else others).append(request)
            rows += len(request.x) if fits else 0
        self._waiting.extendleft(reversed(others))
        return batch

    def _results(self, requests: list[Request]) -> list[tuple[Array, Any]]:
        """Run requests in one call of the session; return (y, state) of each."""
        if not requests:
            return []
        session, model, B = self._session, self._model, len(requests)
        if B == 1:
            x, first = requests[0].x, requests[0].state
            x = x[:, 0] if model.reads_single_indices else x
            return [session.run(x, None if first is None else model.state_for_caller(first, unbatched=True))]
        state = None
        if any(request.state is not None for request in requests):
            state = model.initial_state(B)
            for b, request in enumerate(requests):
                states.assign(states.row(state, b), request.state)
            state = model.state_for_caller(state, unbatched=False)
        y, final = session.run(pack([request.x for request in requests]), state)
        rows, final = list(y) if model.pools else unpack(y), model._checked_state("state", final, B)
        final_states = [states.copied(states.row(final, b)) for b in range(B)]
        # Copies, because views would retain the results of the whole batch.
        return [(rows[b].copy(), model.state_for_caller(final_states[b], unbatched=True)) for b in range(B)]
