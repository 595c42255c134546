"""Builds the extension modules; everything else stands in pyproject.toml."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ENGINE = Path("cylstm/_engine")
HEADERS = [str(path) for folder in ("include/cylstm", "cylstm/_engine") for path in Path(folder).glob("*.h")]
# The two -fno flags let loops with square roots and selects vectorise; results stay those of IEEE arithmetic.
FLAGS = ["/O2"] if sys.platform == "win32" else ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math"]
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}

extensions = [
    Extension(
        f"cylstm._engine.{source.stem}",
        [source.as_posix()],
        include_dirs=["include", ENGINE.as_posix()],
        depends=HEADERS,
        extra_compile_args=FLAGS,
    )
    for source in sorted(ENGINE.glob("*.pyx"))
]
setup(
    ext_modules=cythonize(extensions, compiler_directives=DIRECTIVES),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
