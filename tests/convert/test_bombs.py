"""Small files that ask a reader for much: rejected with a message, in little memory and time.

Each row of `BOMBS` writes a file and reads it in a process of its own, whose address space is limited.
"""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import bombs_models
import pytest

from cylstm._formats.budget import LIMITS, Budget

pytestmark = pytest.mark.process

MEMORY = 3 * 2**29  # bytes of address space beyond what the imports take
SECONDS = 60  # of processor time; on a busy machine this takes longer

RUNNER = """
import os, resource, sys
import numpy as np
import cylstm, cylstm.convert
{setup}
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (taken + {memory}, taken + {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
try:
    {read}
except cylstm.ModelFileError as error:  # and its subclasses
    print("rejected:", error)
except cylstm.convert.ConversionError as error:
    print("rejected:", error)
else:
    print("read")
"""

# By name: modules, lines that write a file to `path`, the call that reads it, a part of the message.
BOMBS: dict[str, tuple[tuple[str, ...], str, str, str]] = {}
for reader, module, bombs in [("onnx", "onnx", "bombs_onnx"), ("keras", "h5py", "bombs_keras")]:
    try:
        names = importlib.import_module(bombs).BOMBS
    except ImportError:  # what writes the files is not installed
        names = {"any": (None, "")}
    for name, (_, message) in names.items():
        write = f"import {bombs}; {bombs}.BOMBS[{name!r}][0](path)"
        BOMBS[f"{reader} {name}"] = (module,), write, f"cylstm.from_{reader}(path)", message
for name, (_, read, message) in bombs_models.BOMBS.items():
    BOMBS[f"model {name}"] = (), f"import bombs_models; bombs_models.BOMBS[{name!r}][0](path)", read, message


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited as Linux does")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_rejected_in_little_memory(name, tmp_path):
    modules, write, read, message = BOMBS[name]
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed; it parses these files")
    (tmp_path / "folder").mkdir()
    setup = f"path = {str(tmp_path / 'folder' / 'bomb')!r}\n" + textwrap.dedent(write)
    code = RUNNER.format(setup=setup, memory=MEMORY, seconds=SECONDS, read=read)
    path = os.pathsep.join(
        [str(Path(__file__).parents[1] / "helpers"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert result.stdout.startswith("rejected:"), result.stdout + result.stderr
    assert message in result.stdout


@pytest.mark.parametrize("unit", LIMITS)
def test_budget_is_of_the_files_size_in_all(unit):
    small, large = Budget(1), Budget(2**40)
    assert small.limit(unit) == LIMITS[unit].floor
    assert large.limit(unit) == max(LIMITS[unit].floor, int(2**40 * LIMITS[unit].per_byte))
    small.spend(unit, small.limit(unit) - 1)
    small.spend(unit, 1)
    with pytest.raises(ValueError, match=f"expected at most {small.limit(unit)} {unit} of a file of 1 bytes"):
        small.spend(unit, 1)
