"""How many threads cylstm uses: those of its team (_engine/team.h), and of SciPy's BLAS where that is needed.

The number belongs to the process; `threads=` of a call overrides it. The default is CYLSTM_NUM_THREADS, or
OMP_NUM_THREADS, or the number of CPUs that this process may use (affinity and cgroup quotas). It is applied
at the first call, to BLAS when that is first needed. `threadpoolctl.threadpool_limits` reaches both.
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

MOST = 4096  # more is a slip, and would overflow an int of BLAS


class _Block:
    """A `with num_threads` that is not over."""

    before: int  # what it restores

    def __init__(self) -> None:
        self.thread = threading.get_ident()


def set_num_threads(n: int) -> None:
    """Use n threads from now on.

    >>> import cylstm
    >>> cylstm.set_num_threads(1)
    >>> cylstm.get_num_threads()
    1
    """
    n = checked("n", n)
    _prepare()
    _chosen[:] = [True]
    _packed.set_threads(n)
    for library in _libraries:
        library.set_num_threads(n)


def get_num_threads() -> int:
    """The number of threads in use."""
    own: int | None = getattr(_call, "threads", None)
    if own is not None:
        return own
    if not _prepared:
        _prepare()
    return _packed.get_threads()


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use n threads inside a `with` block.

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
            if block in _blocks:  # a forked child may have forgotten it
                last = _blocks[-1] is block
                _forget(block)
                if last:
                    set_num_threads(block.before)


def _forget(block: _Block) -> None:
    """Take a block out; the one of another thread that began after it restores what was before both."""
    later = _blocks.index(block) + 1
    if later < len(_blocks):
        _blocks[later].before = block.before
    _blocks.remove(block)


def _in_child() -> None:
    """After a fork: the lock may be held, and blocks are open, of threads that the child has not."""
    global _lock
    _lock = threading.RLock()
    for block in [block for block in _blocks if block.thread != threading.get_ident()]:
        _forget(block)


@contextlib.contextmanager
def of_call(n: int) -> Iterator[None]:
    """Use n threads for what the calling thread computes inside, on the BLAS path for the whole process."""
    n = checked("threads", n)
    if isa.path() == "blas":
        with num_threads(n):
            yield
        return
    before = begin_call(n)
    try:
        yield
    finally:
        begin_call(before)


def begin_call(n: int | None) -> int | None:
    """From now on the calling thread uses n threads, or those of the process; returns what was before."""
    before: int | None = getattr(_call, "threads", None)
    _call.threads = n
    return before


def checked(name: str, n: int) -> int:
    """A number of threads."""
    n = _checks.positive(name, n)
    if n > MOST:
        raise ValueError(f"{name}: expected at most {MOST} threads, got {n}")
    return n


def default() -> int:
    """The number that the environment asks for, or the CPUs that this process may use."""
    return of_environment() or usable_cpus()


def of_environment() -> int | None:
    """CYLSTM_NUM_THREADS or OMP_NUM_THREADS; None if neither is set. An empty one is not set.

    Raises
    ------
    ValueError
        If CYLSTM_NUM_THREADS is no positive int. OMP_NUM_THREADS is not ours: if it cannot be read a warning
        says so, as OpenMP's own libraries do, and it is ignored.
    """
    setting = os.environ.get("CYLSTM_NUM_THREADS", "").strip()
    if setting:
        try:
            return min(_checks.positive("CYLSTM_NUM_THREADS", int(setting)), MOST)
        except ValueError:
            raise ValueError(f"CYLSTM_NUM_THREADS: expected a positive int, got {setting!r}") from None
    setting = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not setting:
        return None
    try:
        return min(_checks.positive("OMP_NUM_THREADS", int(setting.split(",")[0])), MOST)
    except ValueError:
        warnings.warn(
            f"OMP_NUM_THREADS: expected a positive int, or a list of them of which the first counts, "
            f"got {setting!r}; ignored",
            stacklevel=2,
        )
        return None


def usable_cpus() -> int:
    """CPUs by affinity, at most the cgroup's quota rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, cgroups.cpu_quota())))


_prepared: list[bool] = []  # the default number was applied
_chosen: list[bool] = []  # the number was set by a call
_libraries: list[Any] = []
_blocks: list["_Block"] = []  # in the order in which they began
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
_call = threading.local()  # .threads: those of the call that this thread is in


def _prepare() -> None:
    """Apply the default once."""
    with _lock:
        if not _prepared:
            _packed.set_threads(default())
            _prepared.append(True)


class _WithThreadpoolctl:
    """An importer that makes the team known to threadpoolctl when that is imported.

    Limits then reach the team from the first on, as they reach the libraries that threadpoolctl knows by
    itself. To import it here would make `import cylstm` slower.
    """

    searching = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Let the others find threadpoolctl, and register after its import."""
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
    class TeamController(threadpoolctl.LibController):  # type: ignore[misc]
        """cylstm's thread team."""

        user_api = internal_api = "cylstm"
        filename_prefixes = ("_packed.",)  # and not _packed_dense, which threadpoolctl 3.2 would ask, too
        check_symbols = ("cylstm_get_num_threads", "cylstm_set_num_threads")

        def get_num_threads(self) -> int:
            """As cylstm.get_num_threads."""
            _prepare()
            return int(self.dynlib.cylstm_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            """Of the team; BLAS has a controller of its own."""
            _prepare()
            self.dynlib.cylstm_set_num_threads(num_threads)

        def get_version(self) -> str:
            """Of cylstm."""
            return __version__

        def set_additional_attributes(self) -> None:
            """There are none."""

    threadpoolctl.register(TeamController)


def blas_libraries() -> list[Any]:
    """Controllers of the BLAS behind SciPy; the first call, before the first product, applies the default."""
    with _lock:
        if not _libraries:
            import threadpoolctl

            from cylstm._engine import _blas

            wanted = _packed.get_threads() if _prepared else default()
            _blas.load()
            found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            # SciPy's wheels bring a BLAS of their own; without one it shares that of the process.
            chosen = [library for library in found if "scipy" in library.filepath] or found
            for library in chosen:
                if _chosen or os.environ.get("CYLSTM_NUM_THREADS") or library.num_threads > wanted:
                    library.set_num_threads(wanted)
            _libraries.extend(chosen)
    return _libraries


if "threadpoolctl" in sys.modules:
    _register(sys.modules["threadpoolctl"])
else:
    sys.meta_path.insert(0, _WithThreadpoolctl())
