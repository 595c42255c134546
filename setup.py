"""Builds the extension modules and the source distribution; everything else stands in pyproject.toml."""

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ENGINE = Path("cylstm/_engine")
# Without those that Cython writes, which begin with an underscore.
HEADERS = [
    str(path)
    for folder in ("include/cylstm", "cylstm/_engine", "cylstm/_engine/kernels")
    for path in sorted(Path(folder).glob("[!_]*.h"))
]
# One for each instruction set, compiled apart from the modules; linked into _kernels, which has their tables.
KERNELS = sorted(path.as_posix() for path in ENGINE.glob("kernels/*.c"))
INCLUDE = ["include", ENGINE.as_posix()]
# What all modules need for memoryviews, written by Cython once instead of into each.
SHARED = "cylstm._engine._memoryviews"
# A build for tests that checks every index and memoryview, and can count lines; see verification/README.md.
CHECKED = os.environ.get("CYLSTM_CHECKED") == "1"
# The two -fno flags let loops with square roots and selects vectorise; results stay those of IEEE arithmetic.
FLAGS = ["-g1" if CHECKED else "-g0", "-fno-math-errno", "-fno-trapping-math"]
# -O3 for all would take a third longer to compile. In kernels it vectorises loops alike, and its other passes
# gain nothing (GCC 12, Zen 4: within 1 %).
ON_LINUX = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic"]
KERNEL_FLAGS = ON_LINUX if sys.platform == "linux" else ["-O3"]
# Modules with loops over numbers of their own need -O3, those called once in a while hardly anything.
MODULE_FLAGS = {
    **{name: ["-O3"] for name in ("_ctc", "_losses", "_packed", "_rows")},
    **{name: ["-O1"] for name in ("_dense", "_kernels", "_layer_pass", "_memoryviews")},
}
# Full RELRO: the loader fills the tables of addresses at once and makes them read-only.
LINKER = ["-Wl,-z,relro,-z,now"] if sys.platform == "linux" else []
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


class ReproducibleSdist(sdist):
    """The same bytes from the same commit: no times, owners and modes of the machine that makes it."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        """Write a .tar.gz of sorted files, all of the time of the commit or of SOURCE_DATE_EPOCH."""
        if format != "gztar":
            raise ValueError(f"format: expected 'gztar', got {format!r}")
        time = int(os.environ.get("SOURCE_DATE_EPOCH") or self.time_of_commit())

        def normalised(member):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = time
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        root, name = Path(root_dir or "."), f"{base_name}.tar.gz"
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, mtime=time) as packed,
            tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted((root / base_dir).rglob("*")):
                if path.is_file():
                    archive.add(path, path.relative_to(root).as_posix(), filter=normalised)
        return name

    @staticmethod
    def time_of_commit():
        """In seconds since 1970; outside of a clone, as in an unpacked source distribution, that of 1980."""
        top = Path(__file__).parent
        if not (top / ".git").exists():
            return 315532800
        git = ["git", "-C", str(top), "log", "-1", "--format=%ct"]
        return int(subprocess.run(git, capture_output=True, text=True, check=True).stdout)


class BuildKernels(build_ext):
    """Kernels first, then the modules.

    On Windows with clang-cl if it is on the path: Microsoft's compiler has no vector extensions.
    """

    def build_extensions(self):
        """Compile and link."""
        self.clang = shutil.which("clang-cl") if self.plat_name == "win-amd64" else None
        if self.compiler.compiler_type == "msvc" and self.clang:
            if not self.compiler.initialized:
                self.compiler.initialize(self.plat_name)
            self.compiler.cc = self.clang
        with ThreadPoolExecutor(self.parallel or 1) as pool:
            objects = list(pool.map(self.compile_kernels, KERNELS))
        for extension in self.extensions:
            name = extension.name.rpartition(".")[2]
            extension.extra_compile_args = self.flags(MODULE_FLAGS.get(name, ["-O2"]))
            if name == "_kernels":
                extension.extra_objects = objects
        super().build_extensions()

    def flags(self, optimise):
        """Those of the compiler, with flags of optimisation."""
        flags = [*(["-O1"] if CHECKED else optimise), *FLAGS]
        if self.compiler.compiler_type != "msvc":
            return flags
        return ["/O2", *(f"/clang:{flag}" for flag in flags if self.clang)]

    def compile_kernels(self, source):
        """Return the object file of a source, made now unless it is newer than all that goes into it."""
        made = self.compiler.object_filenames([source], output_dir=self.build_temp)[0]
        newest = max(os.path.getmtime(path) for path in [source, *HEADERS, "setup.py"])
        if self.force or not os.path.exists(made) or os.path.getmtime(made) < newest:
            options = {
                "include_dirs": INCLUDE,
                "extra_postargs": self.flags(KERNEL_FLAGS),
                "depends": HEADERS,
            }
            self.compiler.compile([source], output_dir=self.build_temp, **options)
        return made


extensions = [
    Extension(
        f"cylstm._engine.{source.stem}",
        [source.as_posix()],
        include_dirs=INCLUDE,
        define_macros=[("CYL_NO_KERNELS", None)],
        depends=[*HEADERS, *KERNELS],
        extra_link_args=LINKER,
        export_symbols=EXPORTED.get(source.stem),
    )
    for source in sorted(ENGINE.glob("*.pyx"))
]
# The source distribution holds what Cython reads, not what it writes.
builds = "sdist" not in sys.argv or not {"build", "build_ext", "bdist_wheel", "install"}.isdisjoint(sys.argv)
if builds:
    shared = Extension(SHARED, [f"{SHARED.replace('.', '/')}.c"], extra_link_args=LINKER)
    extensions = cythonize(
        [*extensions, shared], compiler_directives=DIRECTIVES, shared_utility_qualified_name=SHARED
    )
setup(
    ext_modules=extensions,
    cmdclass={"build_py": BuildWithHeaders, "build_ext": BuildKernels, "sdist": ReproducibleSdist},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
