"""The number of threads, and layers used by many threads and in forked children."""

import math
import os
import subprocess
import sys

import pytest
import threadpoolctl

import cylstm
from cylstm._system import cgroups, threads


@pytest.fixture(autouse=True)
def _restore():
    with cylstm.num_threads(cylstm.get_num_threads()):
        yield


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | environment,
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


@pytest.mark.process
def test_the_environment_decides_the_default():
    code = "import cylstm; cylstm.LSTM(1, 1)([[1.0]]); print(cylstm.get_num_threads())"
    assert run(code, CYLSTM_NUM_THREADS="1")[0] == "1"
    assert run(code)[0] == str(threads.usable_cpus())
    assert (
        "CYLSTM_NUM_THREADS: expected a positive int, got 'many'" in run(code, CYLSTM_NUM_THREADS="many")[1]
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": " 4 , 2 "}, 4),  # of nested regions
        ({"OMP_NUM_THREADS": "3", "CYLSTM_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "3", "CYLSTM_NUM_THREADS": ""}, 3),
        ({"OMP_NUM_THREADS": "", "CYLSTM_NUM_THREADS": " "}, None),
        ({"OMP_NUM_THREADS": "99999999999"}, threads.MAX_THREADS),
    ],
)
def test_openmp_s_variable_is_the_fallback(monkeypatch, environment, expected):
    for name in ("OMP_NUM_THREADS", "CYLSTM_NUM_THREADS"):
        monkeypatch.setenv(name, environment[name]) if name in environment else monkeypatch.delenv(
            name, False
        )
    assert threads.from_environment() == expected
    assert threads.default() == (expected or threads.usable_cpus())


@pytest.mark.parametrize("setting", ["0", "-2", "many", "1.5", ",4"])
def test_invalid_omp_num_threads_warns(monkeypatch, setting):
    monkeypatch.delenv("CYLSTM_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    with pytest.warns(UserWarning, match="OMP_NUM_THREADS: expected a positive int.*ignored"):
        assert threads.default() == threads.usable_cpus()


@pytest.mark.process
def test_limits_of_threadpoolctl_hold_before_the_first_call():
    for imports in ("cylstm, threadpoolctl", "threadpoolctl, cylstm"):
        code = f"""
import {imports}
with threadpoolctl.threadpool_limits(1):
    cylstm.LSTM(1, 1)([[1.0]])
    print(cylstm.get_num_threads())
print(cylstm.get_num_threads())
"""
        assert run(code, CYLSTM_NUM_THREADS="3") == ("1\n3", "")


@pytest.mark.process
def test_a_search_for_threadpoolctl_imports_and_changes_nothing():
    code = """
import sys, cylstm, importlib.util
found = importlib.util.find_spec("threadpoolctl").name
print(found, "threadpoolctl" in sys.modules, importlib.util.find_spec("no_such_module"))
import threadpoolctl
print(sum(library["user_api"] == "cylstm" for library in threadpoolctl.threadpool_info()))
print(any(type(finder).__module__ == "cylstm._system.threads" for finder in sys.meta_path))
"""
    assert run(code) == ("threadpoolctl False None\n1\nFalse", "")


def test_workers_of_joblib_use_the_threads_that_they_are_given(monkeypatch):
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    monkeypatch.delenv("CYLSTM_NUM_THREADS", raising=False)  # would come before joblib's own
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=3):
        assert joblib.Parallel()(joblib.delayed(cylstm.get_num_threads)() for _ in range(2)) == [3, 3]


def group(folder, mounts, groups):
    """A process's folder in /proc; mounts (type, root, mount point below it, options)."""
    lines = [
        f"{30 + i} 23 0:{i} {root} {str(folder / point).replace(' ', chr(92) + '040')} rw,relatime "
        f"shared:{i} - {kind} {kind} {options}"
        for i, (kind, root, point, options) in enumerate(mounts)
    ]
    (folder / "mountinfo").write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/sda rw", *lines, ""]))
    (folder / "cgroup").write_text("\n".join([*groups, ""]))


def quotas(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


V1, V2 = ("cgroup", "/", "v1", "rw,cpu,cpuacct"), ("cgroup2", "/", "v2", "rw")


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        # In a container's own namespace the root is the process's group.
        ([V2], ["0::/"], {"v2/cpu.max": "150000 100000"}, 1.5),
        ([V2], ["0::/"], {"v2/cpu.max": "max 100000"}, math.inf),
        ([V2], ["0::/"], {"v2/cpu.max": "nonsense"}, math.inf),
        ([V2], ["0::/"], {"v2/cpu.max": "100000 0"}, math.inf),
        ([V1], ["4:cpu:/"], {"v1/cpu.cfs_quota_us": "50000", "v1/cpu.cfs_period_us": "100000\n"}, 0.5),
        ([V1], ["4:cpu:/"], {"v1/cpu.cfs_quota_us": "-1", "v1/cpu.cfs_period_us": "100000"}, math.inf),
        # Of the process's own group, of a group above it; not of one beside or below it.
        ([V2], ["0::/a/b"], {"v2/a/b/cpu.max": "200000 100000", "v2/a/cpu.max": "max 100000"}, 2),
        ([V2], ["0::/a/b"], {"v2/a/b/cpu.max": "300000 100000", "v2/a/cpu.max": "200000 100000"}, 2),
        ([V2], ["0::/a"], {"v2/b/cpu.max": "1 1", "v2/a/c/cpu.max": "1 1"}, math.inf),
        (
            [V1],
            ["4:cpu,cpuacct:/a/b", "5:memory:/c"],
            {
                "v1/a/b/cpu.cfs_quota_us": "-1",
                "v1/a/b/cpu.cfs_period_us": "100000",
                "v1/a/cpu.cfs_quota_us": "250000",
                "v1/a/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        # Version 1 in a container without a namespace: the mount shows the container's group as its root.
        (
            [("cgroup", "/docker/x", "v1", "rw,cpu")],
            ["4:cpu:/docker/x/y"],
            {"v1/y/cpu.cfs_quota_us": "3", "v1/y/cpu.cfs_period_us": "1"},
            3,
        ),
        # A group that is not visible, and one whose name begins like the root's.
        ([V2], ["0::/../other"], {"v2/cpu.max": "2 1"}, 2),
        ([("cgroup2", "/a", "v2", "rw")], ["0::/ab"], {"v2/cpu.max": "2 1", "v2/b/cpu.max": "1 1"}, 2),
        # Both versions: the stricter one. The CPU sets' hierarchy and another's path have no say.
        (
            [V1, V2, ("cgroup", "/", "set", "rw,cpuset")],
            ["4:cpu,cpuacct:/a", "3:cpuset:/", "0::/b"],
            {
                "v1/a/cpu.cfs_quota_us": "4",
                "v1/a/cpu.cfs_period_us": "1",
                "v2/b/cpu.max": "3 1",
                "set/cpu.max": "1 1",
            },
            3,
        ),
        ([("cgroup2", "/", "a place", "rw")], ["0::/a:b"], {"a place/a:b/cpu.max": "3 2"}, 1.5),
        ([], ["0::/"], {}, math.inf),
    ],
)  # fmt: skip
def test_quotas_of_a_process_s_own_groups_are_read(tmp_path, monkeypatch, mounts, groups, files, expected):
    group(tmp_path, mounts, groups)
    quotas(tmp_path, files)
    assert cgroups.cpu_quota(str(tmp_path)) == expected
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: expected)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.usable_cpus() == max(1, math.ceil(min(8, expected)))


def test_without_proc_there_is_no_quota(tmp_path):
    assert cgroups.cpu_quota(str(tmp_path)) == math.inf


@pytest.mark.process
def test_importing_brings_in_numpy_only():
    others = ["scipy", "safetensors", "threadpoolctl", "matplotlib", "tqdm", "pandas"]
    assert run(f"import sys, cylstm; print([m for m in {others} if m in sys.modules])")[0] == "[]"
    # Some versions of NumPy load these themselves; with what trains they take half the time.
    later = ["numpy.random", "hashlib", "logging", "concurrent.futures", "dataclasses", "json", "pathlib"]
    later += [f"cylstm.{name}" for name in cylstm._LAZY_MODULES]
    before = "import sys, numpy; there = set(sys.modules); import cylstm"
    assert run(f"{before}; print([m for m in {later} if m in set(sys.modules) - there])")[0] == "[]"


@pytest.mark.slow
@pytest.mark.process
def test_lazy_imports_are_available():
    assert run("import cylstm; print([n for n in cylstm.__all__ if getattr(cylstm, n) is None])")[0] == "[]"
    assert (
        run("import cylstm; print('Trainer' in dir(cylstm), hasattr(cylstm, 'Trainers'))")[0] == "True False"
    )
    assert run("from cylstm import *; print(Trainer.__name__, QueueFull.__name__)")[0] == "Trainer QueueFull"
    code = """
import sys, cylstm
print([n for n in cylstm._LAZY_MODULES if getattr(cylstm, n) is not sys.modules[f"cylstm.{n}"]])
print([n for n, m in cylstm._LAZY_NAMES.items() if getattr(cylstm, n) is not getattr(sys.modules[m], n)])
"""
    assert run(code)[0] == "[]\n[]"


def test_overlapping_num_threads_blocks_restore_initial_value():
    with cylstm.num_threads(3):
        first = cylstm.num_threads(1)
        first.__enter__()
        with cylstm.num_threads(2):  # as of another thread
            first.__exit__(None, None, None)
            assert cylstm.get_num_threads() == 2
        assert cylstm.get_num_threads() == 3


@pytest.mark.process
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


@pytest.mark.process
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


@pytest.mark.process
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
