"""A session is the model as it was, for any number of threads, at the cost of its result."""

import copy
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from memory import peak_of
from problems import LAYERS, for_caller, make, problem
from session_models import MODELS, run_in_threads, same, sequences

import cylstm
from cylstm._engine import isa
from cylstm._system.cpus import CpuPool
from cylstm.layers import states


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_session_matches_model(rng, model):
    session = cylstm.Session(model.train())  # whose mode does not matter
    model.eval()
    for T, B in ((6, 3), (1, 1), (9, 20), (0, 2), (4, 0), (6, 3)):
        x = sequences(rng, model, T, B)
        lengths = rng.integers(0, T + 1, B)
        same(session.run(x), model(x))
        y, state = model(x, lengths=lengths)
        same(session.run(x, lengths=lengths), (y, state))
        same(session.run(x, state), model(x, state))
    x = sequences(rng, model, 5, 1)
    one = x[0] if model.batch_first else x[:, 0]
    same(session.run(one), model(one))
    same(session.run(one, model(one)[1]), model(one, model(one)[1]))


CHAINS = {
    "stack": lambda: cylstm.LSTM(5, 17, 3, learn_state=True, dtype="float64", seed=0),
    "panels": lambda: cylstm.GRU(5, 32, 2, seed=0),
    "model": lambda: cylstm.Sequential(
        cylstm.Linear(5, 40, seed=2), cylstm.LSTM(40, 20, proj_size=6, seed=0), cylstm.Dropout(0.5),
        cylstm.RNN(6, 9, seed=3), cylstm.Linear(9, 70, seed=1),
    ),
    "batch first": MODELS["batch first"],
    "only dropout": lambda: cylstm.Sequential(cylstm.Dropout(0.5, features=5)),
}  # fmt: skip


@pytest.mark.skipif(isa.path() == "blas", reason="the short way is the packed path's")
@pytest.mark.parametrize("chain", CHAINS)
def test_repeated_calls_use_bit_identical_fast_path(rng, chain):
    model = CHAINS[chain]()
    model.load_state_dict({k: v + 0.05 for k, v in model.state_dict().items()})
    session = cylstm.Session(model)
    (place,) = session._spare
    for T, B in ((1, 1), (6, 1), (7, 3), (2, 9), (1, 4)):
        xs = [sequences(rng, model, T, B) for _ in range(4)]
        assert place.steps is None or place.packing.T != T or place.packing.B != B
        for x in xs:
            same(session.run(x), model(x))
        short = not model.batch_first or min(T, B) == 1
        assert (place.steps is not None) == short
        steps, (y, state) = place.steps, session.run(xs[0])
        same(session.run(xs[1], state), model(xs[1], state))
        expected = model(xs[2], state)
        got = session.run(xs[2], state, out=(y, state))
        assert got[0] is y
        assert got[1] is state
        same(got, expected)
        wide = np.zeros((*y.shape, 2), y.dtype)[..., 0]
        for x in (xs[3], np.asfortranarray(xs[3]), xs[3].astype(float), xs[3].tolist()):
            same(session.run(x, out=wide), model(x))
        if B == 1:
            one = xs[0].reshape(T, 5)
            same(session.run(one), model(one))
            same(session.run(one, model(one)[1]), model(one, model(one)[1]))
        for out in (y[:0], y.astype(int), "y"):
            with pytest.raises(ValueError, match="out: expected an array"):
                session.run(xs[0], out=out)
        y.flags.writeable = False
        with pytest.raises(ValueError, match="out: expected a writable array"):
            session.run(xs[0], out=y)
        for wrong in (xs[0][..., :4], np.zeros((T, B, 6), model.dtype)):
            with pytest.raises(ValueError, match="x: expected"):
                session.run(wrong)
        with pytest.raises((ValueError, TypeError), match=r"state"):
            session.run(xs[0], np.zeros((1, 2, 3)))
        assert place.steps is steps
        same(session.run(xs[0]), model(xs[0]))
        assert session._spare == [place]
        lengths = np.arange(B) % T + 1
        same(session.run(xs[0], lengths=lengths), model(xs[0], lengths=lengths))
        same(session.run(xs[0]), model(xs[0]))


@pytest.mark.parametrize("cell", LAYERS)
def test_every_cell_begins_in_the_state_given(rng, cell):
    layer = make(cell, 5, 9, 2, seed=0)
    x, state, *_ = problem(rng, layer, 7, 4)
    session = cylstm.Session(layer)
    for _ in range(3):
        same(session.run(x, for_caller(state)), layer(x, for_caller(state)))


def test_packed_sequences_come_back_packed(rng):
    model = MODELS["stack"]()
    packed = cylstm.data.pack([rng.standard_normal((T, 5)) for T in (3, 0, 7)])
    y, state = cylstm.Session(model).run(packed)
    expected, final = model(packed)
    same((y.rows, state), (expected.rows, final))


def test_partial_state_uses_learned_initial_state(rng):
    model = cylstm.Sequential(cylstm.GRU(5, 6, learn_state=True, seed=0), cylstm.GRU(6, 4, seed=1))
    model.load_state_dict({k: v + 0.1 for k, v in model.state_dict().items()})
    x = sequences(rng, model, 4, 3)
    state = (None, model(x)[1][1])
    session = cylstm.Session(model)
    same(session.run(x, state), model(x, state))
    out = session.run(x)
    same(session.run(x, state, out=out), model(x, state))


def test_out_is_written_and_returned(rng, model):
    session = cylstm.Session(model)
    x = sequences(rng, model, 6, 3)
    expected, final = model(x)
    y = np.full_like(expected, np.nan)
    got, state = session.run(x, out=y)
    assert got is y
    same((y, state), (expected, final))
    out = (np.full_like(y, np.nan), states.copied(model(x[:3], None)[1] if not model.batch_first else state))
    if states.arrays(out[1]) and out[1] is not state:
        for part in states.arrays(out[1]):
            part[...] = np.nan
    got, given = session.run(x, out=out)
    assert got is out[0]
    assert given is out[1]
    same((got, given), (expected, final))
    same(session.run(x, given, out=(got, given)), model(x, final))  # where it stands


def test_later_writes_to_the_model_do_not_change_it(rng):
    model = cylstm.Sequential(cylstm.LSTM(5, 8, seed=0), cylstm.Linear(8, 3, seed=1))
    x = sequences(rng, model, 6, 2)
    expected = model(x)
    session, stream = cylstm.Session(model), cylstm.Stream(cylstm.Session(model), 2)
    model.layers[0].clip = 0.1
    y, _ = model.train()(x)
    model.backward(y)
    cylstm.optim.SGD(0.1).step(model)
    model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})
    assert not np.array_equal(model.eval()(x)[0], expected[0])
    same(session.run(x), expected)
    same((stream.run(x), stream.state), expected)
    del model
    same(session.run(x), expected)


def test_session_is_read_only(rng):
    session = cylstm.Session(cylstm.Sequential(cylstm.LSTM(5, 8, seed=0), cylstm.Linear(8, 3, seed=1)))
    for name in ("train", "backward", "load_state_dict", "parameters", "gradients"):
        assert not hasattr(session, name)
    for name in ("threads", "dtype", "input_size", "output_size", "batch_first"):
        with pytest.raises(AttributeError):
            setattr(session, name, getattr(session, name))
    inner = session._model
    for layer in (inner, *inner.layers):
        with pytest.raises(ValueError, match="read-only"):
            layer.load_state_dict(layer.state_dict())
    with pytest.raises(TypeError, match="model: expected"):
        cylstm.Trainer(session, cylstm.losses.MSE())


def test_weights_are_packed_once():
    session = cylstm.Session(cylstm.LSTM(5, 8, seed=0))
    shared = session._model._shared
    packed = shared._packed
    run_in_threads(8, lambda k: session.run(np.ones((k + 1, 2, 5))))
    assert shared._packed is packed
    assert (packed is None) == (isa.path() == "blas")


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, None])
def test_many_threads_get_the_bits_of_one(rng, threads):
    model = cylstm.Sequential(cylstm.LSTM(5, 24, 2, seed=0), cylstm.Linear(24, 3, seed=1))
    session = cylstm.Session(model, threads=threads)
    calls = []
    for k in range(64):
        x = sequences(rng, model, 1 + k % 9, 1 + k % 5)
        lengths = rng.integers(0, len(x) + 1, x.shape[1]) if k % 2 else None
        calls.append((x, lengths, model(x, lengths=lengths)))

    def work(k):
        for i in range(40):
            x, lengths, expected = calls[(k + i * 7) % 64]
            same(session.run(x, lengths=lengths), expected)

    run_in_threads(64, work)
    assert len(session._spare) <= (threads or cylstm.get_num_threads())


def test_the_interpreter_runs_on_while_a_session_computes():
    session = cylstm.Session(cylstm.LSTM(64, 256, seed=0), threads=1)
    x = np.ones((400, 32, 64), np.float32)
    session.run(x)

    def turns():
        """How often this thread runs until the worker ends, which may be before it runs at all."""
        worker, n = threading.Thread(target=session.run, args=(x,)), 0
        worker.start()
        while worker.is_alive():
            n += 1
            time.sleep(0.001)
        return n

    assert any(turns() > 5 for _ in range(20))


@pytest.mark.slow
@pytest.mark.skipif(isa.path() == "blas", reason="NumPy's and BLAS's calls have temporaries")
@pytest.mark.parametrize(
    "more",
    [[], [cylstm.LayerNorm(96)], [cylstm.MultiHeadAttention(96, 4)]],
    ids=["plain", "norm", "attention"],
)
def test_a_call_allocates_its_result_and_with_out_nothing(rng, more):
    T, B, I, H = 60, 16, 24, 96
    model = cylstm.Sequential(cylstm.LSTM(I, H, 2, seed=0), *more, cylstm.Linear(H, H, seed=1))
    session = cylstm.Session(model)
    x = rng.standard_normal((T, B, I)).astype("f")
    for _ in range(3):
        y, state = session.run(x)
    result = y.nbytes + sum(part.nbytes for part in states.arrays(state))
    small = 6000 + (36_000 if more else 0)  # Python's objects; buffers of NumPy, 8192 numbers each
    # The least of three: what other threads and finalizers of the process allocate meanwhile counts, too.
    assert min(peak_of(lambda: session.run(x)) for _ in range(3)) < result + small
    assert peak_of(lambda: session.run(x, out=(y, state))) < small < y.nbytes / 8


@pytest.mark.skipif(isa.path() == "blas", reason="NumPy's and BLAS's calls have temporaries")
def test_batches_of_any_size_use_the_memory_of_the_largest(rng):
    session = cylstm.Session(cylstm.LSTM(4, 32, seed=0))
    session.run(np.zeros((40, 16, 4)))
    (place,) = session._spare
    allocations = place.workspace.arena.allocations
    for T, B in rng.integers(0, 41, (100, 2)):
        session.run(np.zeros((T, B % 17, 4)), lengths=rng.integers(0, T + 1, B % 17))
    assert session._spare == [place]
    assert place.workspace.arena.allocations == allocations


def test_threads_that_come_and_go_leave_nothing():
    T, B, H = 400, 8, 64  # results larger than what Python itself keeps for a thread
    session = cylstm.Session(cylstm.LSTM(5, H, seed=0), threads=2)
    x = np.ones((T, B, 5), np.float32)

    def wave():
        run_in_threads(8, lambda k: session.run(x))

    wave(), wave()
    results = 8 * T * B * H * 4
    assert peak_of(lambda: [wave() for _ in range(5)]) < 2 * results
    assert len(session._spare) <= 2


def most_at_once(cpus, n, hold=0.002):
    """The most CPUs that n threads had at a time, each for several calls."""
    taken, most, lock = 0, 0, threading.Lock()

    def work(k):
        nonlocal taken, most
        for _ in range(5):
            with cpus.slot() as slot:
                with lock:
                    taken += slot.n
                    most = max(most, taken)
                time.sleep(hold)
                with lock:
                    taken -= slot.n

    run_in_threads(n, work)
    assert taken == 0
    return most


packed_only = pytest.mark.skipif(isa.path() == "blas", reason="calls on BLAS go one after the other")


@packed_only
@pytest.mark.parametrize("n", [1, 2, 5])
def test_calls_never_use_more_cpus_than_asked_for(n):
    cpus = CpuPool(n)
    assert most_at_once(cpus, 20) == n
    with cpus.slot() as slot:
        assert slot.n == cylstm.get_num_threads() == n  # alone it has all


@packed_only
def test_sessions_without_a_number_share_the_process_s():
    with cylstm.num_threads(3):
        a, b = (cylstm.Session(cylstm.LSTM(2, 3, seed=k)) for k in range(2))
        assert a._cpus is b._cpus
        assert most_at_once(a._cpus, 12) == 3
    assert cylstm.Session(cylstm.LSTM(2, 3), threads=2)._cpus is not a._cpus


@packed_only
def test_waiting_calls_divide_free_cpus():
    cpus, held = CpuPool(8), []

    def work(k):
        with cpus.slot() as slot:
            held.append(slot.n)
            time.sleep(0.05)

    with cpus.slot() as slot:
        assert slot.n == 8
        workers = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for worker in workers:
            worker.start()
        while len(cpus._waiting) < 3:
            time.sleep(0.001)
    for worker in workers:
        worker.join()
    assert held == [2, 2, 2]


@pytest.mark.slow
@packed_only
@pytest.mark.parametrize("turn, expected", [(0, "abab"), (60, "aabb")])
def test_a_turn_is_as_many_calls_as_follow_at_once(monkeypatch, turn, expected):
    monkeypatch.setattr("cylstm._system.cpus.PRIORITY_SECONDS", turn)
    if turn:  # nobody is woken, but looks again after a second
        monkeypatch.setattr(CpuPool, "_wake_next", lambda self: None)
    shared, order = CpuPool(1), []

    def calls(name):
        for _ in range(2):
            with shared.slot():
                order.append(name)

    threads = [threading.Thread(target=calls, args=(name,)) for name in "ab"]
    with shared.slot():
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            while len(shared._waiting) < waiting:
                time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert "".join(order) == expected


def test_threads_of_the_call_are_those_of_the_session(monkeypatch):
    session = cylstm.Session(cylstm.LSTM(5, 8, seed=0), threads=3)
    seen = []
    forward = type(session._model).forward_batch
    monkeypatch.setattr(
        cylstm.LSTM, "forward_batch", lambda *args: (seen.append(cylstm.get_num_threads()), forward(*args))[1]
    )
    before = cylstm.get_num_threads()
    session.run(np.ones((2, 5)))
    assert seen == [3]
    assert cylstm.get_num_threads() == before
    with pytest.raises(ValueError, match="x: expected"):
        session.run(np.ones((2, 4)))
    assert cylstm.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ctrl-C within a __del__
def test_ctrl_c_at_any_moment_leaves_it_usable(interruptible):
    session = cylstm.Session(cylstm.LSTM(5, 64, seed=0), threads=1)
    x = np.ones((20, 2, 5), np.float32)
    expected = session.run(x)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    others = threading.Thread(target=lambda: [session.run(x) for _ in range(3000)], daemon=True)
    others.start()
    interrupted, begin = 0, time.monotonic()
    try:
        while (seconds := time.monotonic() - begin) < 1.5 or (interrupted <= 20 and seconds < 30):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 * (1 + interrupted % 13))
                for _ in range(100):
                    session.run(x)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert interrupted > 20
    others.join(30)
    assert not others.is_alive()
    same(session.run(x), expected)


FORKS = """
import os, threading, numpy as np, cylstm
rng = np.random.default_rng(0)
model = cylstm.Sequential(cylstm.LSTM(16, 64, 2, seed=0), cylstm.Linear(64, 3, seed=1))
x = rng.standard_normal((30, 8, 16)).astype("f")
y = model(x)[0]
session = cylstm.Session(model, threads={threads})
shared = cylstm.Session(model)
requests = session.micro_batch()
same = np.array_equal if cylstm._engine.isa.path() == "packed" else np.allclose  # beside others

def right():
    def work():
        for _ in range(10):
            good.append(np.array_equal(session.run(x)[0], y) and np.array_equal(shared.run(x)[0], y)
                        and same(requests.run(x[:, 3])[0], y[:, 3]))
    good = []
    workers = [threading.Thread(target=work) for _ in range(4)]
    [w.start() for w in workers]; [w.join() for w in workers]
    return len(good) == 40 and all(good)

def child_is_right():
    child = os.fork()
    if child == 0:
        fine = right()
        requests.close()
        os._exit(0 if fine else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

results = [child_is_right(), right(), child_is_right()]
stop = []  # now while other threads compute, wait and submit
busy = [threading.Thread(target=lambda: [right() for _ in iter(lambda: bool(stop), True)]) for _ in range(3)]
[b.start() for b in busy]
results += [child_is_right() for _ in range(10)]
stop.append(1); [b.join() for b in busy]
requests.close()
print(results.count(True), len(results))
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_forks_before_use_after_use_and_in_the_middle_of_it(threads):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS.format(threads=threads)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (result.stdout.strip(), result.stderr) == ("13 13", "")


def test_a_session_can_be_copied_and_pickled(rng):
    session = cylstm.Session(MODELS["stack"](), threads=1)
    x = sequences(rng, session._model, 4, 2)
    for other in (copy.copy(session), copy.deepcopy(session), pickle.loads(pickle.dumps(session))):
        same(other.run(x), session.run(x))
        assert other.threads == 1
    assert repr(session).startswith("Session(LSTM(input_size=5")


def test_wrong_arguments_are_named(rng):
    with pytest.raises(TypeError, match=r"model: expected a recurrent layer or a Sequential.* got Linear"):
        cylstm.Session(cylstm.Linear(3, 2))
    with pytest.raises(TypeError, match="got str"):
        cylstm.Session("model")
    with pytest.raises(ValueError, match="give it features="):
        cylstm.Session(cylstm.Pooling())
    for n, kind in ((0, ValueError), (1.5, TypeError), (10**6, ValueError)):
        with pytest.raises(kind, match="threads: expected"):
            cylstm.Session(cylstm.LSTM(3, 4), threads=n)
    session = cylstm.Session(cylstm.LSTM(3, 4, seed=0))
    x = np.ones((5, 2, 3), np.float32)
    y, (h, c) = session.run(x)
    fixed = h.copy()
    fixed.flags.writeable = False
    for out, message in (
        (y[:4], r"out: expected an array \(5, 2, 4\)"),
        ((y,), r"out: expected an array or a tuple \(y, state\), got a tuple of 1"),
        ((y[:4], (h, c)), r"out: expected an array \(5, 2, 4\)"),
        ((y, (h, None)), r"out\[1\]|array"),
        ((y, (h, c.astype(float))), r"out\[1\]: expected an array \(1, 2, 4\) float32, got"),
        ((y, (h[:, :1], c)), r"out\[1\] h: expected \(1, 2, 4\), got \(1, 1, 4\)"),
        ((y, (fixed, c)), r"out\[1\]: expected a writable array"),
        ((y, (h.tolist(), c)), r"out\[1\]: expected an array"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            session.run(x, out=out)
    with pytest.raises(ValueError, match="out: expected None with packed sequences"):
        session.run(cylstm.data.pack([x[:, 0]]), out=y)
    with pytest.raises(ValueError, match=r"x: expected indices|x: expected"):
        session.run(np.ones((5, 2, 4)))
    model = cylstm.Sequential(cylstm.LSTM(3, 4, seed=0), cylstm.LSTM(4, 2, seed=0))
    two = cylstm.Session(model)
    y, state = two.run(x)
    with pytest.raises(ValueError, match=r"out\[1\]: expected a state as run returns it, got one with None"):
        two.run(x, out=(y, (state[0], None)))
    same(two.run(x), model(x))
