from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)

def forward(y: NDArray[Real], x: NDArray[Real], w: NDArray[Real], b: NDArray[Real]) -> None: ...
def backward(
    dw: NDArray[Real],
    db: NDArray[Real],
    dx: NDArray[Real],
    dy: NDArray[Real],
    x: NDArray[Real],
    w: NDArray[Real],
) -> None: ...
