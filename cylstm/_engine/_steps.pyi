from typing import Any

from numpy.typing import NDArray

from cylstm.layers.base import Layer

class Steps:
    def __init__(
        self, stages: list[tuple[Any, ...]], T: int, B: int, model: Layer, watched: list[tuple[Any, ...]]
    ) -> None: ...
    def current(self) -> bool: ...
    def step(self, x: Any, out: Any, threads: int) -> NDArray[Any] | None: ...
