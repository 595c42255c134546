"""The cells as data: what the layers, the reference and the tests read about each.

The order of rows is that of `cyl_cell_kind` in include/cylstm/cells.h.
"""

from typing import NamedTuple


class CellSpec(NamedTuple):
    """A cell, apart from its arithmetic.

    Parameters
    ----------
    name : str
    gates : tuple of str
        In the order of their rows in the weights: PyTorch's.
    states : tuple of str
        What one step passes to the next.
    extra : int
        Planes, each H wide, that the cell saves at each step in addition to gates and states.
    cell_parameters : tuple of (str, int)
        Names and sizes, in H, of parameters other than weights and biases of gates, in memory order.
    biases : bool
        Whether the cell adds `bias_ih` and `bias_hh`.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    extra: int = 0
    cell_parameters: tuple[tuple[str, int], ...] = ()
    biases: bool = True

    @property
    def planes(self) -> int:
        """Size of the cell parameters, in H."""
        return sum(size for _, size in self.cell_parameters)

    @property
    def recomputable(self) -> bool:
        """Whether the states follow from the gates and the states before, as an LSTM's do."""
        return self.states == LSTM_STATES and not self.extra

    @property
    def row(self) -> int:
        """Index in the engine's table of cells."""
        return list(CELLS).index(self.name)


LSTM_STATES = ("h", "c")
PEEPHOLES = (("weight_ci", 1), ("weight_cf", 1), ("weight_co", 1))
NORMS = (("norm_ih", 4), ("norm_hh", 4), ("bias", 4), ("norm_c", 1), ("bias_c", 1))

CELLS = {
    spec.name: spec
    for spec in (
        CellSpec("lstm", ("i", "f", "g", "o"), LSTM_STATES),
        CellSpec("rnn_tanh", ("h",), ("h",)),
        CellSpec("rnn_relu", ("h",), ("h",)),
        CellSpec("gru", ("r", "z", "n"), ("h",), extra=1),  # W_hn h + b_hn
        CellSpec("gru_reset_before", ("r", "z", "n"), ("h",), extra=1),  # r h
        CellSpec("lstm_peephole", ("i", "f", "g", "o"), LSTM_STATES, cell_parameters=PEEPHOLES),
        CellSpec("lstm_coupled", ("i", "g", "o"), LSTM_STATES),
        CellSpec(
            "lstm_coupled_peephole",
            ("i", "g", "o"),
            LSTM_STATES,
            cell_parameters=(PEEPHOLES[0], PEEPHOLES[2]),
        ),
        CellSpec("lstm_norm", ("i", "f", "g", "o"), LSTM_STATES, 8, NORMS, biases=False),  # W_hh h, W_ih x
    )
}
