import numpy as np
from numpy.typing import NDArray

from cylstm._engine._dense import Real

def mask_steps(packed: NDArray[Real], rows: NDArray[np.intp], mask: NDArray[Real]) -> None: ...
