import numpy as np
from numpy.typing import NDArray

from cylstm._engine._dense import Real

def ctc(
    dy: NDArray[Real],
    y: NDArray[Real],
    labels: NDArray[np.int64],
    starts: NDArray[np.intp],
    lengths: NDArray[np.intp],
    blank: int,
    zero_infinity: bool,
    sequences: float,
    log_p: NDArray[np.float64],
    alpha: NDArray[np.float64],
    beta: NDArray[np.float64],
    occupied: NDArray[np.float64],
) -> float: ...
