"""What a stack of recurrent layers computes: its cell, sizes and options."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm.layers.parameters import ParameterStore
from cylstm.recurrent.cells import CellSpec
from cylstm.recurrent.parameter_names import PYTORCH_KINDS, parameter_name


class StackSpec(NamedTuple):
    """A stack of `num_layers` layers of one cell; with its parameters, everything that a pass depends on.

    Parameters
    ----------
    cell : CellSpec
    input_size, hidden_size, state_size : int
        Features of a step, units, and features of h: those of the projection, if there is one.
    num_layers, num_directions : int
    dtype : numpy dtype
    reverse : bool
    dropout, input_dropout, recurrent_dropout, zoneout, zoneout_cell : float
    clip : float or None
        As in `LSTM`.
    """

    cell: CellSpec
    input_size: int
    hidden_size: int
    state_size: int
    num_layers: int
    num_directions: int
    dtype: np.dtype[Any]
    reverse: bool = False
    dropout: float = 0.0
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: float = 0.0
    zoneout_cell: float = 0.0
    clip: float | None = None

    @property
    def projects(self) -> bool:
        """Whether h is a projection of the cell's output."""
        return self.state_size != self.hidden_size

    def width(self, state: str) -> int:
        """Features of a state."""
        return self.state_size if state == "h" else self.hidden_size

    def engine_parameters(self, store: ParameterStore, layer: int, d: int) -> dict[str, NDArray[Any]]:
        """Parameters of one layer and direction by the engine's names, with those of the cell."""
        views = store.parameters()
        names = {engine: parameter_name(kind, layer, d) for engine, kind in PYTORCH_KINDS.items()}
        found = {engine: views[name] for engine, name in names.items() if name in views}
        if self.cell.cell_parameters:
            found["cell_parameters"] = self.cell_block(store, store.data, layer, d)
        return found

    def cell_block(self, store: ParameterStore, flat: NDArray[Any], layer: int, d: int) -> NDArray[Any]:
        """Part of a flat vector with the cell parameters of one layer and direction."""
        return store.block(flat, [parameter_name(kind, layer, d) for kind, _ in self.cell.cell_parameters])
