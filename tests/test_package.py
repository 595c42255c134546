"""What is installed."""

import ast
import io
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import cylstm

PACKAGE = Path(cylstm.__file__).parent
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


PUBLIC = [module.name for module in pkgutil.iter_modules(cylstm.__path__) if not module.name.startswith("_")]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_namespace_is_there_after_import_cylstm_alone(name):
    """In a process of its own, in which no other test has imported it."""
    if name in cylstm._NEEDED:
        for library in cylstm._NEEDED[name]:
            pytest.importorskip(library, reason=f"cylstm.{name} needs {library}")
    code = f"import cylstm; print({name!r} in dir(cylstm), cylstm.{name}.__name__)"
    result = python(code, env={"PYTHONPATH": str(PACKAGE.parent)})
    assert (result.stdout, result.stderr) == (f"True cylstm.{name}\n", "")


def test_names_for_type_checkers_are_those_that_are_loaded_on_demand():
    (block,) = (
        node
        for node in ast.parse(Path(cylstm.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    )
    imported = {name.name for node in block.body for name in node.names}
    assert imported == {*cylstm._LATER, *cylstm._MODULES_LATER}
    public = {name.asname or name.name for node in block.body for name in node.names if name.asname}
    assert public | set(cylstm.__all__) >= imported


@pytest.mark.parametrize("name", sorted(cylstm._NEEDED))
def test_a_namespace_whose_library_is_missing_names_the_extra(name):
    missing = cylstm._NEEDED[name][0]
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


def test_dir_leaves_out_what_cannot_be_loaded(monkeypatch):
    before = dir(cylstm)
    monkeypatch.setitem(cylstm._NEEDED, "serve", ("a_library_that_nobody_has",))
    assert "serve" not in dir(cylstm)
    assert {*before} - {*dir(cylstm)} <= {"serve"}


@pytest.fixture
def without_modules(tmp_path):
    """A folder with the package as in a clone in which nothing was compiled."""
    shutil.copytree(
        PACKAGE, tmp_path / "cylstm", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    return tmp_path


def test_python_in_the_source_folder_says_so(without_modules):
    (without_modules / "setup.py").touch()
    result = python("import cylstm", cwd=without_modules)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: cylstm: expected compiled modules for ")
    assert "source folder" in last
    assert last.endswith(
        f"start Python in another folder, or compile the sources: pip install -e {without_modules}"
    )


def test_an_incomplete_installation_says_so(without_modules):
    result = python("import cylstm", cwd=without_modules)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: cylstm: expected compiled modules for ")
    assert last.endswith("pip install --force-reinstall cylstm")
    assert "source folder" not in last
