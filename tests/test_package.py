"""What is installed."""

import io
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
