"""Builds the extension modules; everything else stands in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ENGINE = Path("cylstm/_engine")
HEADERS = [str(path) for folder in ("include/cylstm", "cylstm/_engine") for path in Path(folder).glob("*.h")]
# A build for tests that checks every index and memoryview, and can count lines; see proof/README.md.
CHECKED = os.environ.get("CYLSTM_CHECKED") == "1"
# The two -fno flags let loops with square roots and selects vectorise; results stay those of IEEE arithmetic.
OPTIMISE = ["-O1", "-g1"] if CHECKED else ["-O3", "-g0"]
FLAGS = [*OPTIMISE, "-fno-math-errno", "-fno-trapping-math"]
# On Windows clang-cl, if it is on the path: Microsoft's compiler lacks the packed path's vector extensions.
CLANG = shutil.which("clang-cl") if sys.platform == "win32" else None
if sys.platform == "win32":
    FLAGS = ["/O2", *(f"/clang:{flag}" for flag in FLAGS if CLANG)]
# A wheel for each Python, not one with the stable ABI: from Python 3.11 on that builds and runs, and is no
# larger, but a step of a stream of 64 units takes 6 % longer (4.3 instead of 4.0 us).
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": CHECKED,
    "linetrace": CHECKED,
}


class BuildWithHeaders(build_py):
    """Puts the C headers into the package, where `cylstm.get_include` finds them once it is installed."""

    def run(self):
        """Copy them beside the modules; an installation in place uses those of the source tree."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("include", Path(self.build_lib, "cylstm", "include"), dirs_exist_ok=True)


class BuildWithClang(build_ext):
    """Puts clang-cl into the place of Microsoft's compiler, if it is here; their linker stays."""

    def build_extensions(self):
        """Compile and link; what finds out about the CPU is in a library of clang's."""
        if CLANG:
            self.compiler.initialize()
            self.compiler.cc = CLANG
            folder = subprocess.run(
                [CLANG, "-print-resource-dir"], capture_output=True, text=True, check=True
            ).stdout
            libraries = Path(folder.strip(), "lib").rglob("clang_rt.builtins*.lib")
            self.compiler.objects = [str(path) for path in libraries if "i386" not in path.name]
        super().build_extensions()


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
    cmdclass={"build_py": BuildWithHeaders, "build_ext": BuildWithClang},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
