import numpy as np
from numpy.typing import NDArray

from cylstm._engine._dense import Real

KINDS: tuple[str, ...]

def elementwise(
    kind: str,
    dy: NDArray[Real],
    y: NDArray[Real],
    target: NDArray[Real],
    parameter: NDArray[Real],
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    scale: float,
    isa: int,
) -> float: ...
def cross_entropy(
    dy: NDArray[Real],
    y: NDArray[Real],
    labels: NDArray[np.int64],
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    weight: NDArray[np.float64],
    ignored: int | None,
    smoothing: float,
    isa: int,
) -> tuple[float, float]: ...
def softmax_rows(out: NDArray[Real], x: NDArray[Real], isa: int) -> None: ...
