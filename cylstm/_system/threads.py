"""The number of threads, for the engine's thread pool and for SciPy's BLAS on the BLAS path.

The number is a setting of the process, which `threads=` of a call overrides. The default is
CYLSTM_NUM_THREADS, else OMP_NUM_THREADS, else the number of CPUs available to this process (affinity and
cgroup quota). It is applied at the first call, and to BLAS at its first use.
`threadpoolctl.threadpool_limits` controls both.
"""

import contextlib
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from cylstm import _checks
from cylstm._engine import _packed, isa
from cylstm._system import cgroups
from cylstm._version import __version__

MAX_THREADS = 4096  # larger numbers are probably mistakes, and may overflow BLAS integers


class _Block:
    """An active `with num_threads` block."""

    before: int  # the number to restore

    def __init__(self) -> None:
        self.thread = threading.get_ident()


def set_num_threads(n: int) -> None:
    """Set the number of threads.

    >>> import cylstm
    >>> cylstm.set_num_threads(1)
    >>> cylstm.get_num_threads()
    1
    """
    n = checked("n", n)
    _prepare()
    _is_set[:] = [True]
    _packed.set_threads(n)
    for library in _libraries:
        library.set_num_threads(n)


def get_num_threads() -> int:
    """Return the number of threads."""
    call_setting: int | None = getattr(_call, "threads", None)
    if call_setting is not None:
        return call_setting
    if not _prepared:
        _prepare()
    return _packed.get_threads()


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads inside a `with` block.

    >>> import cylstm
    >>> with cylstm.num_threads(1):
    ...     cylstm.get_num_threads()
    1
    """
    block = _Block()
    with _lock:
        block.before = get_num_threads()
        set_num_threads(n)
        _blocks.append(block)
    try:
        yield
    finally:
        with _lock:
            if block in _blocks:  # a forked child may have removed it
                is_innermost = _blocks[-1] is block
                _remove(block)
                if is_innermost:
                    set_num_threads(block.before)


def _remove(block: _Block) -> None:
    """Remove a block; the block after it, of another thread, will restore the number from before both."""
    later = _blocks.index(block) + 1
    if later < len(_blocks):
        _blocks[later].before = block.before
    _blocks.remove(block)


def _reset_after_fork() -> None:
    """Replace the lock and remove the blocks of other threads, which do not exist in a forked child."""
    global _lock
    _lock = threading.RLock()
    for block in [block for block in _blocks if block.thread != threading.get_ident()]:
        _remove(block)


@contextlib.contextmanager
def call_threads(n: int) -> Iterator[None]:
    """Set the number of threads for calls of this thread; on the BLAS path, for the whole process."""
    n = checked("threads", n)
    if isa.path() == "blas":
        with num_threads(n):
            yield
        return
    before = set_call_threads(n)
    try:
        yield
    finally:
        set_call_threads(before)


def set_call_threads(n: int | None) -> int | None:
    """Set the number for calls of this thread, or None to use that of the process; return the old value."""
    before: int | None = getattr(_call, "threads", None)
    _call.threads = n
    return before


def checked(name: str, n: int) -> int:
    """Check a number of threads."""
    n = _checks.positive(name, n)
    if n > MAX_THREADS:
        raise ValueError(f"{name}: expected at most {MAX_THREADS} threads, got {n}")
    return n


def default() -> int:
    """Return the number set in the environment, or the number of CPUs available to this process."""
    return from_environment() or usable_cpus()


def from_environment() -> int | None:
    """Read CYLSTM_NUM_THREADS or OMP_NUM_THREADS; None if both are unset or empty.

    Raises
    ------
    ValueError
        If CYLSTM_NUM_THREADS is not a positive int. An invalid OMP_NUM_THREADS is ignored with a warning, as
        in OpenMP runtimes.
    """
    setting = os.environ.get("CYLSTM_NUM_THREADS", "").strip()
    if setting:
        try:
            return min(_checks.positive("CYLSTM_NUM_THREADS", int(setting)), MAX_THREADS)
        except ValueError:
            raise ValueError(f"CYLSTM_NUM_THREADS: expected a positive int, got {setting!r}") from None
    setting = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not setting:
        return None
    try:
        return min(_checks.positive("OMP_NUM_THREADS", int(setting.split(",")[0])), MAX_THREADS)
    except ValueError:
        warnings.warn(
            f"OMP_NUM_THREADS: expected a positive int, or a list of them whose first is used, "
            f"got {setting!r}; ignored",
            stacklevel=2,
        )
        return None


def usable_cpus() -> int:
    """Return the number of CPUs by affinity, limited by the cgroup quota rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, cgroups.cpu_quota())))


_prepared: list[bool] = []  # non-empty once the default number has been applied
_is_set: list[bool] = []  # non-empty once `set_num_threads` has been called
_libraries: list[Any] = []
_blocks: list["_Block"] = []  # active blocks, oldest first
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
_call = threading.local()  # .threads: the number for the current call of this thread


def _prepare() -> None:
    """Apply the default once."""
    with _lock:
        if not _prepared:
            _packed.set_threads(default())
            _prepared.append(True)


class _ThreadpoolctlHook:
    """An import hook that registers the thread pool with threadpoolctl when it is imported.

    Its limits then apply to the pool, as to the libraries that threadpoolctl supports.
    Importing threadpoolctl here would slow down `import cylstm`.
    """

    searching = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find threadpoolctl with the other finders, and register the pool after its import."""
        if name != "threadpoolctl" or self.searching:
            return None
        from importlib.util import find_spec

        self.searching = True
        try:
            spec = find_spec(name)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: Any) -> None:
                run(module)
                _register(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def _register(threadpoolctl: Any) -> None:
    class PoolController(threadpoolctl.LibController):  # type: ignore[misc]
        """cylstm's thread pool."""

        user_api = internal_api = "cylstm"
        filename_prefixes = ("_packed.",)  # with the dot: threadpoolctl 3.2 would also query _packed_dense
        check_symbols = ("cylstm_get_num_threads", "cylstm_set_num_threads")

        def get_num_threads(self) -> int:
            """Return the number of threads, as `cylstm.get_num_threads` does."""
            _prepare()
            return int(self.dynlib.cylstm_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            """Set the size of the thread pool; BLAS has a separate controller."""
            _prepare()
            self.dynlib.cylstm_set_num_threads(num_threads)

        def get_version(self) -> str:
            """Return the version of cylstm."""
            return __version__

        def set_additional_attributes(self) -> None:
            """Do nothing: there are no additional attributes."""

    threadpoolctl.register(PoolController)


def blas_libraries() -> list[Any]:
    """Return controllers of SciPy's BLAS; the first call, before BLAS is used, applies the default."""
    with _lock:
        if not _libraries:
            import threadpoolctl

            from cylstm._engine import _blas

            n = _packed.get_threads() if _prepared else default()
            _blas.load()
            libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            # SciPy's wheels bundle a BLAS; other builds share that of the process.
            selected = [library for library in libraries if "scipy" in library.filepath] or libraries
            for library in selected:
                if _is_set or os.environ.get("CYLSTM_NUM_THREADS") or library.num_threads > n:
                    library.set_num_threads(n)
            _libraries.extend(selected)
    return _libraries


if "threadpoolctl" in sys.modules:
    _register(sys.modules["threadpoolctl"])
else:
    sys.meta_path.insert(0, _ThreadpoolctlHook())
