from typing import Any

import numpy as np
from numpy.typing import NDArray

AVAILABLE: bool
AHEAD: int

class PackedPass:
    def __init__(
        self,
        cell: int,
        isa: int,
        rows: NDArray[np.intp],
        B: int,
        I: int,
        H: int,
        P: int,
        arrays: dict[str, NDArray[Any]],
        *,
        clip: float = ...,
        zoneout_h: float = 0,
        zoneout_c: float = 0,
    ) -> None: ...
    def forward(self, threads: int = 1, x: NDArray[Any] | None = None) -> None: ...
    def backward(self, need_dx: bool = True, threads: int = 1, dy: NDArray[Any] | None = None) -> None: ...

def forward_both(a: PackedPass, b: PackedPass, threads: int = 1) -> None: ...
def panel(isa: int, itemsize: int) -> int: ...
def strips(cell: int, isa: int, H: int, P: int) -> int: ...
def pack_rows(out: NDArray[Any], panel: int, w: NDArray[Any], blocks: int) -> None: ...
def pack_columns(out: NDArray[Any], panel: int, w: NDArray[Any], blocks: int, padded: int) -> None: ...
def get_threads() -> int: ...
def set_threads(n: int) -> None: ...
