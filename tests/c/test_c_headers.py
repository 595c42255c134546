"""The C headers by themselves: warning-free as C99 and C++, clean under sanitizers."""

import shutil
import subprocess
from pathlib import Path

import pytest
from emulation import emulator, windows

SOURCES = Path(__file__).parent
INCLUDE = Path(__file__).parents[2] / "include"
TEAM = Path(__file__).parents[2] / "cylstm" / "_engine"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-fno-sanitize-recover=all", "-g1"]  # places in reports; all of -g takes half as long again
# Vectorised as in the extension modules; -O3 with both sanitizers would take minutes to compile.
VECTORISED = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno", "-fno-trapping-math"]

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.process,
    pytest.mark.skipif(not INCLUDE.exists(), reason="needs the source tree, for its C headers"),
]


def compiler(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def build(tmp_path, name, *flags, source="kernels.c"):
    program = tmp_path / "program.exe"  # so that Windows takes it for one
    command = [compiler(name), *flags, *WARNINGS, f"-I{INCLUDE}", f"-I{TEAM}", str(SOURCES / source)]
    command += ["-o", str(program), "-lm", "-lpthread"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize("language", [["-std=c99"], ["-x", "c++", "-std=c++17"]])
def test_no_warnings(tmp_path, name, language):
    """Unoptimised, for a minute less; for what GCC sees when it optimises, the sanitizers' builds ask."""
    program = build(tmp_path, name, *language, "-O0")
    assert subprocess.run([program], capture_output=True, text=True).stdout == "0 faults\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, defects",
    [
        (
            ["-O0", "-fsanitize=address,undefined"],
            {"overrun": "AddressSanitizer", "misaligned": "misaligned address"},
        ),
        ([*VECTORISED, "-fsanitize=address"], {"overrun": "AddressSanitizer"}),
    ],
    ids=["undefined", "vectorised"],
)
def test_clean_under_sanitizers_which_see_planted_defects(tmp_path, flags, defects):
    program = build(tmp_path, "gcc", "-std=c99", *flags, *SANITIZERS)
    clean = run(program)
    assert (clean.returncode, clean.stdout) == (0, "0 faults\n"), clean.stderr
    for defect, message in defects.items():
        planted = run(program, defect)
        assert planted.returncode != 0
        assert message in planted.stderr


@pytest.mark.slow
def test_kernels_fit_small_stacks(tmp_path):
    """Of 128 KiB, as threads have with musl; optimised as the extension modules, in which GCC inlines."""
    strict = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wframe-larger-than=40960"]
    build(tmp_path, "gcc", "-std=gnu99", "-DREAL=float", "-DTYPE=f32", *strict, source="pass.c")


@pytest.mark.slow
def test_a_compiler_without_extensions_builds_the_kernels(tmp_path):
    """Those of the BLAS path; what else extension modules include leaves the packed path out."""
    headers = ["bare.h", "cylstm/dense.h", "cylstm/optimizers.h", "cylstm/pass.h", "thread_pool.h"]
    included = [flag for header in headers for flag in ("-include", header)]
    strict = ["-std=c11", "-pedantic-errors", "-Wno-unused-function", "-O1"]
    program = build(tmp_path, "gcc", *strict, f"-I{SOURCES}", *included)
    assert run(program).stdout == "0 faults\n"


@pytest.mark.parametrize("real", ["float f32", "double f64"])
def test_kernels_run_on_aarch64(tmp_path, real):
    """By one thread: several that wait for each other take minutes to emulate."""
    emulated, (real, name) = emulator("aarch64"), real.split()
    flags = ["-std=gnu99", "-O1", f"-DREAL={real}", f"-DTYPE={name}"]
    for source, *arguments in ("kernels.c",), ("pass.c", "alone"):
        program = build(tmp_path, "aarch64-linux-gnu-gcc", *flags, source=source)
        assert run(*emulated, program, *arguments).stdout == "0 faults\n"


def test_kernels_and_team_run_on_windows(tmp_path, monkeypatch):
    """By clang, as in the wheels; what GCC makes of AVX there breaks (its bug 54412)."""
    emulated = windows(tmp_path, monkeypatch)
    libraries = run(compiler("x86_64-w64-mingw32-gcc"), "-print-libgcc-file-name").stdout.strip()
    flags = ["--target=x86_64-w64-mingw32", f"-L{Path(libraries).parent}", "-O1"]
    cases = [("pass.c", "f32", "float"), ("pass.c", "f64", "double"), ("kernels.c", "f32", "float")]
    for source, name, real in cases:
        program = build(
            tmp_path, "clang", *flags, "-std=gnu99", f"-DREAL={real}", f"-DTYPE={name}", source=source
        )
        assert run(*emulated, program).stdout == "0 faults\n"
    flags += ["-x", "c++", "-std=c++17", "-Wno-error=conversion"]  # in the macro isnan of mingw's
    program = build(tmp_path, "clang", *flags, "-include", "cylstm/pass.h")
    assert run(*emulated, program).stdout == "0 faults\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "real, flags", [("float f32", "-fsanitize=address,undefined"), ("double f64", "-fsanitize=address")]
)
def test_the_packed_pass_stays_within_its_buffers(tmp_path, real, flags):
    """Every cell, instruction set and option, over memory of just the size that the contract says."""
    real, name = real.split()
    options = ["-std=gnu99", "-O1", flags, f"-DREAL={real}", f"-DTYPE={name}", *SANITIZERS]
    program = build(tmp_path, "gcc", *options, source="pass.c")
    clean, planted = run(program), run(program, "overrun")
    assert (clean.returncode, clean.stdout) == (0, "0 faults\n"), clean.stderr
    assert planted.returncode != 0
    assert "AddressSanitizer" in planted.stderr


@pytest.mark.slow
def test_parts_of_a_pass_do_not_race(tmp_path):
    """Under the thread sanitizer, on the team."""
    options = ["-std=gnu99", "-O1", "-g1", "-fsanitize=thread", "-DREAL=float", "-DTYPE=f32"]
    program = build(tmp_path, "gcc", *options, source="pass.c")
    clean, planted = run(program), run(program, "race")
    assert (clean.returncode, clean.stdout) == (0, "0 faults\n"), clean.stderr
    assert planted.returncode != 0
    assert "data race" in planted.stderr
