from typing import Any

from numpy.typing import NDArray

class LayerPass:
    def __init__(
        self, cell: int, isa: int, T: int, B: int, I: int, H: int, G: int, arrays: dict[str, NDArray[Any]]
    ) -> None: ...
    def forward(self) -> None: ...
    def backward(self, need_dx: bool = True) -> None: ...
