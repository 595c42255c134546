"""Weights as the packed path reads them: in panels of units, padded with zeros."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cylstm._engine import _packed, isa
from cylstm._engine.planning import aligned_bytes

if TYPE_CHECKING:
    from cylstm.recurrent.base import RecurrentLayer

Array = NDArray[Any]


class PackedWeights:
    """The weights of a stack of recurrent layers, by layer and direction, at one version of its parameters.

    Parameters
    ----------
    layer : RecurrentLayer
    training : bool
        Whether the backward pass is to have its own, transposed ones too.
    """

    def __init__(self, layer: "RecurrentLayer", training: bool) -> None:
        self.training = training
        self.unit = isa.unit(layer.dtype.itemsize)
        self.of: dict[tuple[int, int], dict[str, Array]] = {}
        self.version: tuple[Any, int] | None = None
        self._moves: list[tuple[Any, ...]] = []  # functions and their arguments, all of which stay in place
        self.refresh(layer)

    def is_of(self, layer: "RecurrentLayer") -> bool:
        """Whether it holds what the parameters are now."""
        return self.version == (layer._store.place, layer._store.version)

    def refresh(self, layer: "RecurrentLayer") -> None:
        """Pack anew, into the same arrays, unless nothing was written since."""
        version = (layer._store.place, layer._store.version)
        if self.version == version:
            return
        if self.version is None or self.version[0] is not layer._store.place:
            self._moves = []
            for l, d in np.ndindex(layer.num_layers, layer.num_directions):
                self._plan(self.of.setdefault((l, d), {}), layer, layer.engine_parameters(l, d))
        for function, *arguments in self._moves:
            function(*arguments)
        self.version = version

    def _plan(self, out: dict[str, Array], layer: "RecurrentLayer", weights: dict[str, Array]) -> None:
        """What has to be moved for one layer and direction."""
        G, H, P = len(layer.spec.gates), layer.hidden_size, layer.state_width("h")
        Hp = -(-H // self.unit) * self.unit
        for name in ("w_ih", "w_hh"):
            self._rows(out, name, weights[name], G)
            if self.training:
                self._columns(out, f"{name}_t", weights[name], G, Hp)
        if "w_hr" in weights:
            self._rows(out, "w_hr", weights["w_hr"], 1)
            if self.training:
                self._columns(out, "w_hr_t", weights["w_hr"], 1, P)
        planes = {"b_ih": G, "b_hh": G} | ({"own": layer.spec.planes} if layer.spec.own else {})
        for name, count in planes.items():
            if name not in out:
                out[name] = np.zeros((count, Hp), layer.dtype)
            if name in weights:
                self._moves.append((np.copyto, out[name][:, :H], weights[name].reshape(count, H)))

    def _rows(self, out: dict[str, Array], name: str, w: Array, blocks: int) -> None:
        units = w.shape[0] // blocks
        if name not in out:
            out[name] = _aligned(-(-units // self.unit) * self.unit * blocks * w.shape[1], w.dtype)
        self._moves.append((_packed.pack_rows, out[name], self.unit, w, blocks))

    def _columns(self, out: dict[str, Array], name: str, w: Array, blocks: int, padded: int) -> None:
        if name not in out:
            out[name] = _aligned(-(-w.shape[1] // self.unit) * self.unit * blocks * padded, w.dtype)
        self._moves.append((_packed.pack_columns, out[name], self.unit, w, blocks, padded))


def _aligned(size: int, dtype: np.dtype[Any]) -> Array:
    array: Array = aligned_bytes(size * dtype.itemsize).view(dtype)
    return array
