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
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]

    @property
    def row(self) -> int:
        """Index in the engine's table of cells."""
        return list(CELLS).index(self.name)


CELLS = {spec.name: spec for spec in (CellSpec("lstm", gates=("i", "f", "g", "o"), states=("h", "c")),)}
