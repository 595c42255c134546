"""What is installed."""

import io
import zipfile
from pathlib import Path

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
