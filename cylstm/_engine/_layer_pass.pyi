from typing import Any

import numpy as np
from numpy.typing import NDArray

class LayerPass:
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
    def forward(self, threads: int = 1, x: None = None) -> None: ...
    def backward(self, need_dx: bool = True, threads: int = 1, dy: None = None) -> None: ...

def cell_shape(cell: int) -> tuple[int, int, int, int]: ...
