"""What computes: the instruction set, the best this CPU has or a lower one by CYLSTM_ISA, and the path."""

import functools
import os

from cylstm._engine import _kernels, _packed

# In the order of cyl_isa (include/cylstm/platform.h).
NAMES = ("scalar", "avx2", "avx512")


def available() -> list[str]:
    """Names of the instruction sets that run here, slowest first."""
    return list(NAMES[: _kernels.detect_isa() + 1])


@functools.cache
def selected() -> int:
    """Index into `NAMES` of the one in use.

    Raises
    ------
    ValueError
        If CYLSTM_ISA names an instruction set that this build or CPU lacks.
    """
    name = os.environ.get("CYLSTM_ISA", available()[-1])
    if name not in available():
        raise ValueError(f"CYLSTM_ISA: expected one of {available()} on this machine, got {name!r}")
    return NAMES.index(name)


PATHS = ("packed", "blas")


@functools.cache
def path() -> str:
    """The compute path in use: packed where this build has it, or the one that CYLSTM_PATH names.

    Raises
    ------
    ValueError
        If CYLSTM_PATH names a path that this build lacks.
    """
    here = PATHS if _packed.AVAILABLE else PATHS[1:]
    name = os.environ.get("CYLSTM_PATH", here[0])
    if name not in here:
        raise ValueError(f"CYLSTM_PATH: expected one of {list(here)} in this build, got {name!r}")
    return name


def unit(itemsize: int) -> int:
    """Units that stand together in the buffers: a panel on the packed path, 1 on the BLAS path."""
    return _packed.panel(selected(), itemsize) if path() == "packed" else 1
