"""prefetch: the same values, one ahead; errors arrive, and nothing is left waiting."""

import gc
import os
import subprocess
import sys
import threading
import time
import traceback
import types

import numpy as np
import pytest

from cylstm.data import Arrays, prefetch, prefetching
from cylstm.data.prefetching import HANDOVER_SECONDS, prefetch_slow


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "cylstm-prefetch"]


def assert_soon(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def run(code, limit=20):
    """Output of a script that has to end by itself."""
    command = [sys.executable, "-W", "ignore", "-c", "from cylstm.data import prefetch\n" + code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    return result.stdout.split()


def test_values_and_their_order_are_the_same(rng):
    x = rng.standard_normal((20, 3, 2))
    source = Arrays(x, x, 4)
    ours = list(prefetch(source.epoch(np.random.default_rng(1))))
    for a, b in zip(ours, source.epoch(np.random.default_rng(1)), strict=True):
        np.testing.assert_array_equal(a.x, b.x)
    assert list(prefetch([])) == []
    assert list(prefetch(iter([None, 1]))) == [None, 1]
    assert_soon(lambda: not threads())


def test_one_value_is_made_ahead_and_no_more():
    made = []

    def values():
        for n in range(6):
            made.append(n)
            yield n

    for n in prefetch(values()):
        ahead = min(n + 2, 6)
        assert_soon(lambda: len(made) >= ahead)  # noqa: B023 - called at once
        time.sleep(0.01)
        assert len(made) == ahead


def test_prefetch_error_follows_preceding_values():
    def values():
        yield 1
        raise KeyError("spoilt")

    ahead = prefetch(values())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="spoilt") as caught:
        next(ahead)
    assert "values" in [frame.name for frame in traceback.extract_tb(caught.tb)]
    with pytest.raises(TypeError, match="not iterable"):
        list(prefetch(3))
    assert_soon(lambda: not threads())


@pytest.mark.parametrize("how", ["break", "close", "drop"])
def test_leaving_early_ends_the_thread_and_closes_the_iterator(how):
    closed = threading.Event()

    def values():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = prefetch(values())
    if how == "break":
        for _ in prefetch(values()):
            break
        gc.collect()
    else:
        next(ahead)
        if how == "close":
            ahead.close()
    del ahead
    assert_soon(closed.is_set)  # without the GIL, Python 3.14.4 lets go of it when this thread goes on
    assert_soon(lambda: not threads())


SLOW = """
import time
def slow():
    yield 1
    time.sleep(100)
ahead = prefetch(slow())
print(next(ahead))
"""


@pytest.mark.process
def test_the_interpreter_ends_while_a_value_is_being_made():
    assert run(SLOW + "print('end')") == ["1", "end"]
    assert run(SLOW + "ahead.close(); print('end')") == ["1", "end"]


@pytest.mark.process
@pytest.mark.skipif(os.name == "nt", reason="needs signals that interrupt a wait")
def test_ctrl_c_interrupts_the_wait_for_a_value():
    code = """
import os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background has not
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    next(ahead)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(SLOW + code) == ["1", "interrupted"]


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_and_the_parent_goes_on():
    code = """
import os
ahead = prefetch(range(100))
next(ahead)
child = os.fork()
if not child:
    try:
        next(ahead)
    except RuntimeError as error:
        own = list(prefetch(range(3)))
        os._exit(0 if "forked child" in str(error) and own == [0, 1, 2] else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sum(ahead))
"""
    assert run(code) == ["0", str(sum(range(1, 100)))]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(prefetching, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_only_slow_values_are_made_in_another_thread(clock):
    def made(slow):
        for n in range(8):
            clock[0] += 2 * HANDOVER_SECONDS if n in slow else HANDOVER_SECONDS / 2
            yield n, threading.get_ident()

    here = threading.get_ident()
    values, threads = zip(*prefetch_slow(made({1, 3, 4})), strict=True)  # two in a row: then by another
    assert values == tuple(range(8))
    assert set(threads[:5]) == {here}
    assert here not in threads[5:]
    assert len(set(threads[5:])) == 1


@pytest.mark.parametrize("seconds", [0, 3 * HANDOVER_SECONDS])
def test_prefetch_slow_closes_iterator_and_propagates_errors(clock, seconds):
    closed, values = [], []

    def made():
        try:
            for n in range(5):
                clock[0] += seconds
                yield n
            raise OSError("no more to read")
        finally:
            closed.append(True)

    def read():
        for value in prefetch_slow(made()):
            values.append(value)

    with pytest.raises(OSError, match="no more to read"):
        read()
    assert (values, closed) == ([0, 1, 2, 3, 4], [True])
    left = prefetch_slow(made())
    assert [next(left) for _ in range(4)] == [0, 1, 2, 3]
    left.close()
    for _ in range(200):  # until the thread, if there is one, has ended
        if len(closed) == 2:
            break
        gc.collect()
        time.sleep(0.01)
    assert closed == [True, True]
