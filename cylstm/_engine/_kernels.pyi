from numpy.typing import NDArray

from cylstm._engine._dense import Real

ACTIVATIONS: tuple[str, ...]

def detect_isa() -> int: ...
def activation(name: str, y: NDArray[Real], x: NDArray[Real], isa: int) -> None: ...
