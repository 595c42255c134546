"""Minibatches made ready while the one before is at work."""

import os
import threading
import time
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

T = TypeVar("T")
HAND_OVER = 1e-4  # seconds that it takes to wake a thread and to wait for the interpreter's lock meanwhile


class _Failure(NamedTuple):
    """An exception on its way to the caller; no value: there are no more."""

    error: BaseException | None


def prefetch(iterable: Iterable[T]) -> Generator[T, None, None]:
    """The same values in the same order, each made in another thread while the caller is at the one before.

    One value ahead, never more. To end early, close it or let go of it, as `break` in a `for` does: the
    thread ends after the value that it is at.

    Parameters
    ----------
    iterable : iterable
        Its values should take their time in NumPy or in reading files, which other threads do not wait for.

    Yields
    ------
    value
        As the iterable gives it.

    Raises
    ------
    RuntimeError
        In a forked child, which has no such thread, for one that the parent began.
    BaseException
        What the iterable raises, with its traceback, after all values before it.

    Examples
    --------
    >>> from cylstm.data import prefetch
    >>> list(prefetch(n * n for n in range(5)))
    [0, 1, 4, 9, 16]
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[T | _Failure] = SimpleQueue()
    began_in = os.getpid()
    # A daemon, and never waited for: neither a slow value nor the interpreter's exit holds the caller up.
    thread = threading.Thread(
        target=_make, args=(iterable, wanted, made), name="cylstm-prefetch", daemon=True
    )
    try:
        thread.start()
        wanted.put(True)
        while True:
            if os.getpid() != began_in:
                raise RuntimeError("prefetch: expected the process that began it, got a forked child of it")
            value = made.get()
            if isinstance(value, _Failure):
                if value.error is None:
                    return
                raise value.error
            wanted.put(True)
            yield value
    finally:
        wanted.put(False)


def prefetch_slow(iterable: Iterable[T]) -> Generator[T, None, None]:
    """The same values, those that take little time in the caller's thread: handing them over takes longer.

    From two slow ones in a row on they come from `prefetch`; a single one may be the first, or bad luck.

    Examples
    --------
    >>> list(prefetch_slow(range(3)))
    [0, 1, 2]
    """
    iterator, slow = iter(iterable), 0
    while slow < 2:
        began = time.perf_counter()
        try:
            value = next(iterator)
        except StopIteration:
            return
        slow = slow + 1 if time.perf_counter() - began > HAND_OVER else 0
        yield value
        del value
    yield from prefetch(iterator)


def _make(iterable: Iterable[T], wanted: "SimpleQueue[bool]", made: "SimpleQueue[T | _Failure]") -> None:
    """The thread: a value for every wish, until there are none or the caller has gone."""
    try:
        iterator = iter(iterable)
        while wanted.get():
            try:
                value = next(iterator)
            except StopIteration:
                made.put(_Failure(None))
                return
            made.put(value)
            del value  # the caller's alone now
    except BaseException as error:
        made.put(_Failure(error))
