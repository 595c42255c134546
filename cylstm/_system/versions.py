"""Description of the environment: versions, CPU, compute path, BLAS, threads."""

import os
import platform
import sys

from cylstm._version import __version__

PACKAGES = ("numpy", "scipy", "threadpoolctl", "tqdm", "matplotlib")


def describe() -> dict[str, str]:
    """Return facts by name, for `cylstm info` and bug reports."""
    from cylstm._engine import _blas, isa
    from cylstm._system import threads

    locked = getattr(sys, "_is_gil_enabled", lambda: True)()  # new in Python 3.13
    build = sys.implementation.name + ("" if locked else ", without the GIL")
    facts = {"cylstm": __version__, "python": f"{platform.python_version()} ({build})"}
    facts |= {name: _version(name) for name in PACKAGES}
    facts["platform"] = platform.platform()
    facts["cpu"] = _cpu_name()
    facts["cpu instruction sets"] = ", ".join(isa.available())
    facts["compute path"] = f"{isa.path()}, kernels for {isa.NAMES[isa.selected()]}"
    facts["blas integers"] = f"{_blas.integer_bits()} bits"
    for library in threads.blas_libraries():
        kernels = getattr(library, "architecture", None) or "unknown"
        facts["blas"] = f"{library.internal_api} {library.version}, kernels for {kernels}"
    facts["threads"] = f"{threads.get_num_threads()} of {os.cpu_count()} CPUs"
    return facts


def report() -> list[str]:
    """Format the description as lines."""
    facts = describe()
    width = max(map(len, facts))
    return [f"{name:<{width}}  {value}" for name, value in facts.items()]


def show_versions() -> None:
    """Print versions, CPU, compute path, BLAS and threads, one per line."""
    print("\n".join(report()))


def _version(package: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
