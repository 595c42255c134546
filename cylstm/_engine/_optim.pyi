from numpy.typing import NDArray

from cylstm._engine._dense import Real

def sum_of_squares(a: NDArray[Real]) -> float: ...
def sgd(p: NDArray[Real], g: NDArray[Real], lr: float) -> None: ...
def adam(
    p: NDArray[Real],
    g: NDArray[Real],
    m: NDArray[Real],
    v: NDArray[Real],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    correction1: float,
    correction2: float,
) -> None: ...
