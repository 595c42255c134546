"""A pool of CPUs for concurrent calls, so that any number of Python threads uses a limited number of CPUs."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from cylstm._engine import isa
from cylstm._system import forks, threads

# Seconds for which a thread that waited has priority for further calls: waking another thread takes as long
# as some calls of a small model.
PRIORITY_SECONDS = 2e-4


class _Priority(threading.local):
    """Time until which the calling thread has priority over waiting threads."""

    end = 0.0


class CpuPool:
    """A number of CPUs for concurrent calls. A call takes a slot of the free CPUs, or waits in a queue.

    Parameters
    ----------
    n : int, optional
        Number of CPUs. By default `cylstm.get_num_threads()` at the time of the call.

    Examples
    --------
    >>> cpus = CpuPool(2)
    >>> with cpus.slot() as slot:
    ...     slot.n, threads.get_num_threads()
    (2, 2)
    """

    def __init__(self, n: int | None = None) -> None:
        self._n = n
        self.reset_after_fork()
        forks.register(self)

    def reset_after_fork(self) -> None:
        """Forget all calls: a forked child does not have the threads that made them."""
        self.lock = threading.RLock()  # reentrant: garbage collection may release a slot under the lock
        self._in_use = 0
        self._priority = _Priority()
        self._waiting: deque[CpuSlot] = deque()
        self.spare: list[CpuSlot] = []  # reused, so that `CpuSlot.__del__` only runs for lost slots

    def slot(self) -> "AbstractContextManager[Any]":
        """Return a context manager that holds CPUs during a call; `get_num_threads` is their number."""
        if isa.path() == "blas":
            return _exclusive_blas(self._n)
        try:
            return self.spare.pop()
        except IndexError:
            return CpuSlot(self)

    def _free(self) -> int:
        return (threads.get_num_threads() if self._n is None else self._n) - self._in_use

    def acquire(self, slot: "CpuSlot") -> None:
        """Wait for CPUs, in the order of the calls."""
        slot.lock = self.lock
        try:
            if self._locked(self._take_or_queue, slot):
                return
            while True:
                slot.gate.acquire(
                    timeout=1.0
                )  # the timeout matters if Ctrl-C interrupted the releasing thread
                if self._locked(self._take_in_turn, slot):
                    return
        except BaseException:  # Ctrl-C
            self.release(slot)
            raise

    def _locked(self, change: Callable[["CpuSlot"], bool], slot: "CpuSlot") -> bool:
        """Call change(slot) under the lock; `with` may leave it locked on Ctrl-C (CPython gh-148874)."""
        lock = self.lock
        try:
            lock.acquire()
            done = change(slot)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # not acquired yet
                lock.release()
            raise
        lock.release()
        return done

    def _take_or_queue(self, slot: "CpuSlot") -> bool:
        if (not self._waiting or time.perf_counter() < self._priority.end) and self._take(slot):
            return True
        slot.gate.acquire(blocking=False)
        self._waiting.append(slot)
        return False

    def _take_in_turn(self, slot: "CpuSlot") -> bool:
        if self._waiting[0] is not slot or not self._take(slot):
            return False
        self._waiting.popleft()
        self._priority.end = time.perf_counter() + PRIORITY_SECONDS
        self._wake_next()
        return True

    def _take(self, slot: "CpuSlot") -> bool:
        """Take the free CPUs, or a fraction of them if other calls wait."""
        if (free := self._free()) <= 0:
            return False
        n = max(1, free // (len(self._waiting) + 1)) if self._waiting else free
        slot.n, self._in_use = n, self._in_use + n  # one statement: an interrupt cannot separate the two
        return True

    def _wake_next(self) -> None:
        """Wake the call that has waited longest if there are free CPUs."""
        if self._waiting and self._free() > 0 and self._waiting[0].gate.locked():
            self._waiting[0].gate.release()

    def release(self, slot: "CpuSlot") -> None:
        """Release the CPUs of a slot, or its place in the queue."""
        if slot.lock is self.lock:  # otherwise the slot was acquired before a fork
            self._locked(self._drop, slot)

    def _drop(self, slot: "CpuSlot") -> bool:
        slot.n, self._in_use = 0, self._in_use - slot.n
        if slot in self._waiting:
            self._waiting.remove(slot)
        self._wake_next()
        return True


class CpuSlot:
    """The CPUs of one call."""

    n = 0
    lock: Any = None
    _thread = 0

    def __init__(self, cpus: CpuPool) -> None:
        self._cpus, self.gate = cpus, threading.Lock()

    def __enter__(self) -> "CpuSlot":
        """Wait for CPUs."""
        self._thread, self._before = threading.get_ident(), threads.set_call_threads(None)
        self._cpus.acquire(self)
        threads.set_call_threads(self.n)
        return self

    def __exit__(self, *exception: Any) -> None:
        """Release the CPUs."""
        threads.set_call_threads(self._before)
        self._cpus.release(self)
        self._cpus.spare.append(self)

    def __del__(self) -> None:
        """Release CPUs that are still held because Ctrl-C came before the first line of `__exit__`."""
        if self.n:
            if self._thread == threading.get_ident():
                threads.set_call_threads(self._before)
            self._cpus.release(self)


@contextlib.contextmanager
def _exclusive_blas(n: int | None) -> Iterator[None]:
    """Serialise calls on the BLAS path, because the threads of BLAS belong to the whole process."""
    with _blas, threads.num_threads(n) if n else contextlib.nullcontext():
        yield


_blas = threading.RLock()
PROCESS = CpuPool()  # the CPUs of the process, for calls without a pool of their own


def _reset_after_fork() -> None:
    global _blas
    _blas = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A fork waits for calls on the BLAS path, because OpenBLAS may hang if forked during a product.
    os.register_at_fork(
        before=lambda: _blas.acquire(),
        after_in_parent=lambda: _blas.release(),
        after_in_child=_reset_after_fork,
    )
