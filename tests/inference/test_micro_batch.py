"""Requests of many threads in one batch: each gets what it would get alone."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest
from session_models import MODELS, run_in_threads, same, sequences

import cylstm
from cylstm._engine import isa
from cylstm.inference import micro_batch
from cylstm.layers import states
from cylstm.sequences.packed import PackedSequences

packed_only = pytest.mark.skipif(isa.path() == "blas", reason="only the packed path promises bits")


class Spy:
    """Counts the sequences of each call of a session, and can hold calls up."""

    def __init__(self, session, monkeypatch):
        self.sizes, self.gate, run = [], threading.Event(), session.run
        self.gate.set()

        def spied(x, *args, **kwargs):
            self.gate.wait(10)
            self.sizes.append(len(x.lengths) if isinstance(x, PackedSequences) else 1)
            return run(x, *args, **kwargs)

        monkeypatch.setattr(session, "run", spied)

    def busy(self, requests, x):
        """The worker is busy with a request; what comes now waits."""
        self.gate.clear()
        future = requests.submit(x)
        while not future.running():
            time.sleep(0.001)
        return future


@pytest.fixture
def session():
    return cylstm.Session(cylstm.LSTM(5, 8, seed=0))


@packed_only
@pytest.mark.parametrize("name", MODELS)
def test_results_have_the_bits_of_a_call_alone(rng, name):
    model = MODELS[name]()
    session = cylstm.Session(model)
    xs = [sequences(rng, model, T, 1) for T in rng.integers(0, 12, 24)]
    xs = [x[0] if model.batch_first else x[:, 0] for x in xs]
    with session.micro_batch(max_batch=8, max_delay=0.05) as requests:
        first = [requests.submit(x) for x in xs]
        for x, future in zip(xs, first, strict=True):
            same(future.result(), session.run(x))
        # Some of the next begin in a state, some not.
        before = [future.result()[1] if k % 3 else None for k, future in enumerate(first)]
        for x, state, future in zip(xs, before, list(map(requests.submit, xs, before)), strict=True):
            same(future.result(), session.run(x, state))


@packed_only
def test_threads_are_joined_and_all_of_them_get_their_own(rng, session, monkeypatch):
    xs = [rng.standard_normal((1 + k % 9, 5)) for k in range(32)]
    expected = [session.run(x) for x in xs]
    spy = Spy(session, monkeypatch)
    with session.micro_batch(max_batch=10, max_delay=0.2) as requests:

        def work(k):
            for i in range(5):
                same(requests.run(xs[(k + i) % 32]), expected[(k + i) % 32])

        run_in_threads(32, work)
    assert sum(spy.sizes) == 160
    assert max(spy.sizes) == 10
    assert len(spy.sizes) < 60


def test_a_batch_starts_when_it_is_full_or_the_time_is_up(rng, session, monkeypatch):
    spy = Spy(session, monkeypatch)
    x = rng.standard_normal((3, 5))
    with session.micro_batch(max_batch=4, max_delay=30) as requests:
        for future in [requests.submit(x) for _ in range(8)]:
            future.result(5)  # not after 30 seconds
        assert spy.sizes == [4, 4]
        late = requests.submit(x)
    assert late.done()  # what was accepted is finished at once
    with session.micro_batch(max_batch=4, max_delay=0.05) as requests:
        start = time.monotonic()
        requests.run(x)
        assert 0.04 < time.monotonic() - start < 5
    with session.micro_batch(max_delay=0) as requests:
        spy.busy(requests, x)
        futures = [requests.submit(x) for _ in range(5)]
        spy.gate.set()
        [future.result() for future in futures]
    assert spy.sizes[-2:] == [1, 5]  # those that came meanwhile


def test_different_lengths_are_batched_except_for_attention(rng, monkeypatch):
    for more, sizes in (([], [1, 6]), ([cylstm.MultiplicativeAttention(8, seed=0)], [1, 4, 2])):
        session = cylstm.Session(cylstm.Sequential(cylstm.LSTM(5, 8, seed=0), *more))
        xs = [rng.standard_normal((T, 5)) for T in (3, 7, 3, 3, 7, 3)]
        expected = [session.run(x) for x in xs]
        spy = Spy(session, monkeypatch)
        with session.micro_batch(max_delay=0) as requests:
            spy.busy(requests, xs[0])
            futures = [requests.submit(x) for x in xs]
            spy.gate.set()
            for future, (y, _) in zip(futures, expected, strict=True):
                np.testing.assert_allclose(future.result()[0], y, rtol=1e-5, atol=1e-6)
        assert spy.sizes == sizes


def test_a_full_queue_refuses_or_waits(rng, session, monkeypatch):
    spy = Spy(session, monkeypatch)
    x = rng.standard_normal((3, 5))
    with session.micro_batch(max_batch=2, max_delay=0, max_queue=3) as requests:
        spy.busy(requests, x)
        futures = [requests.submit(x) for _ in range(3)]
        with pytest.raises(cylstm.QueueFull, match="3 requests are waiting already"):
            requests.submit(x)
        start = time.monotonic()
        with pytest.raises(cylstm.QueueFull):
            requests.run(x, timeout=0.05)
        assert time.monotonic() - start > 0.04
        waiting = [threading.Thread(target=requests.run, args=(x,)) for _ in range(6)]
        for thread in waiting:
            thread.start()
        time.sleep(0.05)
        assert len(requests._waiting) == 3
        spy.gate.set()
        for thread in waiting:
            thread.join(10)
            assert not thread.is_alive()
        assert all(future.result() for future in futures)
    assert sum(spy.sizes) == 10


def test_wrong_requests_are_refused_before_they_are_joined(rng, session):
    with session.micro_batch(max_delay=0) as requests:
        for x, message in (
            (np.ones((3, 4)), r"x: expected \(T, B, 5\) or \(T, 5\), got \(3, 4\)"),
            (np.ones((3, 2, 5)), r"x: expected one sequence, \(T, 5\), got \(3, 2, 5\)"),
            (["a"], r"x\[0\]: expected real numbers"),
            (cylstm.data.pack([np.ones((3, 5))]), "x: expected an array, got PackedSequences"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                requests.run(x)
        with pytest.raises(ValueError, match=r"state h: expected \(1, 8\), got \(1, 1, 8\)"):
            requests.submit(np.ones((3, 5)), (np.ones((1, 1, 8)), np.ones((1, 8))))
        with pytest.raises(ValueError, match="timeout: expected"):
            requests.submit(np.ones((3, 5)), timeout=-1)
        same(requests.run(np.ones((3, 5))), session.run(np.ones((3, 5))))
    for name, value in (("max_batch", 0), ("max_queue", 0), ("max_delay", -1), ("max_delay", float("nan"))):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            session.micro_batch(**{name: value})
    indices = cylstm.Session(MODELS["indices"]())
    with indices.micro_batch() as requests:
        with pytest.raises(ValueError, match="x: expected indices from 0 to 10, got 3 to 11"):
            requests.submit([3, 11])
        with pytest.raises(ValueError, match=r"x: expected one sequence, \(T,\), got \(1, 2\)"):
            requests.submit([[3, 1]])


def test_failing_request_does_not_affect_batch(rng, session, monkeypatch):
    run = session.run

    def fragile(x, *args):
        if np.isnan(getattr(x, "rows", x)).any():
            raise MemoryError("too much")
        return run(x, *args)

    monkeypatch.setattr(session, "run", fragile)
    xs = [rng.standard_normal((3, 5)) for _ in range(4)]
    xs[2][1, 1] = np.nan
    with session.micro_batch(max_batch=4, max_delay=0.5) as requests:
        futures = [requests.submit(x) for x in xs]
        with pytest.raises(MemoryError, match="too much"):
            futures[2].result()
        for k in (0, 1, 3):
            np.testing.assert_array_equal(futures[k].result()[0], run(xs[k])[0])
        same(requests.run(xs[0]), run(xs[0]))


def test_requests_are_copies_and_so_are_results(rng, session):
    x = rng.standard_normal((3, 5)).astype("f")
    expected = session.run(x)
    with session.micro_batch(max_batch=2, max_delay=5) as requests:
        first = requests.submit(x)
        x[...] = 0
        requests.submit(x)
        y, state = first.result()
    np.testing.assert_allclose(y, expected[0], rtol=1e-5, atol=1e-7)
    for array in (y, *states.arrays(state)):
        owner = array if array.base is None else array.base
        assert owner.nbytes == array.nbytes  # no memory of the others is kept


def test_a_cancelled_request_is_left_out(rng, session, monkeypatch):
    spy = Spy(session, monkeypatch)
    x = rng.standard_normal((3, 5))
    with session.micro_batch(max_delay=0) as requests:
        spy.busy(requests, x)
        unwanted, wanted = requests.submit(x), requests.submit(x)
        assert unwanted.cancel()
        spy.gate.set()
        assert wanted.result()
    assert spy.sizes == [1, 1]


def test_close_rejects_new_and_waiting_requests(rng, session, monkeypatch):
    spy = Spy(session, monkeypatch)
    x = rng.standard_normal((3, 5))
    requests = session.micro_batch(max_delay=0, max_queue=1)
    spy.busy(requests, x)
    accepted, heard = requests.submit(x), []

    def wait():
        with pytest.raises(RuntimeError, match="was closed"):
            requests.run(x)
        heard.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    closing = threading.Thread(target=requests.close)
    closing.start()
    waiting.join(10)
    assert heard
    spy.gate.set()
    closing.join(10)
    assert accepted.done()
    with pytest.raises(RuntimeError, match="was closed"):
        requests.submit(x)
    requests.close()
    session.micro_batch().close()  # which never had a worker


def test_a_callback_may_close_it(rng, session):
    requests = session.micro_batch(max_delay=0)
    closed = threading.Event()
    future = requests.submit(rng.standard_normal((3, 5)))
    future.add_done_callback(lambda _: (requests.close(), closed.set()))
    assert closed.wait(10)


def test_an_idle_worker_ends_and_another_begins(rng, session, monkeypatch):
    monkeypatch.setattr(micro_batch, "IDLE_SECONDS", 0.01)
    requests = session.micro_batch(max_delay=0)
    x = rng.standard_normal((3, 5))
    for _ in range(3):
        same(requests.run(x), session.run(x))
        end = time.monotonic() + 10
        while requests._worker is not None:
            assert time.monotonic() < end
            time.sleep(0.001)
    gone = weakref.ref(requests)
    del requests
    gc.collect()
    assert gone() is None


def test_asyncio_waits_without_a_thread(rng, session):
    xs = [rng.standard_normal((T, 5)) for T in (3, 1, 6)]

    async def serve():
        with session.micro_batch(max_batch=3, max_delay=1) as requests:
            return await asyncio.gather(*(asyncio.wrap_future(requests.submit(x)) for x in xs))

    for x, (y, _) in zip(xs, asyncio.run(serve()), strict=True):
        np.testing.assert_allclose(y, session.run(x)[0], rtol=1e-5, atol=1e-7)


def test_a_request_that_no_thread_can_be_started_for_is_not_kept(session, monkeypatch):
    def none_left(*_):
        raise RuntimeError("can't start new thread")

    x = np.ones((4, 5), np.float32)
    with session.micro_batch() as requests:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            with pytest.raises(RuntimeError, match="can't start"):
                requests.submit(x)
        assert not requests._waiting
        same(requests.run(x), session.run(x))
