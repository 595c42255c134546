"""The cells as data: what the layers, the reference and the tests read about each.

The order of rows is that of `cyl_cell_kind` in include/cylstm/cells.h.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class CellSpec:
    """What a cell is, apart from its arithmetic.

    Parameters
    ----------
    name : str
    gates : tuple of str
        In the order in which their rows stand in the weights: PyTorch's.
    states : tuple of str
        What one step hands to the next.
    extra : str
        What the cell keeps of each step besides gates and states; empty: nothing.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    extra: str = ""

    @property
    def row(self) -> int:
        """Index in the engine's table of cells."""
        return list(CELLS).index(self.name)


CELLS = {
    spec.name: spec
    for spec in (
        CellSpec("lstm", gates=("i", "f", "g", "o"), states=("h", "c")),
        CellSpec("rnn_tanh", gates=("h",), states=("h",)),
        CellSpec("rnn_relu", gates=("h",), states=("h",)),
        CellSpec("gru", gates=("r", "z", "n"), states=("h",), extra="W_hn h + b_hn"),
        CellSpec("gru_reset_before", gates=("r", "z", "n"), states=("h",), extra="r h"),
    )
}
