"""The thread team: who works, who sleeps, and that nothing that happens to a process disturbs it."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

import cylstm
from cylstm._engine import isa
from cylstm.layers.base import describe

packed_only = pytest.mark.skipif(isa.path() != "packed", reason="the BLAS path has no team")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
linux = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")

SETUP = """
import os, signal, sys, threading, time
import numpy as np, cylstm
cylstm.set_num_threads(2)
layer = cylstm.LSTM(64, 96, seed=0)
rng = np.random.default_rng(0)
x = rng.standard_normal((50, 32, 64)).astype("f")
few = np.ascontiguousarray(x[:, :3])  # divided by units, with barrier_slots in every step
def train():
    y, _ = layer.train()(x)
    layer.zero_grad()
    layer.backward(y)
    layer.eval()
    return np.concatenate([g.ravel() for g in layer.gradients.values()])
y, y_few, gradients = layer(x)[0], layer(few)[0], train()
def same():
    return all(map(np.array_equal, (layer(x)[0], layer(few)[0], train()), (y, y_few, gradients)))
"""


def run(code, timeout=120, **environment):
    """What a process of its own prints; a hang is an error."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SETUP + code],
        env=os.environ | environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_64_python_threads_get_the_same_bits(rng):
    layer = cylstm.Sequential(cylstm.LSTM(24, 64, 2, seed=0), cylstm.Linear(64, 2, seed=1))
    inputs = [rng.standard_normal((int(T), int(B), 24)) for T, B in rng.integers(1, 40, (64, 2))]
    expected = [layer(x)[0] for x in inputs]
    limits = {"rtol": 0, "atol": 0} if isa.path() == "packed" else {"rtol": 1e-5, "atol": 1e-6}
    wrong = []

    def work(x, y):
        for n in (1, 2, 4):
            if not np.allclose(layer(x, threads=n)[0], y, **limits):
                wrong.append((x.shape, n))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert len(describe(layer).spare_workspaces) <= len(workers)


@pytest.mark.slow
@pytest.mark.process
@posix
@packed_only  # A child that is forked while OpenBLAS works inherits its locks as they are
def test_children_forked_at_any_moment_compute_the_same():
    """Also those that are forked while another thread has the team at work."""
    code = """
stop = []
def busy():
    while not stop:
        layer(x)
other = threading.Thread(target=busy)
other.start()
codes = []
for k in range(12):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if same() else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.append(1)
other.join()
print(sum(map(abs, codes)), same())
"""
    assert run(code) == ["0", "True"]


@pytest.mark.slow
@pytest.mark.process
@posix
def test_signals_reach_python_and_change_nothing():
    code = """
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(threading.current_thread() is threading.main_thread()))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
ok = all(same() for _ in range(30))
signal.setitimer(signal.ITIMER_REAL, 0)
print(ok, len(seen) > 10, all(seen))
"""
    assert run(code) == ["True", "True", "True"]


@pytest.mark.slow
@pytest.mark.process
@posix
def test_ctrl_c_ends_a_loop_of_calls_and_the_layer_goes_on():
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background has not
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        train()
except KeyboardInterrupt:
    print("interrupted", same())
"""
    assert run(code) == ["interrupted", "True"]


@pytest.mark.slow
@pytest.mark.process
@linux
@packed_only
def test_an_idle_team_uses_no_cpu():
    code = """
used = time.process_time()
time.sleep(1)
asleep = time.process_time() - used
print(asleep < 0.02, same())
"""
    assert run(code) == ["True", "True"]


@pytest.mark.process
@linux
@packed_only
def test_a_call_takes_no_more_threads_than_it_is_told():
    code = """
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
layer(x, threads=2), layer(x, threads=1), layer.train()(x, threads=1), layer.backward(y, threads=1)
print(count() - before)
layer.eval()(x, threads=4)
print(count() - before)
cylstm.LSTM(2, 2, seed=0)(x[:2, :2, :2], threads=9)  # too little work
print(count() - before)
with cylstm.num_threads(2):
    layer(x)
print(count() - before, cylstm.get_num_threads())
"""
    assert run(code, OPENBLAS_NUM_THREADS="1") == ["0", "2", "2", "2", "2"]


def test_threads_of_a_call_are_checked_and_forgotten():
    layer, before = cylstm.LSTM(2, 3, seed=0), cylstm.get_num_threads()
    x = np.zeros((2, 1, 2))
    layer(x, threads=3)
    cylstm.Linear(2, 2, seed=0)(x, threads=3)
    cylstm.Stream(layer).step(x[0], threads=3)
    cylstm.Stream(layer).run(x, threads=3)
    assert cylstm.get_num_threads() == before
    for wrong in (0, -1, 1.5, "2", 10**6):
        with pytest.raises((ValueError, TypeError), match="threads: expected"):
            layer(x, threads=wrong)
    assert cylstm.get_num_threads() == before


@packed_only
def test_threadpoolctl_sees_and_limits_the_team():
    with cylstm.num_threads(2):
        (team,) = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "cylstm"]
        assert (team["num_threads"], team["version"]) == (2, cylstm.__version__)
        with threadpoolctl.threadpool_limits(1):
            assert cylstm.get_num_threads() == 1
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert cylstm.get_num_threads() == 2
        assert cylstm.get_num_threads() == 2


@pytest.mark.slow
@pytest.mark.process
@packed_only
def test_neither_inference_nor_training_loads_scipy(tmp_path):
    code = f"""
model = cylstm.Sequential(cylstm.LSTM(64, 32, 2, bidirectional=True), cylstm.GRU(64, 8), cylstm.Linear(8, 2))
cylstm.save(model, {str(tmp_path / "m.safetensors")!r})
cylstm.load({str(tmp_path / "m.safetensors")!r})(x, lengths=[20] * 32)
cylstm.Stream(cylstm.Sequential(cylstm.RNN(64, 8), cylstm.Linear(8, 2))).step(x[0, 0])
loss = cylstm.losses.MSE()
deep = cylstm.Sequential(cylstm.Linear(64, 32), cylstm.LayerNorm(32), cylstm.LSTM(32, 8), cylstm.Linear(8, 2))
for trained in (model, deep):
    y, _ = trained.train()(x)
    trained.backward(loss(y, np.zeros_like(y))[1])
    cylstm.optim.clip_grad_norm(trained, 1.0)
    cylstm.optim.Adam().step(trained)
print([name for name in sys.modules if name.split(".")[0] in ("scipy", "threadpoolctl", "matplotlib")])
"""
    assert run(code) == ["[]"]


@packed_only
@pytest.mark.parametrize("dtype, tiny", [("float32", 1e-20), ("float64", 1e-160)])
@pytest.mark.parametrize("threads", [1, 2])
def test_subnormals_are_zero_inside_and_as_ever_outside(dtype, tiny, threads):
    layer = cylstm.RNN(64, 64, nonlinearity="relu", bias=False, dtype=dtype, seed=0)
    layer.load_state_dict({name: np.full(w.shape, tiny) for name, w in layer.parameters.items()})
    x = np.full((20, 32, 64), tiny, dtype)
    y, _ = layer.train()(x, threads=threads)
    assert (y == 0).all()  # 64 tiny^2, a subnormal number
    dx, _ = layer.backward(np.full_like(y, tiny), threads=threads)
    assert (dx == 0).all()
    dense = cylstm.Linear(64, 3, bias=False, dtype=dtype, seed=0)
    dense.load_state_dict({"weight": np.full((3, 64), tiny)})
    assert (dense(x) == 0).all()
    smallest = np.finfo(dtype).smallest_subnormal
    assert np.array([smallest], dtype) * np.array([1], dtype) > 0
    assert np.array([tiny], dtype) * np.array([tiny], dtype) > 0


SHAPES = """
import resource
rng = np.random.default_rng(1)
layers = [
    cylstm.LSTM(5, 24, 2, seed=0), cylstm.GRU(5, 40, bidirectional=True, seed=0),
    cylstm.LSTM(5, 24, dtype="float64", peephole=True, proj_size=7, seed=0), cylstm.RNN(5, 70, seed=0),
]
def call(k, T, B):
    layer, lengths = layers[k % 4], rng.integers(0, T + 1, B) if k % 3 == 0 else None
    values = pool[: T * B * 5].reshape(T, B, 5)
    if k % 8 < 4:
        return layer.eval()(values, lengths=lengths, threads=1 + k % 3)
    y, _ = layer.train()(values, lengths=lengths, threads=1 + k % 3)
    layer.backward(y, threads=1 + k % 3)
pool = rng.standard_normal(40 * 40 * 5).astype("f")
for k in range(8):
    call(k, 40, 40)
for k in range(10_000):
    call(k, *rng.integers(0, 41, 2))
    if k == 500:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 4000, same())
"""


@pytest.mark.slow
@pytest.mark.process
@posix
def test_ten_thousand_shapes_keep_memory_flat_and_bits_the_same():
    assert run(SHAPES, timeout=500) == ["True", "True"]


@pytest.mark.slow
@pytest.mark.process
@posix
def test_a_thread_with_a_stack_of_128_kib_trains_every_layer():
    """As musl's have by default. The frame of a kernel is at most 40 KiB."""
    code = """
threading.stack_size(128 * 1024)
def work():
    for dtype in ("float32", "float64"):
        for recurrent in (
            cylstm.LSTM(64, 40, bidirectional=True, dtype=dtype),
            cylstm.LSTM(64, 40, proj_size=9, dtype=dtype),
            cylstm.LSTM(64, 40, layer_norm=True, dtype=dtype), cylstm.GRU(64, 40, 2, dtype=dtype),
            cylstm.RNN(64, 40, dtype=dtype),
        ):
            first = cylstm.Linear(64, 64, dtype=dtype, seed=0)
            last = cylstm.Linear(recurrent.output_size, 200, dtype=dtype, seed=0)
            model = cylstm.Sequential(first, recurrent, last).train()
            for threads in (1, 2):
                y, _ = model(x, threads=threads)
                model.backward(y, threads=threads)
            cylstm.optim.Adam().step(model)
        dense = cylstm.Linear(64, 200, dtype=dtype, seed=0).train()
        dense.backward(dense(x))
    print("done")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert run(code) == ["done"]
