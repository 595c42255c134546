"""The number of threads, and layers used by many threads and in forked children."""

import math
import os
import subprocess
import sys

import pytest
import threadpoolctl

import cylstm
from cylstm import threads


@pytest.fixture(autouse=True)
def _restore():
    with cylstm.num_threads(cylstm.get_num_threads()):
        yield


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**{k: v for k, v in os.environ.items() if k != "CYLSTM_NUM_THREADS"}, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.stdout.strip(), result.stderr


def test_the_number_can_be_set_for_good_and_for_a_while():
    cylstm.set_num_threads(2)
    with cylstm.num_threads(1):
        assert cylstm.get_num_threads() == 1
    assert cylstm.get_num_threads() == 2
    with threadpoolctl.threadpool_limits(1):
        assert cylstm.get_num_threads() == 1
    with pytest.raises(ValueError, match="n: expected a positive int, got 0"):
        cylstm.set_num_threads(0)


def test_the_environment_decides_the_default():
    code = "import cylstm; cylstm.LSTM(1, 1)([[1.0]]); print(cylstm.get_num_threads())"
    assert run(code, CYLSTM_NUM_THREADS="1")[0] == "1"
    assert run(code)[0] == str(threads.usable_cpus())
    assert (
        "CYLSTM_NUM_THREADS: expected a positive int, got 'many'" in run(code, CYLSTM_NUM_THREADS="many")[1]
    )


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ({"cpu.max": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_quotas_of_cgroups_are_read(tmp_path, files, expected):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert threads._cgroup_quota(tmp_path) == expected


def test_importing_brings_in_numpy_only():
    others = ["scipy", "safetensors", "threadpoolctl", "matplotlib", "tqdm", "pandas"]
    assert run(f"import sys, cylstm; print([m for m in {others} if m in sys.modules])")[0] == "[]"
    # Some versions of NumPy load these themselves; with what trains they take half the time.
    later = ["numpy.random", "hashlib", "logging", "concurrent.futures", "dataclasses", "json", "pathlib"]
    later += [f"cylstm.{name}" for name in cylstm._MODULES_LATER]
    before = "import sys, numpy; there = set(sys.modules); import cylstm"
    assert run(f"{before}; print([m for m in {later} if m in set(sys.modules) - there])")[0] == "[]"


def test_what_is_imported_later_is_there():
    assert run("import cylstm; print([n for n in cylstm.__all__ if getattr(cylstm, n) is None])")[0] == "[]"
    assert (
        run("import cylstm; print('Trainer' in dir(cylstm), hasattr(cylstm, 'Trainers'))")[0] == "True False"
    )
    assert run("from cylstm import *; print(Trainer.__name__, QueueFull.__name__)")[0] == "Trainer QueueFull"
    code = """
import sys, cylstm
print([n for n in cylstm._MODULES_LATER if getattr(cylstm, n) is not sys.modules[f"cylstm.{n}"]])
print([n for n, m in cylstm._LATER.items() if getattr(cylstm, n) is not getattr(sys.modules[m], n)])
"""
    assert run(code)[0] == "[]\n[]"


def test_blocks_that_overlap_restore_what_was_before_the_first():
    with cylstm.num_threads(3):
        first = cylstm.num_threads(1)
        first.__enter__()
        with cylstm.num_threads(2):  # as of another thread
            first.__exit__(None, None, None)
            assert cylstm.get_num_threads() == 2
        assert cylstm.get_num_threads() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_the_same():
    code = """
import os, numpy as np, cylstm
layer = cylstm.LSTM(64, 64, seed=0)
x = np.random.default_rng(0).standard_normal((50, 32, 64)).astype("f")
y = layer(x)[0]
layer.train()(x); layer.backward(y)
child = os.fork()
if child == 0:
    layer.zero_grad(); layer(x); layer.backward(y); layer.eval()
    os._exit(0 if np.array_equal(layer(x)[0], y) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(layer.eval()(x)[0], y))
"""
    assert run(code, PYTHONWARNINGS="ignore") == ("0 True", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_trains_while_another_thread_draws_masks():
    code = """
import os, signal, threading, numpy as np, cylstm
lstm = cylstm.LSTM(2, 3, 2, dropout=0.5, recurrent_dropout=0.5, zoneout=0.1, seed=0)
model = cylstm.Sequential(lstm, cylstm.Dropout(0.5, seed=1)).train()
x, begun, over = np.ones((4, 2, 2)), threading.Event(), threading.Event()
def draw():
    with lstm.masks._generator.bit_generator.lock, model.layers[1].masks._generator.bit_generator.lock:
        begun.set()
        over.wait()
thread = threading.Thread(target=draw)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(int(model(x)[0].sum() * 1000) % 251)
over.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == int(model(x)[0].sum() * 1000) % 251)
"""
    assert run(code, PYTHONWARNINGS="ignore") == ("True", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_forgets_the_blocks_of_other_threads():
    code = """
import os, threading, cylstm
cylstm.set_num_threads(4)
begun, over = threading.Event(), threading.Event()
def other():
    with cylstm.num_threads(2):
        begun.set()
        over.wait()
thread = threading.Thread(target=other)
with cylstm.num_threads(3):
    thread.start()
    begun.wait()
    child = os.fork()
if child == 0:
    os._exit(cylstm.get_num_threads())
still = cylstm.get_num_threads()
over.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), still, cylstm.get_num_threads())
"""
    assert run(code, PYTHONWARNINGS="ignore") == ("4 2 4", "")
