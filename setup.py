"""Builds the extension modules; everything else stands in pyproject.toml."""

import os
import shutil
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
# A wheel for each Python, not one with the stable ABI: from Python 3.11 on that builds and runs, and is no
# larger, but a step of a stream of 64 units takes 6 % longer (4.3 instead of 4.0 us).
# What threadpoolctl looks for; elsewhere than on Windows every symbol can be found.
EXPORTED = {"_packed": ["cylstm_get_num_threads", "cylstm_set_num_threads"]}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": CHECKED,
    "linetrace": CHECKED,
    "freethreading_compatible": True,
}


class BuildWithHeaders(build_py):
    """Puts the C headers into the package, where `cylstm.get_include` finds them once it is installed."""

    def run(self):
        """Copy them beside the modules; an installation in place uses those of the source tree."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("include", Path(self.build_lib, "cylstm", "include"), dirs_exist_ok=True)


class BuildWithClang(build_ext):
    """On Windows, with clang-cl if it is on the path: Microsoft's compiler has no vector extensions."""

    def build_extensions(self):
        """Compile and link."""
        flags, clang = FLAGS, shutil.which("clang-cl")
        if self.compiler.compiler_type == "msvc":
            flags = ["/O2"]
            if clang and self.plat_name == "win-amd64":
                if not self.compiler.initialized:
                    self.compiler.initialize(self.plat_name)
                self.compiler.cc = clang
                flags += [f"/clang:{flag}" for flag in FLAGS]
        for extension in self.extensions:
            extension.extra_compile_args = flags
        super().build_extensions()


extensions = [
    Extension(
        f"cylstm._engine.{source.stem}",
        [source.as_posix()],
        include_dirs=["include", ENGINE.as_posix()],
        depends=HEADERS,
        export_symbols=EXPORTED.get(source.stem),
    )
    for source in sorted(ENGINE.glob("*.pyx"))
]
setup(
    ext_modules=cythonize(extensions, compiler_directives=DIRECTIVES),
    cmdclass={"build_py": BuildWithHeaders, "build_ext": BuildWithClang},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
