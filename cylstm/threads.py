"""How many threads cylstm uses: those of SciPy's BLAS, which is all that works in parallel.

The number belongs to the process, for BLAS has one pool. The default is the number of CPUs
that this process may use (affinity and cgroup quota) or CYLSTM_NUM_THREADS; it is applied when BLAS
is first needed. `threadpoolctl.threadpool_limits` reaches the same pool.
"""

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cylstm import _checks

MOST = 4096  # more is a slip, and would overflow an int of BLAS


def set_num_threads(n: int) -> None:
    """Use n threads from now on.

    >>> import cylstm
    >>> cylstm.set_num_threads(1)
    >>> cylstm.get_num_threads()
    1
    """
    n = _checks.positive("n", n)
    if n > MOST:
        raise ValueError(f"n: expected at most {MOST} threads, got {n}")
    for library in blas_libraries():
        library.set_num_threads(n)


def get_num_threads() -> int:
    """The number of threads in use."""
    return max((library.num_threads for library in blas_libraries()), default=1)


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use n threads inside a `with` block.

    >>> import cylstm
    >>> with cylstm.num_threads(1):
    ...     cylstm.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def default() -> int:
    """CYLSTM_NUM_THREADS, or the CPUs that this process may use."""
    setting = os.environ.get("CYLSTM_NUM_THREADS")
    if setting is None:
        return usable_cpus()
    try:
        return min(_checks.positive("CYLSTM_NUM_THREADS", int(setting)), MOST)
    except ValueError:
        raise ValueError(f"CYLSTM_NUM_THREADS: expected a positive int, got {setting!r}") from None


def usable_cpus() -> int:
    """CPUs by affinity, at most the cgroup's quota rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _cgroup_quota())))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that the cgroup may use: version 2's cpu.max, version 1's quota, or no limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        cpus = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf  # no cgroup, or "max"
    return cpus if cpus > 0 else math.inf


_libraries: list[Any] = []
_lock = threading.Lock()


def blas_libraries() -> list[Any]:
    """Controllers of the BLAS behind SciPy; the first call, before the first product, applies the default."""
    with _lock:
        if not _libraries:
            import threadpoolctl

            from cylstm._engine import _blas

            wanted = default()
            _blas.load()
            found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            # SciPy's wheels bring a BLAS of their own; without one it shares that of the process.
            chosen = [library for library in found if "scipy" in library.filepath] or found
            for library in chosen:
                if "CYLSTM_NUM_THREADS" in os.environ or library.num_threads > wanted:
                    library.set_num_threads(wanted)
            _libraries.extend(chosen)
    return _libraries
