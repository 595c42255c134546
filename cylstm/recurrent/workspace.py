"""The buffers of a stack of recurrent layers, and one pass through it, forward and back."""

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm._engine import _packed, isa
from cylstm._engine.planning import Arena, Plan
from cylstm._system import threads
from cylstm.recurrent.panels import PackedWeights
from cylstm.sequences.packing import Batch, Packing

if TYPE_CHECKING:
    from cylstm.recurrent.base import RecurrentLayer

Array = NDArray[Any]
State = tuple[Array, ...]
PARAMETERS = {  # the engine's names and PyTorch's
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "w_hr": "weight_hr",
}
# From there on, spans and bytes of a state of all steps, a training computes states again on the way back:
# memory counts more than 1 to 4 % of the time.
LEAST_SPANS, LEAST_PLANE = 8, 8 << 20


def parameter_name(kind: str, layer: int, d: int) -> str:
    """PyTorch's name of a parameter."""
    return f"{kind}_l{layer}{'_reverse' if d else ''}"


class _Carried(NamedTuple):
    """One state of a layer and direction, among the rows of all steps."""

    name: str
    first: Array  # before the first step
    beyond: Array  # of that, what no unit stands for
    rows: Array
    last: Any  # where each sequence's last one is
    learned: str | None  # the parameter that it begins with, if it is one


class Workspace:
    """Planned buffers of one stack and its engine passes, remade when the batch or the parameters move.

    Rows are packed (packing.py) in the order of direction 0; a second direction has copies in its own.
    """

    def __init__(
        self, layer: "RecurrentLayer", training: bool, in_place: bool = False, inspected: bool = False
    ) -> None:
        self.layer: RecurrentLayer = weakref.proxy(layer)  # type: ignore[assignment]  # it owns its workspaces
        self.training, self.in_place, self.inspected = training, in_place, inspected
        self.arena, self.handed = Arena(), Arena()  # handed: of hidden states that a caller may get
        self.key: tuple[Any, ...] = ()
        self.buffers: dict[str, Array] = {}
        self.passes: dict[tuple[int, int], Any] = {}
        self.packed: PackedWeights | None = None  # on the packed path
        self.states: list[list[_Carried]] = []
        self.learned: dict[tuple[str, int], Array] = {}  # gradients of learned initial states in use

    def prepare(self, packing: Packing) -> None:
        """Plan for a batch, unless the last one was like it."""
        layer = self.layer
        self._take_weights()
        shares = (getattr(layer, name) for name in layer.shares)
        key = (packing, layer._store.place, self.packed, layer.clip, *shares)
        if self.key == key:
            return
        # Let go of the memory before more is asked for.
        self.key, self.buffers, self.passes, self.states = (), {}, {}, []
        self.packing = packing
        self.plan = self._planned()
        shapes = self.plan.shapes()
        handed = {name: shapes.pop(name) for name in self._handed()}
        self.buffers = self.arena.cut(shapes, layer.dtype) | self.handed.cut(handed, layer.dtype)
        self.buffers["no_bias"][...] = 0
        self.d_own = np.zeros((layer.spec.planes, self.plan.padded(self.plan.H)), layer.dtype)
        if self.training:  # in inspection the gradients are not the layer's
            self.grad = np.zeros_like(layer._store.data) if self.inspected else layer._store.grad
        self.parts = [(l, d) for l in range(self.plan.L) for d in range(self.plan.D)]
        clip = float("inf") if layer.clip is None else layer.clip
        for l, d in self.parts:
            self.passes[l, d] = self._pass_type()(
                layer.spec.row, isa.selected(), packing.rows, self.plan.B, self.plan.inputs(l), self.plan.H,
                self.plan.P, self._arrays(l, d), clip=clip, zoneout_h=layer.zoneout,
                zoneout_c=layer.zoneout_cell,
            )  # fmt: skip
        self.states = [[self._state(name, l, d) for name in layer.spec.states] for l, d in self.parts]
        self.key = key

    def _take_weights(self) -> None:
        """Weights in panels as they are now: in training its own copy, packed into the same arrays."""
        if isa.path() == "blas":
            threads.blas_libraries()
        elif not self.training:
            self.packed = self.layer.packed_weights()
        elif self.packed is None:
            self.packed = PackedWeights(self.layer, training=True)
        else:
            self.packed.refresh(self.layer)

    def _pass_type(self) -> Any:
        if self.packed is not None:
            return _packed.PackedPass
        from cylstm._engine import _layer_pass  # brings in SciPy's BLAS, so only now

        return _layer_pass.LayerPass

    def _state(self, name: str, l: int, d: int) -> _Carried:
        buffer, packing, width = self.buffer(name, l, d), self.packing, self.plan.width(name)
        in_turn = name == "c" and (self.plan.spans or not self.training)
        last: Any = packing.last_in_turn if in_turn else packing.last
        if packing.order is None and packing.B:  # one after the other
            last = slice(int(last[0]), int(last[0]) + packing.B)
        learned = parameter_name(f"{name}_0", l, d)
        return _Carried(
            name, buffer[: packing.B, :width], buffer[: packing.B, width:], buffer[:, :width], last,
            learned if learned in self.layer._store.shapes else None,
        )  # fmt: skip

    def _planned(self) -> Plan:
        layer, drawn = self.layer, self.training and not self.inspected
        zoneout = {"h": layer.zoneout, "c": layer.zoneout_cell}
        return Plan(
            N=self.packing.N, B=self.packing.B, I=layer.input_size, H=layer.hidden_size,
            P=layer.state_width("h"), L=layer.num_layers, D=layer.num_directions,
            G=len(layer.spec.gates), S=len(layer.spec.states), E=layer.spec.extra,
            training=self.training, reverse=layer.reverse, projects=layer.proj_size > 0,
            dropout=drawn and layer.dropout > 0 and layer.num_layers > 1,
            input_dropout=drawn and layer.input_dropout > 0,
            recurrent_dropout=drawn and layer.recurrent_dropout > 0,
            zoneout=tuple(state for state, share in zoneout.items() if share > 0), drawn=drawn,
            inspected=self.inspected, **self._padding(), **self._spans(),
        )  # fmt: skip

    def _padding(self) -> dict[str, int]:
        """What the packed path asks of the buffers."""
        if self.packed is None:
            return {}
        layer = self.layer
        strips = _packed.strips(layer.spec.row, isa.selected(), layer.hidden_size, layer.state_width("h"))
        return {"unit": self.packed.unit, "ahead": _packed.AHEAD, "strips": strips}

    def _spans(self) -> dict[str, int]:
        """Spans of a long training, if the cell's states follow from its gates and the states before."""
        layer = self.layer
        changed = layer.proj_size or layer.zoneout or layer.zoneout_cell  # by what follows the cell
        if self.packed is None or not layer.spec.follows or changed or self.inspected or not self.training:
            return {}
        spans = -(-len(self.packing.rows) // _packed.SPAN)
        plane = self.packing.N * layer.hidden_size * layer.dtype.itemsize
        long = spans >= LEAST_SPANS and plane >= LEAST_PLANE
        return {"spans": spans, "span": _packed.SPAN} if long else {}

    def _handed(self) -> list[str]:
        """The names of the buffers that a caller may get."""
        return [self.plan.name("h", self.plan.L - 1, 0)] if self.plan.hands_out else []

    def let_go(self) -> bool:
        """Whether the rows of y that forward returned are the caller's from now on."""
        if not self.plan.hands_out or self.handed.used < 0.8:  # y would keep the memory of a longer batch
            return False
        self.key = ()  # the next pass is planned anew
        self.passes[self.plan.L - 1, 0].let_go_of_h()
        del self.buffers[self._handed()[0]]
        self.states, self.handed = [], Arena()
        return True

    def buffer(self, kind: str, layer: int, d: int) -> Array:
        """A buffer of one layer and direction."""
        return self.buffers[self.plan.name(kind, layer, d)]

    def hidden(self, layer: int, d: int) -> Array:
        """Hidden states of all packed steps, without the initial one."""
        return self.buffer("h", layer, d)[self.plan.B :, : self.plan.P]

    def input(self, layer: int, d: int) -> Array:
        """What a layer reads: where it can, the states of the layer below where they stand."""
        return self.buffer("x", layer, d) if self.plan.has_input(layer) else self.hidden(layer - 1, 0)

    def _arrays(self, l: int, d: int) -> dict[str, Array]:
        """What the engine calls by which name, for one layer and direction."""
        buffers, plan = self.buffers, self.plan
        arrays = {kind: self.buffer(kind, l, d) for kind in plan.of_direction()} | {"x": self.input(l, d)}
        arrays |= {"b_ih": buffers["no_bias"], "b_hh": buffers["no_bias"]} | self._weights(l, d)
        if self.training:
            again = ("h_again", "c_again")
            scratch = ("sums", "strips", "dextra", "dm", "dh_masked", "dh_kept", "dc_kept", *again)
            arrays |= {name: buffers[name] for name in scratch if name in buffers}
            arrays |= {f"d{s}": buffers[f"d{s}"][l * plan.D + d] for s in self.layer.spec.states}
            # dL/dx takes the place of x, or of dL/dy where that has its size.
            arrays["dy"] = buffers[f"dy{d}"]
            arrays["dx"] = buffers["dy0"] if l and plan.D == 1 else arrays["x"]
        return arrays

    def _weights(self, l: int, d: int) -> dict[str, Array]:
        """Parameters, and in training their gradients, of one layer and direction."""
        layer = self.layer
        arrays = dict(layer.engine_parameters(l, d) if self.packed is None else self.packed.of[l, d])
        if not self.training:
            return arrays
        gradients = layer._store.views(self.grad)
        for ours, kind in PARAMETERS.items():
            if (name := parameter_name(kind, l, d)) in gradients:
                arrays[f"d{ours}"] = gradients[name]
        if layer.spec.own:
            arrays["d_own"] = self.d_own if self.packed is not None else self._own_gradient(l, d)
        return arrays

    def _own_gradient(self, l: int, d: int) -> Array:
        """That of the cell's own parameters, as they lie in the flat vector."""
        names = [parameter_name(kind, l, d) for kind, _ in self.layer.spec.own]
        block: Array = self.layer._store.block(self.grad, names)
        return block

    def forward(self, batch: Batch, state: State | None) -> tuple[Array, State]:
        """Packed rows of y (N, D.P), a view, and the last states."""
        plan, spec = self.plan, self.layer.spec
        by_length: Any = slice(None) if self.packing.order is None else self.packing.order
        if self.in_place and state is not None:
            final = state
        else:
            final = tuple(
                np.empty((len(self.parts), plan.B, plan.width(s)), self.layer.dtype) for s in spec.states
            )
        self.learned = {}
        given = None if self.training or plan.D == 2 else self._as_it_is(batch)
        if given is None:
            batch.into(self.buffer("x", 0, 0), self.layer.reverse)
        self._mask_input(0)
        for l in range(plan.L):
            places = [(l * plan.D + d, d) for d in range(plan.D)]
            for k, d in places:
                if d:
                    np.take(self.input(l, 0), self.packing.there, axis=0, out=self.input(l, 1), mode="clip")
                for s, one in enumerate(self.states[k]):
                    one.first[...] = self._initial(one, k) if state is None else state[s][k, by_length]
                    one.beyond[...] = 0
                self._draw(l, d)
            self._go_through(l, given if l == 0 else None)
            for k, _ in places:
                for s, one in enumerate(self.states[k]):
                    final[s][k, by_length] = one.rows[one.last]
            self._hand_up(l)
        if plan.reverse:
            top = self.hidden(plan.L - 1, 0)
            np.take(top, self.packing.back, axis=0, out=self.buffers["out"], mode="clip")
        return (self.buffers["out"] if "out" in self.buffers else self.hidden(plan.L - 1, 0)), final

    def _go_through(self, l: int, x: Array | None) -> None:
        """The engine's passes of a layer, in every direction."""
        n, passes = threads.get_num_threads(), [self.passes[l, d] for d in range(self.plan.D)]
        if len(passes) == 2 and self.packed is not None:
            _packed.forward_both(passes[0], passes[1], n)
            return
        for one in passes:
            one.forward(n, x)

    def _initial(self, state: _Carried, k: int) -> Any:
        """What a layer's state starts from: zeros, or what it has learned."""
        if state.learned is None:
            return 0
        if self.training and not self.inspected:
            self.learned[state.name, k] = self.layer.gradients[state.learned]
        return self.layer.parameters[state.learned]

    def _hand_up(self, l: int) -> None:
        """A layer's output to the one above: directions side by side, (N, D.P), units dropped out."""
        plan, top = self.plan, l + 1 == self.plan.L
        if plan.D == 2:
            out = self.buffers["out"] if top else self.buffer("x", l + 1, 0)
            out[:, : plan.P] = self.hidden(l, 0)
            out[self.packing.there, plan.P :] = self.hidden(l, 1)
        elif not top and plan.has_input(l + 1):
            self.buffer("x", l + 1, 0)[...] = self.hidden(l, 0)
        if top:
            return
        if plan.dropout:
            mask = self.buffers[f"mask{l}"]
            self.layer.masks.keep(mask, self.layer.dropout)
            self.buffer("x", l + 1, 0)[...] *= mask
        self._mask_input(l + 1)

    def _mask_input(self, l: int) -> None:
        """One mask for each sequence, the same at every step (Gal and Ghahramani 2016)."""
        if self.plan.input_dropout:
            from cylstm._engine import _rows

            mask = self.buffers[f"mask_x{l}"]
            self.layer.masks.keep(mask, self.layer.input_dropout)
            _rows.mask_steps(self.buffer("x", l, 0), self.packing.rows, mask)

    def _draw(self, l: int, d: int) -> None:
        """Masks of the recurrence, if there are any."""
        if self.plan.recurrent_dropout:
            self.layer.masks.keep(self.buffer("mask_h", l, d), self.layer.recurrent_dropout)
        for state in self.plan.zoneout if self.plan.drawn else ():
            share = self.layer.zoneout if state == "h" else self.layer.zoneout_cell
            self.layer.masks.below(self.buffer(f"zone_{state}", l, d), share)

    def stages(self, state: State) -> list[tuple[Any, ...]]:
        """The layers, planned for some steps forward, as `_engine._steps.Steps` takes them."""
        B, stages = self.plan.B, []
        for k, (l, d) in enumerate(self.parts):
            carried = [
                (state[s][k], self.buffer(one.name, l, d)[:B], self.buffer(one.name, l, d)[one.last])
                for s, one in enumerate(self.states[k])
            ]
            stages.append((self.passes[l, d], self.input(l, d), self.buffer("h", l, d)[B:], carried))
        return stages

    def traced(self) -> dict[str, list[Array]]:
        """Gates and states, (T, B, features) for each layer and direction."""
        H, Hp, spec = self.plan.H, self.plan.padded(self.plan.H), self.layer.spec
        result: dict[str, list[Array]] = {name: [] for name in (*spec.gates, *spec.states)}
        for l, d in self.parts:
            gates = self.scattered(self.buffer("gates", l, d), d)
            parts = {name: gates[..., g * Hp : g * Hp + H] for g, name in enumerate(spec.gates)}
            for name in spec.states:
                states = self.buffer(name, l, d)[self.plan.B :, : self.plan.width(name)]
                parts[name] = self.scattered(states, d)
            for name, value in parts.items():
                result[name].append(value)
        return result

    def scattered(self, packed: Array, d: int) -> Array:
        """A new (T, B, features) from packed rows of a direction, with zeros where there is no step."""
        out = np.empty((self.packing.T, self.packing.B, packed.shape[1]), packed.dtype)
        self.packing.scatter(packed, out, reverse=bool(d) or self.layer.reverse)
        return out

    def backward(self, dy: Batch, dstate: State | None, need_dx: bool) -> tuple[Array | None, State]:
        """Packed rows of dx, a view, and the gradients of the first states; adds to those of parameters."""
        from cylstm._engine import _rows

        buffers, D, P, order = self.buffers, self.plan.D, self.plan.P, self.packing.order
        states = self.layer.spec.states
        by_length: Any = slice(None) if order is None else order
        for s, name in enumerate(states):
            buffers[f"d{name}"][...] = 0
            if dstate is not None:
                buffers[f"d{name}"][..., : self.plan.width(name)] = dstate[s][:, by_length]
        both = buffers["dout" if D == 2 else "dy0"]
        given = None if D == 2 or self.plan.projects else self._as_it_is(dy)
        if given is None:
            dy.into(both, self.layer.reverse)
        for l in reversed(range(self.plan.L)):
            if D == 2:
                buffers["dy0"][...] = buffers["dout"][:, P:]
                np.take(buffers["dy0"], self.packing.there, axis=0, out=buffers["dy1"], mode="clip")
                buffers["dy0"][...] = buffers["dout"][:, :P]
            for d in range(D):
                self._go_back(l, d, need_dx or l > 0, given if l == self.plan.L - 1 else None)
            if D == 2 and l:
                np.take(self.input(l, 1), self.packing.back, axis=0, out=both, mode="clip")
                both += self.input(l, 0)
            if self.plan.input_dropout and l:
                _rows.mask_steps(both, self.packing.rows, buffers[f"mask_x{l}"])
            if self.plan.dropout and l:
                both *= buffers[f"mask{l - 1}"]
        firsts = {name: buffers[f"d{name}"][..., : self.plan.width(name)] for name in states}
        initial = tuple(np.empty_like(first) for first in firsts.values())
        for part, name in zip(initial, states, strict=True):
            part[:, by_length] = firsts[name]
        for (name, k), gradient in self.learned.items():
            gradient += firsts[name][k].sum(axis=0)
        return self._input_gradient() if need_dx else None, initial

    def _as_it_is(self, batch: Batch) -> Array | None:
        """A caller's rows where they stand, if the engine can read them there and only reads."""
        if self.layer.reverse or self.packed is None:
            return None
        return batch.as_it_is(self.layer.dtype)

    def _go_back(self, l: int, d: int, need_dx: bool, dy: Array | None) -> None:
        padded = self.packed is not None and self.layer.spec.own
        if padded:
            own = self._own_gradient(l, d).reshape(len(self.d_own), self.plan.H)
            self.d_own[:, : self.plan.H] = own
        self.passes[l, d].backward(need_dx, threads.get_num_threads(), dy)
        if padded:
            own[...] = self.d_own[:, : self.plan.H]

    def _input_gradient(self) -> Array:
        from cylstm._engine import _rows

        dx = self.buffer("x", 0, 0)
        if self.plan.D == 2:
            np.take(self.buffer("x", 0, 1), self.packing.back, axis=0, out=self.buffers["dx"], mode="clip")
            dx += self.buffers["dx"]
        if self.plan.input_dropout:
            _rows.mask_steps(dx, self.packing.rows, self.buffers["mask_x0"])
        if self.plan.reverse:
            np.take(dx, self.packing.back, axis=0, out=self.buffers["dx"], mode="clip")
            dx = self.buffers["dx"]
        return dx
