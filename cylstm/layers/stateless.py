"""Base classes of layers without parameters and of sequence layers without a state."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cylstm import _checks
from cylstm._engine.planning import Shape
from cylstm.layers.base import Layer
from cylstm.layers.parameters import ParameterStore
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.sequences.packing import Packing


class Sizeless(Layer, abstract=True):
    """A layer without parameters; in a `Sequential`, it gets size and dtype from the preceding layer."""

    def _set_size(self, features: int | None, dtype: Any) -> None:
        size = 0 if features is None else _checks.positive("features", features)  # 0: not known yet
        self.input_size = self.output_size = size
        self._store = ParameterStore({}, _checks.real_dtype(dtype))

    def fit_input(self, features: int, dtype: "np.dtype[Any]") -> None:
        """Adopt the size and dtype of the previous layer, where they were not specified."""
        self._set_size(self.input_size or features, dtype)

    def _sizes(self) -> dict[str, Any]:
        """Return the common part of the configuration."""
        return ({"features": self.input_size} if self.input_size else {}) | {"dtype": self.dtype.name}

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """There are no parameters."""
        return iter(())


class StatelessLayer(SequenceLayer, abstract=True):
    """Base class of sequence layers whose state is None."""

    def _checked_state(self, name: str, state: Any, B: int | None) -> None:
        if state is not None:
            kind = type(self).__name__
            raise TypeError(f"{name}: expected None, {kind} has no state, got {type(state).__name__}")

    def state_for_caller(self, state: None, unbatched: bool) -> None:
        """A state from internal form to that of the caller."""
        return None

    @property
    def causal(self) -> bool:
        """False: outputs depend on steps that are not part of a state."""
        return False

    _pooled = Packing(1, 0)  # packing of the last pooled output, reused for the same batch size

    def _packing_after(self, packing: Packing) -> Packing:
        if not self.pools:
            return packing
        pooled = self._pooled
        if pooled.B != packing.B:
            pooled = self._pooled = Packing(1, packing.B)
        return pooled
