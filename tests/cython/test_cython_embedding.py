"""Extensions of others that cimport the engine, built against the cylstm that is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cylstm
from cylstm._engine import isa

EXAMPLE = Path(__file__).parents[2] / "examples" / "cython"
PACKAGE = Path(cylstm.__file__).parent

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLE.exists(), reason="needs the source tree, which holds the examples"),
    pytest.mark.skipif(isa.path() != "packed", reason="C has the packed path only"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs GCC or clang"),
]


def run(*command, cwd, **environment):
    """What a Python prints that finds this cylstm on its path, for Cython asks no finders of other kinds."""
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    for name, oldest in {"Cython": "3.1", "setuptools": "77", "pip": None}.items():
        pytest.importorskip(name, oldest, reason=f"the example is built with {name} {oldest or ''}")
    return tmp_path_factory.mktemp("cython")


USE = """
import numpy as np, cylstm, threshold

model = cylstm.Sequential(cylstm.LSTM(3, 37, 2, seed=0), cylstm.Linear(37, 2, seed=1))
cylstm.save(model, "model.safetensors")
file = open("model.safetensors", "rb").read()
signal = np.random.default_rng(0).standard_normal((40, 3)).astype("float32")
y = model(signal)[0]
detector = threshold.Detector(file)
for _ in range(2):
    assert detector.first_above(signal, y[:, 0].max()) is None
    assert detector.last_output() == y[-1].tolist()
limit = np.sort(y[:, 0])[-5]
assert detector.first_above(signal, limit) == np.argmax(y[:, 0] > limit)
for wrong in (file[:-1], b"", file.replace(b"LSTM", b"LSTX")):
    try:
        threshold.Detector(wrong)
    except ValueError as error:
        print(error)
"""


def test_the_example_is_built_and_gives_the_bits_of_python(folder):
    source, installed = folder / "example", folder / "installed"
    shutil.copytree(EXAMPLE, source)
    pip = ["-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    # Only the kernels of the baseline, a third of the work for the compiler; Python is told to use them too.
    run(*pip, "--target", installed, source, cwd=folder, CFLAGS="-DCYL_BASELINE_ONLY")
    (installed / "use.py").write_text(USE, encoding="utf-8")
    said = run("use.py", cwd=installed, CYLSTM_ISA="scalar").splitlines()
    assert [line.split(":")[0] for line in said] == ["bytes"] * 3
    assert "not supported in C" in said[-1]


BORROWER = """
from cylstm._engine._packed cimport PackedPass, run

def forward(PackedPass planned):
    with nogil:
        run(&planned.p, planned.isa, planned.double_precision, False, 1)
"""
BORROW = """
import numpy as np, cylstm, borrower
from cylstm.sequences.packing import Packing

layer = cylstm.GRU(3, 5, seed=0)
x = np.random.default_rng(0).standard_normal((7, 2, 3)).astype("float32")
workspace = layer.new_workspace(False)
workspace.prepare(Packing(7, 2), layer._current_spec())
workspace.buffers.of("x", 0, 0)[...] = x.reshape(14, 3)
workspace.buffers.of("h", 0, 0)[...] = 0
borrower.forward(workspace.passes[0, 0])
assert (workspace.buffers.hidden(0, 0).reshape(7, 2, 5) == layer(x)[0]).all()
"""
SETUP = """
import cylstm
from Cython.Build import cythonize
from setuptools import Extension, setup

extension = Extension("borrower", ["borrower.pyx"], include_dirs=[cylstm.get_include()])
setup(ext_modules=cythonize([extension], language_level=3))
"""


def test_the_compiled_engine_can_be_cimported_too(folder):
    """Its own modules, without compiling a kernel again."""
    for name, text in {"borrower.pyx": BORROWER, "setup.py": SETUP, "borrow.py": BORROW}.items():
        (folder / name).write_text(text, encoding="utf-8")
    run("setup.py", "-q", "build_ext", "--inplace", cwd=folder, CFLAGS="-O0")
    run("borrow.py", cwd=folder)
