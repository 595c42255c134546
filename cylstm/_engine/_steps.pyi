from typing import Any

from numpy.typing import NDArray

class Steps:
    def __init__(
        self,
        stages: list[tuple[Any, ...]],
        T: int,
        B: int,
        model: Any,
        store: Any,
        watched: list[tuple[Any, ...]],
    ) -> None: ...
    def current(self) -> bool: ...
    def step(self, x: Any, out: Any, threads: int) -> NDArray[Any] | None: ...
