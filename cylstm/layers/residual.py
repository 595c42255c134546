"""Residual connections."""

from typing import Any

from numpy.typing import NDArray

from cylstm._engine.planning import Arena
from cylstm.layers.base import Layer
from cylstm.layers.sequential import ChainWorkspace, Sequential
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class Residual(Sequential):
    """A residual connection around layers, y = x + layers(x) (He et al. 2016).

    Parameters
    ----------
    *layers : Layer
        As for `Sequential`, with as many outputs as inputs.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.Residual(cylstm.LSTM(3, 3, seed=0)), cylstm.Linear(3, 1, seed=1))
    >>> y, state = model(np.ones((5, 2, 3)))
    >>> y.shape
    (5, 2, 1)
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        if self.input_size != self.output_size or self.reads_indices or self.pools:
            raise ValueError(
                "layers: expected as many outputs as inputs at every step, "
                f"got {self.input_size} inputs and {self.output_size} outputs"
            )

    def __repr__(self) -> str:
        """Show the constructor call."""
        return f"Residual({', '.join(map(repr, self.layers))})"

    def new_workspace(self, training: bool, in_place: bool = False) -> "_ResidualWorkspace":
        """Buffers of one forward pass, and of its backward pass in training."""
        return _ResidualWorkspace(super().new_workspace(training, in_place).workspaces)

    def forward_batch(self, workspace: ChainWorkspace, batch: Batch, state: Any) -> tuple[Array, Any]:
        """y of a batch, as rows of the workspace, and the final state."""
        assert isinstance(workspace, _ResidualWorkspace)
        total = workspace.total(batch.packing.N, self)
        batch.into(total)
        rows, final = super().forward_batch(workspace, Batch(total, batch.packing), state)
        total += rows
        return total, final

    def step_stages(self, workspace: ChainWorkspace, state: Any, packing: Packing) -> None:
        """Stages of a single step for `_engine._steps.Steps`; None: only `forward_batch` computes it."""
        return None

    def backward_batch(
        self, workspace: ChainWorkspace, dy: Batch, dstate: Any, need_dx: bool
    ) -> tuple[Array | None, Any]:
        """dx of the last forward pass and the gradient of its initial state; adds to the gradients."""
        assert isinstance(workspace, _ResidualWorkspace)
        total = workspace.total(dy.packing.N, self)
        dy.into(total)
        dx, initial = super().backward_batch(workspace, Batch(total, dy.packing), dstate, need_dx)
        if dx is None:
            return None, initial
        total += dx
        return total, initial


class _ResidualWorkspace(ChainWorkspace):
    """Workspaces with a buffer for the sum."""

    def __init__(self, workspaces: list[Any]) -> None:
        super().__init__(workspaces)
        self._arena = Arena()

    def total(self, N: int, layer: Layer) -> Array:
        return self._arena.cut({"total": (N, layer.input_size)}, layer.dtype)["total"]
