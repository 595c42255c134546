"""Forward and backward passes through a stack of recurrent layers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._engine import _packed, isa
from cylstm._system import threads
from cylstm.layers.masks import Masks
from cylstm.layers.parameters import ParameterStore
from cylstm.recurrent.connections import Connection, Entrance, Exit
from cylstm.recurrent.panels import PackedWeights, SharedWeights
from cylstm.recurrent.parameter_names import PYTORCH_KINDS, parameter_name
from cylstm.recurrent.spec import StackSpec
from cylstm.recurrent.stack_buffers import CarriedState, StackBuffers
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]
State = tuple[Array, ...]


class Workspace:
    """Buffers of one stack and its engine passes, planned again when the batch or the parameters move.

    Rows are packed (packing.py) in the order of direction 0; a second direction has copies in its own order.

    Parameters
    ----------
    store : ParameterStore
    masks : Masks
        Draws what dropout and zoneout need.
    shared : SharedWeights
        The packed weights of inference.
    training : bool
        Whether there is a backward pass.
    in_place : bool
        Whether the last state overwrites the first one.
    inspected : bool
        Whether this is for diagnostics: without masks, and with gradients apart from those of the store.
    """

    def __init__(
        self,
        store: ParameterStore,
        masks: Masks,
        shared: SharedWeights,
        training: bool,
        in_place: bool = False,
        inspected: bool = False,
    ) -> None:
        self.store, self.masks, self.shared = store, masks, shared
        self.training, self.in_place, self.inspected = training, in_place, inspected
        self.buffers = StackBuffers(training, inspected)
        self.arena = self.buffers.arena
        self.key: tuple[Any, ...] = ()
        self.passes: dict[tuple[int, int], Any] = {}
        self.packed: PackedWeights | None = None  # on the packed path
        self.states: list[list[CarriedState]] = []
        self.entrance: Any = None
        self.connections: list[Connection] = []
        self.exit: Any = None
        self.learns_states = parameter_name("h_0", 0, 0) in store.shapes
        self.learned: dict[tuple[str, int], Array] = {}  # gradients of learned initial states in use

    def prepare(self, packing: Packing, spec: StackSpec) -> None:
        """Plan for a batch, unless the plan of the last one applies."""
        self._pack_weights(spec)
        key = (packing, self.store.place, self.packed, spec)
        if self.key == key:
            return
        # Release the memory before more is asked for.
        self.key, self.passes, self.states = (), {}, []
        self.entrance, self.connections, self.exit = None, [], None
        self.buffers.release()
        self.packing, self.spec = packing, spec
        self.buffers.plan_for(spec, packing)
        plan = self.plan = self.buffers.plan
        self.d_own = np.zeros((spec.cell.planes, plan.Hp), spec.dtype)
        if self.training:  # in inspection the gradients are not the layer's
            self.grad = np.zeros_like(self.store.data) if self.inspected else self.store.grad
        self.parts = [(l, d) for l in range(plan.L) for d in range(plan.D)]
        clip = float("inf") if spec.clip is None else spec.clip
        for l, d in self.parts:
            arrays = self.buffers.engine_arrays(l, d) | self._weights(l, d)
            self.passes[l, d] = self._pass_type()(
                spec.cell.row, isa.selected(), packing.rows, plan.B, plan.inputs(l), plan.H, plan.P, arrays,
                clip=clip, zoneout_h=spec.zoneout, zoneout_c=spec.zoneout_cell,
            )  # fmt: skip
        self.states = [
            [self.buffers.carried(name, l, d, packing) for name in spec.cell.states] for l, d in self.parts
        ]
        self.entrance = Entrance(spec, packing, self.buffers, self.masks)
        self.connections = [Connection(spec, packing, self.buffers, self.masks, l) for l in range(plan.L - 1)]
        self.exit = Exit(spec, packing, self.buffers)
        self.key = key

    def _pack_weights(self, spec: StackSpec) -> None:
        """Current weights in panels; in training a separate copy, packed into the same arrays."""
        if isa.path() == "blas":
            threads.blas_libraries()
        elif not self.training:
            self.packed = self.shared.current(spec)
        elif self.packed is None:
            self.packed = PackedWeights(spec, self.store, training=True)
        else:
            self.packed.refresh()

    def _pass_type(self) -> Any:
        if self.packed is not None:
            return _packed.PackedPass
        from cylstm._engine import _layer_pass  # imports SciPy's BLAS

        return _layer_pass.LayerPass

    def _weights(self, l: int, d: int) -> dict[str, Array]:
        """Parameters, and in training their gradients, of one layer and direction."""
        spec, store = self.spec, self.store
        arrays = dict(spec.engine_parameters(store, l, d) if self.packed is None else self.packed.of[l, d])
        if not self.training:
            return arrays
        gradients = store.views(self.grad)
        for engine, kind in PYTORCH_KINDS.items():
            if (name := parameter_name(kind, l, d)) in gradients:
                arrays[f"d{engine}"] = gradients[name]
        if spec.cell.cell_parameters:
            padded = self.packed is not None
            arrays["d_own"] = self.d_own if padded else spec.cell_block(store, self.grad, l, d)
        return arrays

    def donate_output(self) -> bool:
        """Whether the rows of y that forward returned belong to the caller from now on."""
        if not self.buffers.donate_output():
            return False
        self.key = ()  # the next pass is planned again
        self.passes[self.plan.L - 1, 0].let_go_of_h()
        self.states = []
        return True

    def forward(self, batch: Batch, state: State | None) -> tuple[Array, State]:
        """Packed rows of y (N, D.P), a view, and the last states."""
        plan, spec, states = self.plan, self.spec, self.spec.cell.states
        by_length: Any = slice(None) if self.packing.order is None else self.packing.order
        if self.in_place and state is not None:
            final = state
        else:
            final = tuple(np.empty((len(self.parts), plan.B, plan.width(s)), spec.dtype) for s in states)
        self.learned = {}
        x = None if self.training or plan.D == 2 else self._readable_rows(batch)
        if x is None:
            self.entrance.up(batch)
        for l in range(plan.L):
            places = range(l * plan.D, (l + 1) * plan.D)
            for k in places:
                for s, one in enumerate(self.states[k]):
                    one.first[...] = self._initial(one.name, k) if state is None else state[s][k, by_length]
                    one.padding[...] = 0
                self._draw(*self.parts[k])
            self._forward_layer(l, x if l == 0 else None)
            for k in places:
                for s, one in enumerate(self.states[k]):
                    final[s][k, by_length] = one.rows[one.last]
            h = [self.buffers.hidden(l, d) for d in range(plan.D)]
            if l + 1 < plan.L:
                self.connections[l].up(h)
        return self.exit.up(h), final

    def _forward_layer(self, l: int, x: Array | None) -> None:
        """The engine's passes of a layer, in every direction."""
        n, passes = threads.get_num_threads(), [self.passes[l, d] for d in range(self.plan.D)]
        if len(passes) == 2 and self.packed is not None:
            _packed.forward_both(passes[0], passes[1], n)
            return
        for one in passes:
            one.forward(n, x)

    def _initial(self, state: str, k: int) -> Any:
        """The initial state of a layer and direction: zeros, or what it has learned."""
        if not self.learns_states:
            return 0
        name = parameter_name(f"{state}_0", *self.parts[k])
        if self.training and not self.inspected:
            self.learned[state, k] = self.store.gradients()[name]
        return self.store.parameters()[name]

    def _draw(self, l: int, d: int) -> None:
        """Draw masks of the recurrence, if there are any."""
        if self.plan.recurrent_dropout:
            self.masks.keep(self.buffers.of("mask_h", l, d), self.spec.recurrent_dropout)
        for state in self.plan.zoneout if self.plan.drawn else ():
            p = self.spec.zoneout if state == "h" else self.spec.zoneout_cell
            self.masks.below(self.buffers.of(f"zone_{state}", l, d), p)

    def stages(self, state: State) -> list[tuple[Any, ...]]:
        """The layers as `_engine._steps.Steps` takes them."""
        B, buffers, stages = self.plan.B, self.buffers, []
        for k, (l, d) in enumerate(self.parts):
            carried = [
                (state[s][k], buffers.of(one.name, l, d)[:B], buffers.of(one.name, l, d)[one.last])
                for s, one in enumerate(self.states[k])
            ]
            stages.append((self.passes[l, d], buffers.input(l, d), buffers.of("h", l, d)[B:], carried))
        return stages

    def traced(self) -> dict[str, list[Array]]:
        """Gates and states, (T, B, features) for each layer and direction."""
        H, Hp, cell = self.plan.H, self.plan.Hp, self.spec.cell
        result: dict[str, list[Array]] = {name: [] for name in (*cell.gates, *cell.states)}
        for l, d in self.parts:
            gates = self.scattered("gates", l, d)
            parts = {name: gates[..., g * Hp : g * Hp + H] for g, name in enumerate(cell.gates)}
            for name in cell.states:
                parts[name] = self.scattered(name, l, d)
            for name, value in parts.items():
                result[name].append(value)
        return result

    def scattered(self, kind: str, l: int, d: int) -> Array:
        """A new (T, B, features) of every step of a buffer; padding is 0."""
        rows = self.buffers.of(kind, l, d)
        if kind in self.spec.cell.states:
            rows = rows[self.plan.B :, : self.plan.width(kind)]
        out = np.empty((self.packing.T, self.packing.B, rows.shape[1]), rows.dtype)
        self.packing.scatter(rows, out, reverse=bool(d) or self.spec.reverse)
        return out

    def backward(self, dy: Batch, dstate: State | None, need_dx: bool) -> tuple[Array | None, State]:
        """Packed rows of dx, a view, and the gradients of the first states; adds to those of parameters."""
        buffers, plan, order, states = self.buffers, self.plan, self.packing.order, self.spec.cell.states
        by_length: Any = slice(None) if order is None else order
        for s, name in enumerate(states):
            buffers.arrays[f"d{name}"][...] = 0
            if dstate is not None:
                buffers.arrays[f"d{name}"][..., : plan.width(name)] = dstate[s][:, by_length]
        rows = None if plan.D == 2 or plan.projects else self._readable_rows(dy)
        if rows is None:
            self.exit.down(dy)
        for l in reversed(range(plan.L)):
            for d in range(plan.D):
                self._backward_pass(l, d, need_dx or l > 0, rows if l == plan.L - 1 else None)
            if l:
                self.connections[l - 1].down([buffers.input_gradient(l, d) for d in range(plan.D)])
        firsts = {name: buffers.arrays[f"d{name}"][..., : plan.width(name)] for name in states}
        initial = tuple(np.empty_like(first) for first in firsts.values())
        for part, name in zip(initial, states, strict=True):
            part[:, by_length] = firsts[name]
        for (name, k), gradient in self.learned.items():
            gradient += firsts[name][k].sum(axis=0)
        return self.entrance.down() if need_dx else None, initial

    def _readable_rows(self, batch: Batch) -> Array | None:
        """A caller's rows in their own memory, if the engine can read them there."""
        if self.spec.reverse or self.packed is None:
            return None
        return batch.rows_in_place(self.spec.dtype)

    def _backward_pass(self, l: int, d: int, need_dx: bool, dy: Array | None) -> None:
        padded = self.packed is not None and self.spec.cell.cell_parameters
        if padded:
            gradient = self.spec.cell_block(self.store, self.grad, l, d).reshape(len(self.d_own), self.plan.H)
            self.d_own[:, : self.plan.H] = gradient
        self.passes[l, d].backward(need_dx, threads.get_num_threads(), dy)
        if padded:
            gradient[...] = self.d_own[:, : self.plan.H]
