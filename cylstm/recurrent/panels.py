"""Packed weights: panels of units, padded with zeros, as the packed path reads them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._engine import _packed, isa
from cylstm._engine.planning import aligned_bytes, padded
from cylstm.layers.parameters import ParameterStore
from cylstm.recurrent.spec import StackSpec

Array = NDArray[Any]


class PackedWeights:
    """The weights of a stack, by layer and direction, at one revision of its parameters.

    Parameters
    ----------
    spec : StackSpec
        Cell, sizes and dtype; its options do not matter.
    store : ParameterStore
    training : bool
        Whether to pack transposed weights, too, for the backward pass.
    """

    def __init__(self, spec: StackSpec, store: ParameterStore, training: bool) -> None:
        self.spec, self.store, self.training = spec, store, training
        self.unit = isa.unit(spec.dtype.itemsize)
        self.of: dict[tuple[int, int], dict[str, Array]] = {}
        self.revision: tuple[Any, int] | None = None
        self._moves: list[tuple[Any, ...]] = []  # functions and their arguments, in fixed memory
        self.refresh()

    @property
    def is_current(self) -> bool:
        """Whether it holds the parameters' present values."""
        return self.revision == self.store.revision

    def refresh(self) -> None:
        """Pack into the same arrays again if the parameters have changed."""
        revision = self.store.revision
        if self.revision == revision:
            return
        if self.revision is None or self.revision[0] is not revision[0]:
            self._moves = []
            for l, d in np.ndindex(self.spec.num_layers, self.spec.num_directions):
                weights = self.spec.engine_parameters(self.store, l, d)
                self._plan(self.of.setdefault((l, d), {}), weights)
        for function, *arguments in self._moves:
            function(*arguments)
        self.revision = revision

    def _plan(self, out: dict[str, Array], weights: dict[str, Array]) -> None:
        """Add the copies to make for one layer and direction."""
        cell, H, P = self.spec.cell, self.spec.hidden_size, self.spec.state_size
        G, Hp = len(cell.gates), padded(H, self.unit)
        for name in ("w_ih", "w_hh"):
            self._rows(out, name, weights[name], G)
            if self.training:
                self._columns(out, f"{name}_t", weights[name], G, Hp)
        if "w_hr" in weights:
            self._rows(out, "w_hr", weights["w_hr"], 1)
            if self.training:
                self._columns(out, "w_hr_t", weights["w_hr"], 1, P)
        planes = {"b_ih": G, "b_hh": G} | ({"cell_parameters": cell.planes} if cell.cell_parameters else {})
        for name, count in planes.items():
            if name not in out:
                out[name] = np.zeros((count, Hp), self.spec.dtype)
            if name in weights:
                self._moves.append((np.copyto, out[name][:, :H], weights[name].reshape(count, H)))

    def _rows(self, out: dict[str, Array], name: str, w: Array, blocks: int) -> None:
        units = w.shape[0] // blocks
        if name not in out:
            out[name] = _aligned(padded(units, self.unit) * blocks * w.shape[1], w.dtype)
        self._moves.append((_packed.pack_rows, out[name], self.unit, w, blocks))

    def _columns(self, out: dict[str, Array], name: str, w: Array, blocks: int, width: int) -> None:
        if name not in out:
            out[name] = _aligned(padded(w.shape[1], self.unit) * blocks * width, w.dtype)
        self._moves.append((_packed.pack_columns, out[name], self.unit, w, blocks, width))


class SharedWeights:
    """The packed weights of inference, shared by all workspaces of a stack.

    Parameters
    ----------
    store : ParameterStore
    """

    def __init__(self, store: ParameterStore) -> None:
        self._store = store
        self._packed: PackedWeights | None = None

    def current(self, spec: StackSpec) -> PackedWeights:
        """Those at the parameters' revision: new arrays after a change, as others may read the old ones."""
        packed = self._packed
        if packed is None or not packed.is_current:
            packed = self._packed = PackedWeights(spec, self._store, training=False)
        return packed


def _aligned(size: int, dtype: np.dtype[Any]) -> Array:
    array: Array = aligned_bytes(size * dtype.itemsize).view(dtype)
    return array
