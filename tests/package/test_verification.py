"""The long checks of verification/, for some seconds each; and that they see a defect."""

import faulthandler
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cylstm._engine import isa

FOLDER = Path(__file__).parents[2] / "verification"
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not FOLDER.exists(), reason="needs the source tree, for its folder verification"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs the module resource"),
]


def run(*command):
    """The status and the lines of JSON of a program there."""
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_readers_take_or_refuse_damaged_inputs():
    pytest.importorskip("onnx", reason="onnx is not installed; its files are read with it")
    pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
    status, (_, *results) = run(FOLDER / "fuzz.py", "--share", 0.0003, "--seed", 11)
    assert [result["faults"] for result in results] == [[]] * 16
    assert status == 0
    assert sum(result["inputs"] for result in results) > 500


def module_of(monkeypatch, name):
    monkeypatch.syspath_prepend(FOLDER)
    specification = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def fuzz(monkeypatch):
    """The module of that name."""
    pytest.importorskip("onnx", reason="onnx is not installed; its files are read with it")
    pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
    return module_of(monkeypatch, "fuzz")


def crash(content):
    faulthandler.disable()  # pytest's, which would tell of it
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(content):
    while True:
        pass


def other_error(content):
    raise KeyError(content)


def all_memory(content):
    bytes(1 << 40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defect", "seen"),
    [(crash, "SIGSEGV"), (hang, "SIGPROF"), (other_error, "KeyError"), (all_memory, "MemoryError")],
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks beside threads, from 3.12 on
def test_a_reader_with_a_defect_is_seen(fuzz, monkeypatch, defect, seen):
    import readers

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)

    def read(content):
        if content.startswith(b"bad"):
            defect(content)

    def change(rng, content):
        return rng.choice([b"bad", b"good", b"good"])

    result = fuzz.fuzz("planted", readers.Reader([b"good"], change, read, (ValueError,)), 1, 12)
    assert result["inputs"] == 12
    assert 0 < len(result["faults"]) < 12
    assert all(seen in fault for _, fault in result["faults"])


SOAK = """
import soak
soak.cases = lambda made=soak.cases: made()[:6]
soak.TASKS.pop(soak.training)
{plant}
soaked = soak.Soak(3)
{spoil}
soaked.round(1.5)
import json
print(json.dumps([sum(soaked.done.values()), soaked.faults]))
"""


@pytest.mark.slow
@pytest.mark.skipif(isa.path() != "packed", reason="only the packed path promises bits")
def test_everything_at_once_has_the_bits_of_the_first():
    _, [(done, faults)] = run("-c", SOAK.format(plant="", spoil=""))
    assert faults == []
    assert done > 3


@pytest.mark.slow
@pytest.mark.skipif(isa.path() != "packed", reason="only the packed path promises bits")
def test_a_bit_that_differs_is_seen():
    spoil = "for case in soaked.cases: case.y.view('u1')[-1, -1, -1] ^= 1"
    plant = "soak.TASKS = {soak.whole_call: 1}"
    _, [(_, faults)] = run("-c", SOAK.format(plant=plant, spoil=spoil))
    assert any("y of a whole call" in fault and "apart" in fault for fault in faults)
