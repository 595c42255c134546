"""The buffers of a stack of recurrent layers, and one pass through it, forward and back."""

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cylstm._engine.planning import Arena, Plan
from cylstm.packing import Packing

if TYPE_CHECKING:
    from cylstm.recurrent import RecurrentLayer

Array = NDArray[Any]
State = tuple[Array, ...]
PARAMETERS = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
}  # engine, PyTorch


def parameter_name(kind: str, layer: int, d: int) -> str:
    """PyTorch's name of a parameter."""
    return f"{kind}_l{layer}{'_reverse' if d else ''}"


class Workspace:
    """Planned buffers of one stack and its engine passes, remade when the batch or the parameters move.

    Rows are packed (packing.py) in the order of direction 0; a second direction has copies in its own.
    """

    def __init__(
        self, layer: "RecurrentLayer", training: bool, in_place: bool = False, inspected: bool = False
    ) -> None:
        self.layer = weakref.proxy(layer)  # which owns its workspaces
        self.training, self.in_place, self.inspected = training, in_place, inspected
        self.arena = Arena()
        self.key: tuple[Any, ...] = ()
        self.buffers: dict[str, Array] = {}
        self.passes: dict[tuple[int, int], Any] = {}

    def prepare(self, T: int, B: int, lengths: Array | None) -> None:
        """Plan for a batch, unless the last one was like it."""
        from cylstm._engine import _recurrent, isa  # brings in SciPy's BLAS, so only now

        layer = self.layer
        key = (T, B, None if lengths is None else lengths.tobytes(), layer._store.place)
        if self.key == key:
            return
        self.key, self.buffers, self.passes = (), {}, {}  # let go of the memory before more is asked for
        self.packing = packing = Packing(T, B, lengths)
        self.index = packing.index(layer.reverse)
        if layer.bidirectional:
            self.there, self.back = packing.reversal()
        self.plan = Plan(
            N=packing.N, B=B, I=layer.input_size, H=layer.hidden_size, L=layer.num_layers,
            D=layer.num_directions, G=len(layer.spec.gates), S=len(layer.spec.states),
            has_extra=bool(layer.spec.extra), training=self.training,
            dropout=self.training and not self.inspected and layer.dropout > 0, inspected=self.inspected,
            padded=None if self.index is None else T * B,
        )  # fmt: skip
        self.buffers = self.arena.cut(self.plan.shapes(), layer.dtype)
        self.buffers["no_bias"][...] = 0
        self.parts = [(l, d) for l in range(self.plan.L) for d in range(self.plan.D)]
        cell, kernels = layer.spec.row, isa.selected()
        for l, d in self.parts:
            sizes = (B, self.plan.inputs(l), self.plan.H)
            self.passes[l, d] = _recurrent.LayerPass(cell, kernels, packing.rows, *sizes, self._arrays(l, d))
        c_last = packing.last() if self.training else packing.last_in_turn()
        self.last = {"h": packing.last(), "c": c_last}
        self.batch_shape = (T, B)
        self.key = key

    def buffer(self, kind: str, layer: int, d: int) -> Array:
        """A buffer of one layer and direction."""
        return self.buffers[self.plan.name(kind, layer, d)]

    def hidden(self, layer: int, d: int) -> Array:
        """Hidden states of all packed steps, without the initial one."""
        return self.buffer("h", layer, d)[self.plan.B :]

    def input(self, layer: int, d: int) -> Array:
        """What a layer reads: where it can, the states of the layer below where they stand."""
        return self.buffer("x", layer, d) if self.plan.has_input(layer) else self.hidden(layer - 1, 0)

    def _arrays(self, l: int, d: int) -> dict[str, Array]:
        """What the engine calls by which name, for one layer and direction."""
        parameters, gradients, buffers = self.layer.parameters, self.layer.gradients, self.buffers
        if self.inspected:  # whose gradients are not the layer's
            gradients = {name: np.zeros_like(value) for name, value in gradients.items()}
        kinds = [
            "gates",
            "h",
            *(["c"] if self.plan.S == 2 else []),
            *(["extra"] if self.plan.has_extra else []),
        ]
        arrays = {kind: self.buffer(kind, l, d) for kind in kinds} | {"x": self.input(l, d)}
        for ours, name in PARAMETERS.items():
            arrays[ours] = parameters.get(parameter_name(name, l, d), buffers["no_bias"])
            if self.training and parameter_name(name, l, d) in gradients:
                arrays[f"d{ours}"] = gradients[parameter_name(name, l, d)]
        if self.training:
            arrays["sums"] = buffers["sums"]
            arrays |= {f"d{s}": buffers[f"d{s}"][l * self.plan.D + d] for s in self.layer.spec.states}
            # dL/dx takes the place of x, or of dL/dy where that has its size.
            arrays |= {
                "dy": buffers[f"dy{d}"],
                "dx": buffers["dy0"] if l and self.plan.D == 1 else arrays["x"],
            }
            if self.plan.has_extra:
                arrays["dextra"] = buffers["dextra"]
            if self.inspected:
                arrays["dh_steps"] = buffers[f"dh_steps{l}_{d}"]
        return arrays

    def forward(self, x: Array, state: State | None) -> tuple[Array, State]:
        """y (T, B, D.H), a view, and the last states, for time-major x."""
        B, order = self.plan.B, self.packing.order
        if self.in_place and state is not None:
            final = state
        else:
            shape = (len(self.parts), B, self.plan.H)
            final = tuple(np.empty(shape, self.layer.dtype) for _ in self.layer.spec.states)
        _gather(x, self.index, self.buffer("x", 0, 0))
        for k, (l, d) in enumerate(self.parts):
            if d:
                np.take(self.input(l, 0), self.there, axis=0, out=self.input(l, 1), mode="clip")
            for s, name in enumerate(self.layer.spec.states):
                first = self.buffer(name, l, d)[:B]
                first[...] = 0 if state is None else state[s][k] if order is None else state[s][k][order]
            self.passes[l, d].forward()
            for s, name in enumerate(self.layer.spec.states):
                rows = self.buffer(name, l, d)
                if order is None:
                    np.take(rows, self.last[name], axis=0, out=final[s][k], mode="clip")
                else:
                    final[s][k, order] = rows[self.last[name]]
            if d == self.plan.D - 1:
                self._hand_up(l)
        y = self.hidden(self.plan.L - 1, 0) if self.plan.D == 1 else self.buffers["out"]
        return self._padded(y), final

    def _hand_up(self, l: int) -> None:
        """A layer's output to the one above: directions side by side, (N, D.H), units dropped out."""
        top = l + 1 == self.plan.L
        if self.plan.D == 2:
            out = self.buffers["out"] if top else self.buffer("x", l + 1, 0)
            out[:, : self.plan.H] = self.hidden(l, 0)
            out[self.there, self.plan.H :] = self.hidden(l, 1)
        if self.plan.dropout and not top:
            out = self.buffer("x", l + 1, 0)
            np.multiply(out if self.plan.D == 2 else self.hidden(l, 0), self._new_mask(l), out=out)

    def _new_mask(self, l: int) -> Array:
        """0 with the probability of dropout, else 1 over that of keeping, so that the mean stays."""
        mask, p = self.buffers[f"mask{l}"], self.layer.dropout
        self.layer.masks.random(out=mask, dtype=mask.dtype.type)
        np.greater_equal(mask, p, out=mask)
        mask /= 1 - p
        return mask

    def traced(self) -> dict[str, list[Array]]:
        """Gates and states, (T, B, H) for each layer and direction."""
        H, spec = self.plan.H, self.layer.spec
        result: dict[str, list[Array]] = {name: [] for name in (*spec.gates, *spec.states)}
        for l, d in self.parts:
            gates = self.scattered(self.buffer("gates", l, d), d)
            parts = {name: gates[..., g * H : (g + 1) * H] for g, name in enumerate(spec.gates)}
            for name in spec.states:
                parts[name] = self.scattered(self.buffer(name, l, d)[self.plan.B :], d)
            for name, value in parts.items():
                result[name].append(value)
        return result

    def scattered(self, packed: Array, d: int) -> Array:
        """A new (T, B, features) from packed rows of a direction, with zeros where there is no step."""
        T, B = self.batch_shape
        index = self.packing.index(bool(d) or self.layer.reverse)
        rows = np.zeros((T * B, packed.shape[1]), packed.dtype)
        rows[slice(None) if index is None else index] = packed
        return rows.reshape(T, B, packed.shape[1])

    def _padded(self, packed: Array) -> Array:
        """(T, B, features) from packed rows, with zeros where there is no step."""
        if self.index is not None:
            self.buffers["padded"][...] = 0
            self.buffers["padded"][self.index] = packed
            packed = self.buffers["padded"]
        return packed.reshape(*self.batch_shape, packed.shape[1])

    def backward(self, dy: Array, dstate: State | None, need_dx: bool) -> tuple[Array | None, State]:
        """dx, maybe a view, and the gradients of the first states; adds to those of the parameters."""
        buffers, D, H, order = self.buffers, self.plan.D, self.plan.H, self.packing.order
        by_length: Any = slice(None) if order is None else order
        for s, name in enumerate(self.layer.spec.states):
            buffers[f"d{name}"][...] = 0 if dstate is None else dstate[s][:, by_length]
        _gather(dy, self.index, buffers["dout"] if D == 2 else buffers["dy0"])
        for l in reversed(range(self.plan.L)):
            if D == 2:
                buffers["dy0"][...] = buffers["dout"][:, H:]
                np.take(buffers["dy0"], self.there, axis=0, out=buffers["dy1"], mode="clip")
                buffers["dy0"][...] = buffers["dout"][:, :H]
            for d in range(D):
                self.passes[l, d].backward(need_dx or l > 0)
            if D == 2 and l:
                np.take(self.input(l, 1), self.back, axis=0, out=buffers["dout"], mode="clip")
                buffers["dout"] += self.input(l, 0)
            if self.plan.dropout and l:
                buffers["dout" if D == 2 else "dy0"] *= buffers[f"mask{l - 1}"]
        initial = tuple(np.empty_like(buffers[f"d{name}"]) for name in self.layer.spec.states)
        for part, name in zip(initial, self.layer.spec.states, strict=True):
            part[:, by_length] = buffers[f"d{name}"]
        return self._input_gradient() if need_dx else None, initial

    def _input_gradient(self) -> Array:
        dx = self.buffer("x", 0, 0)
        if self.plan.D == 2:
            dx += self.buffer("x", 0, 1)[self.back]
        return self.scattered(dx, 0) if self.index is not None else dx.reshape(*self.batch_shape, dx.shape[1])


def _gather(array: Array, index: NDArray[np.intp] | None, out: Array) -> None:
    """Packed rows (N, features) of a time-major array (T, B, features) of any real dtype."""
    if index is None:
        out.reshape(array.shape)[...] = array
    else:
        rows = np.asarray(array, out.dtype).reshape(-1, array.shape[2])
        np.take(rows, index, axis=0, out=out, mode="clip")
