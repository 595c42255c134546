from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)

class PackedDense:
    def __init__(
        self,
        y: NDArray[Real],
        x: NDArray[Real],
        w: NDArray[Real],
        b: NDArray[Real],
        isa: int,
        gradients: dict[str, NDArray[Real]] | None = None,
    ) -> None: ...
    def forward(self, threads: int = 1) -> None: ...
    def backward(self, need_dx: bool = True, threads: int = 1) -> None: ...
