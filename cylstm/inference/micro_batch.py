"""Single requests of many threads, joined into batches."""

import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._system import forks
from cylstm.layers import states
from cylstm.sequences.packed import pack, unpack

if TYPE_CHECKING:
    from cylstm.inference.session import Session

Array = NDArray[Any]
IDLE = 10.0  # seconds without a request after which the worker ends, until the next one comes
PERIOD = 10.0  # seconds after which buffers are released that are far larger than what batches need
ROWS = 2**15  # steps of all sequences of a batch, unless one has more: beyond it joining gains little


class QueueFull(queue.Full):
    """As many requests wait as may; try again later, or with a timeout."""


class Request(NamedTuple):
    """One sequence that waits to be run."""

    x: Array  # (T, I)
    state: Any  # internal, (L.D, 1, width), or None
    future: "Future[tuple[Array, Any]]"
    deadline: float  # when it starts, with or without others


class MicroBatch:
    """A queue that joins single requests of many threads into one batch, and runs it in a thread of its own.

    A batch starts when `max_batch` requests wait, or the oldest of them has waited for `max_delay`. Sequences
    of different length are joined without padding; where the model has attention, whose bits depend on the
    longest sequence, only those of the same length are. So each result has the bits of a call alone (on
    the packed path). If a batch fails, its requests are run one by one, and each has its own result or
    exception.

    `Session.micro_batch` makes it. Used in a `with` statement it is closed at the end. A forked child begins
    with an empty queue; what was submitted before stays with the parent.

    Parameters
    ----------
    session : Session
    max_batch : int
        Most requests in a batch.
    max_delay : float
        Seconds that a request waits for others at most. 0: it is joined with those that came while the
        last batch was computed.
    max_queue : int
        Most requests that wait. Further ones wait for room or are refused with `QueueFull`.

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
        self, session: "Session", *, max_batch: int = 16, max_delay: float = 0.001, max_queue: int = 1024
    ) -> None:
        self._session = session
        self._max_batch = _checks.positive("max_batch", max_batch)
        self._max_delay = _checks.number("max_delay", max_delay, 0, threading.TIMEOUT_MAX)
        self._max_queue = _checks.positive("max_queue", max_queue)
        self._closed = False
        self.reset_after_fork()
        forks.register(self)

    def __repr__(self) -> str:
        """As it was constructed."""
        options = f"max_batch={self._max_batch}, max_delay={self._max_delay}, max_queue={self._max_queue}"
        return f"MicroBatch({self._session!r}, {options})"

    def reset_after_fork(self) -> None:
        """With an empty queue and no worker: what a forked child has."""
        lock = threading.Lock()
        self._changed, self._room = threading.Condition(lock), threading.Condition(lock)
        self._waiting: deque[Request] = deque()
        self._worker: threading.Thread | None = None
        self._largest, self._recent, self._period = 0, 0, 0.0

    def run(self, x: Any, state: Any = None, *, timeout: float | None = None) -> tuple[Array, Any]:
        """The result for one sequence; waits for it.

        Parameters
        ----------
        x : array of real numbers
            (T, I); ints (T,) where an `Embedding` comes first.
        state : optional
            The state before the first step, as an earlier call returned it.
        timeout : float, optional
            Seconds to wait for room in the queue at most. None: as long as it takes.

        Returns
        -------
        y : ndarray
            (T, O); where a layer pools over time, (O,).
        state
            The state after the last step, without a batch.

        Raises
        ------
        QueueFull
            If there was no room.
        ValueError, TypeError
            If a shape, a dtype or the form of the state is not as above.
        RuntimeError
            If it was closed.
        """
        future = self.submit(x, state, timeout=timeout)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # after Ctrl-C nobody wants it
            raise

    def submit(
        self, x: Any, state: Any = None, *, timeout: float | None = 0.0
    ) -> "Future[tuple[Array, Any]]":
        """A future of what `run` returns; `asyncio.wrap_future` makes it one of asyncio.

        x and state are copied. By default it does not wait for room in the queue.
        """
        request = self._checked(x, state)
        until = None if timeout is None else time.monotonic() + _checks.number("timeout", timeout, 0)
        with self._room:
            while self._is_full() and not self._closed:
                remaining = 1.0 if until is None else until - time.monotonic()
                if remaining <= 0:
                    raise QueueFull(f"{self._max_queue} requests wait already; try again later")
                self._room.wait(min(remaining, 1.0))  # at times by itself: Ctrl-C may swallow a call to it
            if self._closed:
                raise RuntimeError("this micro-batch was closed; session.micro_batch() makes another one")
            if self._worker is None or not self._worker.is_alive():
                worker = threading.Thread(target=self._work, name="cylstm-micro-batch", daemon=True)
                worker.start()  # which may fail; it begins with the lock, so it finds the request
                self._worker = worker
            self._waiting.append(request)
            if len(self._waiting) == 1 or len(self._waiting) >= self._max_batch:
                self._changed.notify()
        return request.future

    def _is_full(self) -> bool:
        """Whether no request has room; those that nobody wants any longer give theirs back."""
        if len(self._waiting) < self._max_queue:
            return False
        wanted = [request for request in self._waiting if not request.future.cancelled()]
        self._waiting.clear()
        self._waiting.extend(wanted)
        return len(wanted) >= self._max_queue

    def _checked(self, x: Any, state: Any) -> Request:
        """A request that cannot fail for what it holds."""
        model = self._session._model
        steps, unbatched = model._steps_of(x)
        if not unbatched:
            expected = "(T,)" if model.reads_single_indices else f"(T, {model.input_size})"
            raise ValueError(f"x: expected one sequence, {expected}, got {np.shape(x)}")
        model._check_indices(steps)
        dtype = np.intp if model.reads_indices else model.dtype
        given = None
        if state is not None:
            given = model._initial_state(1)
            states.assign(given, model._checked_state("state", state, None))
        return Request(np.array(steps[:, 0], dtype), given, Future(), time.monotonic() + self._max_delay)

    def close(self) -> None:
        """Accept nothing more, and wait until everything that was accepted is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._room.notify_all()
            worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def __enter__(self) -> "MicroBatch":
        """Itself."""
        return self

    def __exit__(self, *exception: Any) -> None:
        """Close it."""
        self.close()

    def _work(self) -> None:
        """What the worker does, until it has had nothing to do for a while."""
        while (batch := self._next_batch()) is not None:
            self._run(batch)
            del batch  # a worker that waits keeps no requests and no results

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
        """Release buffers in which a batch four times as large as the recent ones was computed."""
        self._largest, self._recent = max(self._largest, rows), max(self._recent, rows)
        now = time.monotonic()
        if now < self._period:
            return
        if 4 * self._recent <= self._largest:
            self._session.release()
            self._largest = self._recent
        self._recent, self._period = 0, now + PERIOD

    def _run_one_by_one(self, requests: list[Request]) -> None:
        for request in requests:
            try:
                (result,) = self._results([request])
            except Exception as error:
                request.future.set_exception(error)
            else:
                request.future.set_result(result)

    def _next_batch(self) -> list[Request] | None:
        """The requests of a batch, once it is to start; None: the worker ends."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(IDLE)
            if not self._waiting:
                self._worker, self._largest = None, 0
                self._session.release()
                return None
            while len(self._waiting) < self._max_batch and not self._closed:
                remaining = self._waiting[0].deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            batch = self._taken()
            self._room.notify(len(batch))
        return batch

    def _taken(self) -> list[Request]:
        """The oldest request and those that may be joined with it, taken from the queue."""
        batch: list[Request] = []
        others: list[Request] = []
        rows = 0
        while self._waiting and len(batch) < self._max_batch and rows < ROWS:
            request = self._waiting.popleft()
            alike = not self._session._model.pads or not batch or len(request.x) == len(batch[0].x)
            fits = not batch or (alike and rows + len(request.x) <= ROWS)
            (batch if fits else others).append(request)
            rows += len(request.x) if fits else 0
        self._waiting.extendleft(reversed(others))
        return batch

    def _results(self, requests: list[Request]) -> list[tuple[Array, Any]]:
        """(y, state) of each, from one call of the session."""
        if not requests:
            return []
        session, model, B = self._session, self._session._model, len(requests)
        if B == 1:
            x, own = requests[0].x, requests[0].state
            x = x[:, 0] if model.reads_single_indices else x
            return [session.run(x, None if own is None else model._state_for_caller(own, unbatched=True))]
        state = None
        if any(request.state is not None for request in requests):
            state = model._initial_state(B)
            for b, request in enumerate(requests):
                states.assign(states.row(state, b), request.state)
            state = model._state_for_caller(state, unbatched=False)
        y, final = session.run(pack([request.x for request in requests]), state)
        rows, final = list(y) if model.pools else unpack(y), model._checked_state("state", final, B)
        last = [states.copied(states.row(final, b)) for b in range(B)]
        # Copies, for else each result would keep all others in memory.
        return [(rows[b].copy(), model._state_for_caller(last[b], unbatched=True)) for b in range(B)]
