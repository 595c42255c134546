import numpy as np
from numpy.typing import NDArray

from cylstm._engine._dense import Real

Spans = NDArray[np.intp]
OPTIMIZERS: tuple[str, ...]
COEFFICIENTS: int

def update(
    optimizer: str,
    p: NDArray[Real],
    g: NDArray[Real],
    m: NDArray[Real],
    v: NDArray[Real],
    spans: Spans,
    coefficients: NDArray[np.float64],
    isa: int,
) -> None: ...
def sum_of_squares(a: NDArray[Real], spans: Spans | None = None) -> float: ...
def scale(a: NDArray[Real], spans: Spans, factor: float) -> None: ...
def clip(a: NDArray[Real], spans: Spans, bound: float) -> None: ...
