"""CPUs that calls share, so that any number of Python threads uses no more of them than it was given."""

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

# Seconds for which a thread that has waited goes on with calls that follow at once: waking another takes as
# long as some calls of a small model.
TURN = 2e-4


class _Turn(threading.local):
    """Until when the calling thread goes before those that wait."""

    end = 0.0


class Cpus:
    """A number of CPUs; each call takes a share of those that are free, and while none is it waits its turn.

    Parameters
    ----------
    own : int, optional
        None: as many as `cylstm.get_num_threads()` says.

    Examples
    --------
    >>> cpus = Cpus(2)
    >>> with cpus.share() as share:
    ...     share.n, threads.get_num_threads()
    (2, 2)
    """

    def __init__(self, own: int | None = None) -> None:
        self._own = own
        self.begin()
        forks.renew_in_child(self)

    def begin(self) -> None:
        """As if no call had ever been made: in a forked child, which has none of those that went on."""
        self.lock = threading.RLock()  # the collector may give a share back while this thread takes another
        self._taken = 0
        self._turn = _Turn()
        self._waiting: deque[Share] = deque()
        self.spare: list[Share] = []  # used again, so that `Share.__del__` runs for those that were lost only

    def share(self) -> "AbstractContextManager[Any]":
        """What a call holds while it computes; `get_num_threads` is its number of CPUs inside."""
        if isa.path() == "blas":
            return _turn_of_blas(self._own)
        try:
            return self.spare.pop()
        except IndexError:
            return Share(self)

    def _free(self) -> int:
        return (threads.get_num_threads() if self._own is None else self._own) - self._taken

    def take(self, share: "Share") -> None:
        """Wait for CPUs, in the order of the calls."""
        share.lock = self.lock
        try:
            if self._alone(self._grab_or_queue, share):
                return
            while True:
                share.gate.acquire(timeout=1.0)  # or for ever, if Ctrl-C came to who was to open it
                if self._alone(self._grab_in_turn, share):
                    return
        except BaseException:  # Ctrl-C
            self.give_back(share)
            raise

    def _alone(self, change: Callable[["Share"], bool], share: "Share") -> bool:
        """change(share) under the lock: `with` may leave it locked on Ctrl-C in Python 3.14 (gh-148874)."""
        lock = self.lock
        try:
            lock.acquire()
            done = change(share)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # not taken yet
                lock.release()
            raise
        lock.release()
        return done

    def _grab_or_queue(self, share: "Share") -> bool:
        if (not self._waiting or time.perf_counter() < self._turn.end) and self._grab(share):
            return True
        share.gate.acquire(blocking=False)
        self._waiting.append(share)
        return False

    def _grab_in_turn(self, share: "Share") -> bool:
        if self._waiting[0] is not share or not self._grab(share):
            return False
        self._waiting.popleft()
        self._turn.end = time.perf_counter() + TURN
        self._open_next()
        return True

    def _grab(self, share: "Share") -> bool:
        """Take what is free, but leave some to those that wait and to who has just given back."""
        if (free := self._free()) <= 0:
            return False
        n = max(1, free // (len(self._waiting) + 1)) if self._waiting else free
        share.n, self._taken = n, self._taken + n  # at once: nothing can come in between
        return True

    def _open_next(self) -> None:
        """Let the call that has waited longest look for CPUs."""
        if self._waiting and self._free() > 0 and self._waiting[0].gate.locked():
            self._waiting[0].gate.release()

    def give_back(self, share: "Share") -> None:
        """Take CPUs back, or a place in the queue."""
        if share.lock is self.lock:  # not of a call in the process that this one was forked from
            self._alone(self._lose, share)

    def _lose(self, share: "Share") -> bool:
        share.n, self._taken = 0, self._taken - share.n
        if share in self._waiting:
            self._waiting.remove(share)
        self._open_next()
        return True


class Share:
    """CPUs of one call."""

    n = 0
    lock: Any = None
    _thread = 0

    def __init__(self, cpus: Cpus) -> None:
        self._cpus, self.gate = cpus, threading.Lock()

    def __enter__(self) -> "Share":
        """Wait for CPUs."""
        self._thread, self._before = threading.get_ident(), threads.begin_call(None)
        self._cpus.take(self)
        threads.begin_call(self.n)
        return self

    def __exit__(self, *exception: Any) -> None:
        """Give them back."""
        threads.begin_call(self._before)
        self._cpus.give_back(self)
        self._cpus.spare.append(self)

    def __del__(self) -> None:
        """Give back what is still held: Ctrl-C came before the first line of `__exit__`."""
        if self.n:
            if self._thread == threading.get_ident():
                threads.begin_call(self._before)
            self._cpus.give_back(self)


@contextlib.contextmanager
def _turn_of_blas(n: int | None) -> Iterator[None]:
    """All of them: the threads of BLAS are the process's, so there calls go one after the other."""
    with _blas, threads.num_threads(n) if n else contextlib.nullcontext():
        yield


_blas = threading.RLock()
PROCESS = Cpus()  # those of the process, for whoever has none of its own


def _begin_in_child() -> None:
    global _blas
    _blas = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A fork waits for a call on the BLAS path: OpenBLAS, forked in the middle of a product, may never return.
    os.register_at_fork(
        before=lambda: _blas.acquire(),
        after_in_parent=lambda: _blas.release(),
        after_in_child=_begin_in_child,
    )
