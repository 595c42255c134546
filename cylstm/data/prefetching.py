"""Prefetching of minibatches in a background thread."""

import os
import threading
import time
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

T = TypeVar("T")
HANDOVER_SECONDS = 1e-4  # cost of waking a thread and of waiting for the GIL


class _Failure(NamedTuple):
    """An exception to re-raise in the caller; None marks the end of the iterable."""

    error: BaseException | None


def prefetch(iterable: Iterable[T]) -> Generator[T, None, None]:
    """Iterate in a background thread, one value ahead of the caller.

    To stop early, close the generator or drop the last reference to it, as `break` in a `for` loop does. The
    thread ends after the value that it is computing.

    Parameters
    ----------
    iterable : iterable
        Its values should be computed by code that releases the GIL, such as NumPy or file input.

    Yields
    ------
    value
        The values of the iterable, in order.

    Raises
    ------
    RuntimeError
        In a forked child, if the parent process started the iteration: the child does not have the thread.
    BaseException
        Any exception of the iterable, with its traceback, after all preceding values.

    Examples
    --------
    >>> from cylstm.data import prefetch
    >>> list(prefetch(n * n for n in range(5)))
    [0, 1, 4, 9, 16]
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[T | _Failure] = SimpleQueue()
    owner = os.getpid()
    # A daemon thread that is never joined: a slow value delays neither the caller nor interpreter exit.
    thread = threading.Thread(
        target=_make, args=(iterable, wanted, made), name="cylstm-prefetch", daemon=True
    )
    try:
        thread.start()
        wanted.put(True)
        while True:
            if os.getpid() != owner:
                raise RuntimeError("prefetch: expected the process that started it, got a forked child of it")
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
    """Prefetch only if values are slow to compute; fast ones cost less in the caller's thread.

    Prefetching starts after two slow values in a row, because a single one may be an outlier.

    Examples
    --------
    >>> list(prefetch_slow(range(3)))
    [0, 1, 2]
    """
    iterator, slow = iter(iterable), 0
    while slow < 2:
        start = time.perf_counter()
        try:
            value = next(iterator)
        except StopIteration:
            return
        slow = slow + 1 if time.perf_counter() - start > HANDOVER_SECONDS else 0
        yield value
        del value
    yield from prefetch(iterator)


def _make(iterable: Iterable[T], wanted: "SimpleQueue[bool]", made: "SimpleQueue[T | _Failure]") -> None:
    """Run the background thread: one value per request, until the iterable ends or the caller stops."""
    try:
        iterator = iter(iterable)
        while wanted.get():
            try:
                value = next(iterator)
            except StopIteration:
                made.put(_Failure(None))
                return
            made.put(value)
            del value  # only the caller holds a reference
    except BaseException as error:
        made.put(_Failure(error))
