"""The instruction set that the kernels use: the best this CPU has, or a lower one by CYLSTM_ISA."""

import functools
import os

from cylstm._engine import _kernels

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
