"""Stacks of a cell unrolled over time, in one or both directions: what LSTM, GRU and RNN share."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._engine.planning import Arena, Plan, Shape
from cylstm.cells import CELLS
from cylstm.packing import Packing
from cylstm.parameters import ParameterStore
from cylstm.sequence_layer import SequenceLayer

Array = NDArray[Any]
State = tuple[Array, ...]
PARAMETERS = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
}  # engine, PyTorch


class RecurrentLayer(SequenceLayer):
    """A stack of `num_layers` layers of one cell; see `LSTM` for the parameters."""

    options: ClassVar[tuple[str, ...]] = ()  # constructor arguments of the subclass, kept as attributes

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = _checks.positive("input_size", input_size)
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.num_layers = _checks.positive("num_layers", num_layers)
        self.bias, self.batch_first = bool(bias), bool(batch_first)
        self.dropout = _checks.number("dropout", dropout, 0, 1)
        self.bidirectional, self.reverse = bool(bidirectional), bool(reverse)
        if self.bidirectional and self.reverse:
            raise ValueError(
                "reverse: expected False with bidirectional=True, which has both directions; got True"
            )
        self.num_directions = 2 if self.bidirectional else 1
        self.output_size = self.num_directions * self.hidden_size
        self.spec = CELLS[self.cell_of(self._sizes())]
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes())), _checks.real_dtype(dtype))
        # U(-1/sqrt(H), 1/sqrt(H)) for every parameter: PyTorch's choice.
        bound = self.hidden_size**-0.5
        with self._store.writing() as flat:
            flat[...] = _checks.generator(seed).uniform(-bound, bound, flat.size)
        self.masks = np.random.default_rng(
            None if seed is None else [seed, 1]
        )  # apart from the weights' numbers

    @classmethod
    def cell_of(cls, config: Mapping[str, Any]) -> str:
        """Name of the cell of a layer with this configuration."""
        raise NotImplementedError

    def _sizes(self) -> dict[str, Any]:
        names = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional", *self.options)
        return {name: getattr(self, name) for name in names}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        return {
            **self._sizes(),
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "reverse": self.reverse,
            "dtype": self.dtype.name,
        }

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`weight_ih_l0` (G.H, I), `weight_hh_l0` (G.H, H), `bias_ih_l0`, `bias_hh_l0` (G.H), and so on."""
        H, D = config["hidden_size"], 2 if config["bidirectional"] else 1
        GH = len(CELLS[cls.cell_of(config)].gates) * H
        for layer in range(config["num_layers"]):
            for d in range(D):
                yield _named("weight_ih", layer, d), (GH, D * H if layer else config["input_size"])
                yield _named("weight_hh", layer, d), (GH, H)
                if config["bias"]:
                    yield _named("bias_ih", layer, d), (GH,)
                    yield _named("bias_hh", layer, d), (GH,)

    def _checked_state(self, name: str, state: Any, B: int | None) -> State | None:
        if state is None:
            return None
        names = self.spec.states
        LD = self.num_layers * self.num_directions
        shape = (LD, self.hidden_size) if B is None else (LD, B, self.hidden_size)
        if len(names) == 1:
            arrays = [_checks.shaped(f"{name} {names[0]}", state, shape)]
        else:
            if not isinstance(state, (tuple, list)) or len(state) != len(names):
                raise TypeError(
                    f"{name}: expected a tuple ({', '.join(names)}) of arrays {shape}, "
                    f"got {type(state).__name__}"
                )
            arrays = [
                _checks.shaped(f"{name} {part}", a, shape) for part, a in zip(names, state, strict=True)
            ]
        return tuple(array[:, None] if B is None else array for array in arrays)

    def _state_for_caller(self, state: State, unbatched: bool) -> Any:
        parts = tuple(part[:, 0] if unbatched else part for part in state)
        return parts[0] if len(parts) == 1 else parts

    @property
    def causal(self) -> bool:
        """Whether the layer reads forward only."""
        return not (self.bidirectional or self.reverse)

    def _zero_state(self, B: int) -> State:
        shape = (self.num_layers * self.num_directions, B, self.hidden_size)
        return tuple(np.zeros(shape, self.dtype) for _ in self.spec.states)

    def _new_workspace(self, training: bool, in_place: bool = False) -> "_Workspace":
        return _Workspace(self, training, in_place)

    def _forward(
        self, workspace: "_Workspace", x: Array, state: State | None, lengths: Array | None
    ) -> tuple[Array, State]:
        workspace.prepare(x.shape[0], x.shape[1], lengths)
        return workspace.forward(x, state)

    def _backward(
        self, workspace: "_Workspace", dy: Array, dstate: State | None, need_dx: bool
    ) -> tuple[Array | None, State]:
        return workspace.backward(dy, dstate, need_dx)


def _named(kind: str, layer: int, d: int) -> str:
    """PyTorch's name of a parameter."""
    return f"{kind}_l{layer}{'_reverse' if d else ''}"


class _Workspace:
    """Planned buffers of one stack and its engine passes, remade when the batch or the parameters move.

    Rows are packed (packing.py) in the order of direction 0; a second direction has copies in its own.
    """

    def __init__(self, layer: RecurrentLayer, training: bool, in_place: bool) -> None:
        self.layer, self.training, self.in_place = layer, training, in_place
        self.arena = Arena()
        self.key: tuple[Any, ...] = ()

    def prepare(self, T: int, B: int, lengths: Array | None) -> None:
        from cylstm._engine import _recurrent, isa  # brings in SciPy's BLAS, so only now

        layer = self.layer
        key = (T, B, None if lengths is None else lengths.tobytes(), layer._store.root)
        if self.key == key:
            return
        self.key = ()
        self.packing = packing = Packing(T, B, lengths)
        self.index = packing.index(layer.reverse)
        if layer.bidirectional:
            self.there, self.back = packing.reversal()
        self.plan = Plan(
            N=packing.N, B=B, I=layer.input_size, H=layer.hidden_size, L=layer.num_layers,
            D=layer.num_directions, G=len(layer.spec.gates), S=len(layer.spec.states),
            has_extra=bool(layer.spec.extra), training=self.training,
            dropout=self.training and layer.dropout > 0,
            padded=None if self.index is None else T * B,
        )  # fmt: skip
        self.buffers = self.arena.cut(self.plan.shapes(), layer.dtype)
        self.buffers["no_bias"][...] = 0
        self.parts = [(l, d) for l in range(self.plan.L) for d in range(self.plan.D)]
        cell, kernels = layer.spec.row, isa.selected()
        self.passes = {}
        for l, d in self.parts:
            sizes = (B, self.plan.inputs(l), self.plan.H)
            self.passes[l, d] = _recurrent.LayerPass(cell, kernels, packing.rows, *sizes, self._arrays(l, d))
        c_last = packing.last() if self.training else packing.last_in_turn()
        self.last = {"h": packing.last(), "c": c_last}
        self.batch_shape = (T, B)
        self.key = key

    def buffer(self, kind: str, layer: int, d: int) -> Array:
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
        kinds = [
            "gates",
            "h",
            *(["c"] if self.plan.S == 2 else []),
            *(["extra"] if self.plan.has_extra else []),
        ]
        arrays = {kind: self.buffer(kind, l, d) for kind in kinds} | {"x": self.input(l, d)}
        for ours, name in PARAMETERS.items():
            arrays[ours] = parameters.get(_named(name, l, d), buffers["no_bias"])
            if self.training and _named(name, l, d) in gradients:
                arrays[f"d{ours}"] = gradients[_named(name, l, d)]
        if self.training:
            arrays |= {f"d{s}": buffers[f"d{s}"][l * self.plan.D + d] for s in self.layer.spec.states}
            # dL/dx takes the place of x, or of dL/dy where that has its size.
            arrays |= {
                "dy": buffers[f"dy{d}"],
                "dx": buffers["dy0"] if l and self.plan.D == 1 else arrays["x"],
            }
            if self.plan.has_extra:
                arrays["dextra"] = buffers["dextra"]
        return arrays

    def forward(self, x: Array, state: State | None) -> tuple[Array, State]:
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

    def _padded(self, packed: Array) -> Array:
        """(T, B, features) from packed rows, with zeros where there is no step."""
        if self.index is not None:
            self.buffers["padded"][...] = 0
            self.buffers["padded"][self.index] = packed
            packed = self.buffers["padded"]
        return packed.reshape(*self.batch_shape, packed.shape[1])

    def backward(self, dy: Array, dstate: State | None, need_dx: bool) -> tuple[Array | None, State]:
        buffers, D, H, order = self.buffers, self.plan.D, self.plan.H, self.packing.order
        by_length: Any = slice(None) if order is None else order
        for s, name in enumerate(self.layer.spec.states):
            buffers[f"d{name}"][...] = 0 if dstate is None else dstate[s][:, by_length]
        _gather(dy, self.index, buffers["dout"] if D == 2 else buffers["dy0"])
        for l in reversed(range(self.plan.L)):
            if D == 2:
                buffers["dy0"][...] = buffers["dout"][:, :H]
                buffers["dy1"][...] = buffers["dout"][self.there, H:]
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
        if self.index is not None:
            packed, dx = dx, np.zeros((self.batch_shape[0] * self.batch_shape[1], dx.shape[1]), dx.dtype)
            dx[self.index] = packed
        return dx.reshape(*self.batch_shape, dx.shape[1])


def _gather(array: Array, index: NDArray[np.intp] | None, out: Array) -> None:
    """Packed rows (N, features) of a time-major array (T, B, features) of any real dtype."""
    if index is None:
        out.reshape(array.shape)[...] = array
    else:
        rows = np.asarray(array, out.dtype).reshape(-1, array.shape[2])
        np.take(rows, index, axis=0, out=out, mode="clip")
