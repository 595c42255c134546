"""The C headers by themselves: warning-free as C99 and C++, clean under sanitizers."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "c" / "kernels.c"
INCLUDE = Path(__file__).parent.parent / "include"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-fno-sanitize-recover=all", "-g"]
# Vectorised as in the extension modules; -O3 with both sanitizers would take minutes to compile.
VECTORISED = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno", "-fno-trapping-math"]

pytestmark = pytest.mark.skipif(not INCLUDE.exists(), reason="needs the source tree, for its C headers")


def compiler(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def build(tmp_path, name, *flags):
    program = tmp_path / "kernels"
    command = [compiler(name), *flags, *WARNINGS, f"-I{INCLUDE}", str(SOURCE), "-o", str(program), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize("language", [["-std=c99"], ["-x", "c++", "-std=c++17"]])
def test_no_warnings(tmp_path, name, language):
    program = build(tmp_path, name, *language, "-O2")
    assert subprocess.run([program], capture_output=True, text=True).stdout == "0 faults\n"


@pytest.mark.parametrize(
    "flags", [["-O1", "-fsanitize=address,undefined"], [*VECTORISED, "-fsanitize=address"]]
)
def test_clean_under_sanitizers_which_see_a_planted_defect(tmp_path, flags):
    program = build(tmp_path, "gcc", "-std=c99", *flags, *SANITIZERS)
    clean = subprocess.run([program], capture_output=True, text=True)
    assert (clean.returncode, clean.stdout) == (0, "0 faults\n"), clean.stderr
    planted = subprocess.run([program, "overrun"], capture_output=True, text=True)
    assert planted.returncode != 0
    assert "AddressSanitizer" in planted.stderr
