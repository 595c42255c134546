"""What is installed."""

import ast
import io
import os
import pkgutil
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import cylstm

PACKAGE = Path(cylstm.__file__).parent
ROOT = Path(__file__).parents[2]
in_the_source_tree = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")
SOURCES = {".c", ".pyx", ".pyc"}  # beside the modules in a source tree, not in a wheel


def test_a_wheel_has_at_most_5_mib():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in PACKAGE.rglob("*"):
            if path.is_file() and path.suffix not in SOURCES:
                wheel.write(path)
    modules = [name for name in wheel.namelist() if "/_engine/_" in name and name.endswith((".so", ".pyd"))]
    assert len(modules) >= 12
    assert packed.tell() <= 5 * 2**20


@pytest.mark.process
@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the GIL always")
def test_no_module_puts_the_gil_back():
    code = """
import importlib, pkgutil, sys
import cylstm._engine
for module in pkgutil.iter_modules(cylstm._engine.__path__, "cylstm._engine."):
    importlib.import_module(module.name)
    assert not sys._is_gil_enabled(), module.name
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def python(code, *arguments, **options):
    """What Python prints, without what this process has in PYTHONPATH."""
    options["env"] = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | options.get("env", {})
    return subprocess.run([sys.executable, *arguments, "-c", code], capture_output=True, text=True, **options)


def namespaces():
    """All modules of the package without an underscore."""
    names = {module.name for module in pkgutil.iter_modules(cylstm.__path__)}
    return sorted(name for name in names if not name.startswith("_"))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("name", namespaces())
def test_a_namespace_is_there_after_import_cylstm_alone(name):
    """In a process of its own, in which no other test has imported it."""
    if name in cylstm._DEPENDENCIES:
        for library in cylstm._DEPENDENCIES[name]:
            pytest.importorskip(library, reason=f"cylstm.{name} needs {library}")
    code = f"import cylstm; print(cylstm.{name}.__name__)"
    result = python(code, env={"PYTHONPATH": str(PACKAGE.parent)})
    assert (result.stdout, result.stderr) == (f"cylstm.{name}\n", "")


def test_dir_has_every_namespace_and_no_other_name_is_found():
    assert set(cylstm._LAZY_MODULES) - set(dir(cylstm)) <= set(cylstm._DEPENDENCIES)
    for name in ("trainers", "Trainers", "_no_such_module", "LTSM"):
        assert not hasattr(cylstm, name)


def test_type_checking_imports_match_lazy_names():
    (block,) = (
        node
        for node in ast.parse(Path(cylstm.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    )
    imported = {name.name for node in block.body for name in node.names}
    assert imported == {*cylstm._LAZY_NAMES, *cylstm._LAZY_MODULES}
    public = {name.asname or name.name for node in block.body for name in node.names if name.asname}
    assert public | set(cylstm.__all__) >= imported


@pytest.mark.process
@pytest.mark.parametrize("name", sorted(cylstm._DEPENDENCIES))
def test_a_namespace_whose_library_is_missing_names_the_extra(name):
    missing = cylstm._DEPENDENCIES[name][0]
    code = f"""
import sys
class Hidden:
    def find_spec(self, wanted, path=None, target=None):
        if wanted.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{wanted!r}}", name=wanted)
sys.meta_path.insert(0, Hidden())
import cylstm
try:
    cylstm.{name}
except ModuleNotFoundError as error:
    print(error)
from cylstm import *
print(LSTM.__name__)
"""
    result = python(code, env={"PYTHONPATH": str(PACKAGE.parent)})
    error, star = result.stdout.splitlines()
    assert f"cylstm.{name}: expected " in error
    assert f'pip install "cylstm[{name}]"' in error
    assert star == "LSTM"


def test_dir_omits_unavailable_modules(monkeypatch):
    before = dir(cylstm)
    monkeypatch.setitem(cylstm._DEPENDENCIES, "serve", ("a_library_that_nobody_has",))
    assert "serve" not in dir(cylstm)
    assert {*before} - {*dir(cylstm)} <= {"serve"}


@pytest.fixture
def without_modules(tmp_path):
    """A folder with the package as in a clone in which nothing was compiled."""
    shutil.copytree(
        PACKAGE, tmp_path / "cylstm", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    return tmp_path


@pytest.mark.process
def test_python_in_the_source_folder_says_so(without_modules):
    (without_modules / "setup.py").touch()
    result = python("import cylstm", cwd=without_modules)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: cylstm: expected compiled modules for ")
    assert "source folder" in last
    assert last.endswith(
        f"start Python in another folder, or compile the sources: pip install -e {without_modules}"
    )


@pytest.mark.process
def test_an_incomplete_installation_says_so(without_modules):
    result = python("import cylstm", cwd=without_modules)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: cylstm: expected compiled modules for ")
    assert last.endswith("pip install --force-reinstall cylstm")
    assert "source folder" not in last


def dynamic_section(path):
    """Entries (tag, value) of the dynamic section of a 64-bit ELF file, and the types of its segments."""
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02"
    order = "<" if data[5] == 1 else ">"
    offset, size, count = (
        struct.unpack_from(f"{order}Q", data, 32)[0],
        *struct.unpack_from(f"{order}HH", data, 54),
    )
    segments = [struct.unpack_from(f"{order}IIQQQQ", data, offset + i * size) for i in range(count)]
    (start, length) = next((segment[2], segment[5]) for segment in segments if segment[0] == 2)
    entries = [struct.unpack_from(f"{order}QQ", data, start + i) for i in range(0, length, 16)]
    return entries, {segment[0] for segment in segments}


@pytest.mark.skipif(sys.platform != "linux" or sys.maxsize < 2**32, reason="needs 64-bit ELF files")
def test_addresses_of_modules_are_read_only_once_they_are_loaded():
    modules = sorted((PACKAGE / "_engine").glob("_*.so"))
    assert len(modules) >= 12
    for module in modules:
        entries, segments = dynamic_section(module)
        flags = dict(entries)
        assert 0x6474E552 in segments, f"{module.name}: no PT_GNU_RELRO"
        assert flags.get(30, 0) & 8 or flags.get(0x6FFFFFFB, 0) & 1, f"{module.name}: no BIND_NOW"


@in_the_source_tree
def test_actions_are_pinned_by_commit():
    uses = [
        line.strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(uses) >= 6
    for line in uses:
        assert re.fullmatch(r"- uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


FOLDERS = (".ci", ".github", "benchmarks", "cylstm", "docs", "examples", "include", "tests", "verification")


def source_distribution(folder, mtime):
    """The bytes of one, made in a folder of its own from files that all have this time, some generated."""
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.c.orig", "_build")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    for generated in ("_packed.h", "_packed.c", "_new_api.h"):
        (folder / "cylstm" / "_engine" / generated).write_text("/* Generated by Cython */")
    for path in folder.rglob("*"):
        os.utime(path, (mtime, mtime))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", "made"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (made,) = (folder / "made").iterdir()
    return made.read_bytes()


@pytest.mark.slow
@pytest.mark.process
@in_the_source_tree
def test_source_distributions_are_reproducible_and_complete(tmp_path):
    pytest.importorskip("Cython", reason="Cython is not installed; setup.py needs it")
    pytest.importorskip("setuptools", reason="setuptools is not installed; setup.py needs it")
    one, two = (source_distribution(tmp_path / str(mtime), mtime) for mtime in (1_500_000_000, 1_600_000_000))
    assert one == two
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        members = {member.name.partition("/")[2]: member for member in archive}
    assert {member.mtime for member in members.values()} == {1_700_000_000}
    assert not {member.uname for member in members.values()} - {""}
    generated = [name for name in members if re.fullmatch(r"cylstm/_engine/_.*\.[ch]|.*\.so", name)]
    assert generated == []
    read_by_tests = {
        "conftest.py", "ARCHITECTURE.md", "README.md", ".ci/run", ".github/workflows/ci.yml", "docs/index.md",
        "docs/pictures/curves.png", "examples/tagging.py", "benchmarks/run.py", "tests/c/kernels.c",
        "include/cylstm/cylstm.h", "cylstm/_engine/thread_pool.h", "cylstm/_engine/_packed.pyx",
        "cylstm/_engine/kernels/avx2.c", "cylstm/_engine/kernels/kernels.h",
    }  # fmt: skip
    assert read_by_tests - set(members) == set()
    folders = [ROOT / name for name in FOLDERS]
    kinds = {
        ".py",
        ".md",
        ".c",
        ".h",
        ".pyx",
        ".pxd",
        ".pyi",
        ".yml",
        ".txt",
        ".jsonl",
        ".png",
        ".csv",
        ".css",
    }
    for path in (path for folder in folders for path in folder.rglob("*") if path.suffix in kinds):
        name = path.relative_to(ROOT).as_posix()
        if not re.search(r"_engine/_.*\.[ch]$|/_build/|__pycache__", name):
            assert name in members, name
