"""Forward and backward passes through a stack of recurrent layers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._engine import _packed, isa
from cylstm._system import threads
from cylstm.layers.masks import Masks
from cylstm.layers.parameters import ParameterStore
from cylstm.recurrent.connections import HiddenConnection, InputConnection, OutputConnection
from cylstm.recurrent.panels import PackedWeights, SharedWeights
from cylstm.recurrent.parameter_names import PYTORCH_KINDS, parameter_name
from cylstm.recurrent.spec import StackSpec
from cylstm.recurrent.stack_buffers import CarriedState, StackBuffers
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]
State = tuple[Array, ...]


class Workspace:
    """Buffers and engine passes of one stack, replanned if the batch changes or the parameters move.

    Rows are packed (packing.py) in the order of direction 0; direction 1 has copies in reverse order.

    Parameters
    ----------
    store : ParameterStore
    masks : Masks
        Generator of the dropout and zoneout masks.
    shared : SharedWeights
        The packed weights for inference.
    training : bool
        Whether there is a backward pass.
    in_place : bool
        Whether the final state overwrites the initial one.
    inspected : bool
        Whether this is for diagnostics: without masks, and with gradients separate from the layer's.
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
        self.input_connection: Any = None
        self.connections: list[HiddenConnection] = []
        self.output_connection: Any = None
        self.has_learned_states = parameter_name("h_0", 0, 0) in store.shapes
        self.learned_gradients: dict[tuple[str, int], Array] = {}  # of the learned initial states in use

    def prepare(self, packing: Packing, spec: StackSpec) -> None:
        """Plan passes over a batch, unless the present plan applies."""
        self._pack_weights(spec)
        key = (packing, self.store.place, self.packed, spec)
        if self.key == key:
            return
        # Release the memory before more is allocated.
        self.key, self.passes, self.states = (), {}, []
        self.input_connection, self.connections, self.output_connection = None, [], None
        self.buffers.release()
        self.packing, self.spec = packing, spec
        self.buffers.plan_for(spec, packing)
        plan = self.plan = self.buffers.plan
        self.cell_gradient = np.zeros((spec.cell.planes, plan.Hp), spec.dtype)
        if self.training:  # in inspection, separate from the layer's gradients
            self.grad = np.zeros_like(self.store.data) if self.inspected else self.store.grad
        self.directions = [(l, d) for l in range(plan.L) for d in range(plan.D)]
        clip = float("inf") if spec.clip is None else spec.clip
        for l, d in self.directions:
            arrays = self.buffers.engine_arrays(l, d) | self._weights(l, d)
            self.passes[l, d] = self._pass_type()(
                spec.cell.row, isa.selected(), packing.rows, plan.B, plan.inputs(l), plan.H, plan.P, arrays,
                clip=clip, zoneout_h=spec.zoneout, zoneout_c=spec.zoneout_cell,
            )  # fmt: skip
        self.states = [
            [self.buffers.carried(name, l, d, packing) for name in spec.cell.states]
            for l, d in self.directions
        ]
        self.input_connection = InputConnection(spec, packing, self.buffers, self.masks)
        self.connections = [
            HiddenConnection(spec, packing, self.buffers, self.masks, l) for l in range(plan.L - 1)
        ]
        self.output_connection = OutputConnection(spec, packing, self.buffers)
        self.key = key

    def _pack_weights(self, spec: StackSpec) -> None:
        """Pack the current weights into panels; in training, into a separate copy."""
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
        """Return the parameters, and in training their gradients, of one layer and direction."""
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
            arrays["d_cell_parameters"] = (
                self.cell_gradient if padded else spec.cell_block(store, self.grad, l, d)
            )
        return arrays

    def donate_output(self) -> bool:
        """Transfer ownership of the rows of y to the caller, if possible; return whether it was."""
        if not self.buffers.donate_output():
            return False
        self.key = ()  # replan the next pass
        self.passes[self.plan.L - 1, 0].donate_h()
        self.states = []
        return True

    def forward(self, batch: Batch, state: State | None) -> tuple[Array, State]:
        """Return the packed rows of y, (N, D.P), a view, and the final states."""
        plan, spec, states = self.plan, self.spec, self.spec.cell.states
        order: Any = slice(None) if self.packing.order is None else self.packing.order
        if self.in_place and state is not None:
            final = state
        else:
            final = tuple(np.empty((len(self.directions), plan.B, plan.width(s)), spec.dtype) for s in states)
        self.learned_gradients = {}
        x = None if self.training or plan.D == 2 else self._readable_rows(batch)
        if x is None:
            self.input_connection.forward(batch)
        for l in range(plan.L):
            indices = range(l * plan.D, (l + 1) * plan.D)
            for k in indices:
                for s, carried in enumerate(self.states[k]):
                    first = self._initial(carried.name, k) if state is None else state[s][k, order]
                    carried.first[...] = first
                    carried.padding[...] = 0
                self._draw_masks(*self.directions[k])
            self._forward_layer(l, x if l == 0 else None)
            for k in indices:
                for s, carried in enumerate(self.states[k]):
                    final[s][k, order] = carried.rows[carried.last]
            h = [self.buffers.hidden(l, d) for d in range(plan.D)]
            if l + 1 < plan.L:
                self.connections[l].forward(h)
        return self.output_connection.forward(h), final

    def _forward_layer(self, l: int, x: Array | None) -> None:
        """Run the engine's forward passes of a layer, in each direction."""
        n, passes = threads.get_num_threads(), [self.passes[l, d] for d in range(self.plan.D)]
        if len(passes) == 2 and self.packed is not None:
            _packed.forward_both(passes[0], passes[1], n)
            return
        for engine_pass in passes:
            engine_pass.forward(n, x)

    def _initial(self, state: str, k: int) -> Any:
        """Return the initial state of a layer and direction: zeros or learned."""
        if not self.has_learned_states:
            return 0
        name = parameter_name(f"{state}_0", *self.directions[k])
        if self.training and not self.inspected:
            self.learned_gradients[state, k] = self.store.gradients()[name]
        return self.store.parameters()[name]

    def _draw_masks(self, l: int, d: int) -> None:
        """Draw the masks of recurrent dropout and zoneout."""
        if self.plan.recurrent_dropout:
            self.masks.draw_dropout(self.buffers.of("mask_h", l, d), self.spec.recurrent_dropout)
        for state in self.plan.zoneout if self.plan.drawn else ():
            p = self.spec.zoneout if state == "h" else self.spec.zoneout_cell
            self.masks.draw_bernoulli(self.buffers.of(f"zone_{state}", l, d), p)

    def stages(self, state: State) -> list[tuple[Any, ...]]:
        """Return the stages of one step for `_engine._steps.Steps`."""
        B, buffers, stages = self.plan.B, self.buffers, []
        for k, (l, d) in enumerate(self.directions):
            state_rows = []
            for s, carried in enumerate(self.states[k]):
                rows = buffers.of(carried.name, l, d)
                state_rows.append((state[s][k], rows[:B], rows[carried.last]))
            stages.append((self.passes[l, d], buffers.input(l, d), buffers.of("h", l, d)[B:], state_rows))
        return stages

    def collect_trace(self) -> dict[str, list[Array]]:
        """Return gates and states, (T, B, features) for each layer and direction."""
        H, Hp, cell = self.plan.H, self.plan.Hp, self.spec.cell
        result: dict[str, list[Array]] = {name: [] for name in (*cell.gates, *cell.states)}
        for l, d in self.directions:
            gates = self.scatter_steps("gates", l, d)
            parts = {name: gates[..., g * Hp : g * Hp + H] for g, name in enumerate(cell.gates)}
            for name in cell.states:
                parts[name] = self.scatter_steps(name, l, d)
            for name, value in parts.items():
                result[name].append(value)
        return result

    def scatter_steps(self, kind: str, l: int, d: int) -> Array:
        """Return every step of a buffer as a new array (T, B, features), with zeros as padding."""
        rows = self.buffers.of(kind, l, d)
        if kind in self.spec.cell.states:
            rows = rows[self.plan.B :, : self.plan.width(kind)]
        out = np.empty((self.packing.T, self.packing.B, rows.shape[1]), rows.dtype)
        self.packing.scatter(rows, out, reverse=bool(d) or self.spec.reverse)
        return out

    def backward(self, dy: Batch, dstate: State | None, need_dx: bool) -> tuple[Array | None, State]:
        """Return packed rows of dx, a view, and the gradients of the initial states; add to `gradients`."""
        buffers, plan, states = self.buffers, self.plan, self.spec.cell.states
        order: Any = slice(None) if self.packing.order is None else self.packing.order
        for s, name in enumerate(states):
            buffers.arrays[f"d{name}"][...] = 0
            if dstate is not None:
                buffers.arrays[f"d{name}"][..., : plan.width(name)] = dstate[s][:, order]
        rows = None if plan.D == 2 or plan.projects else self._readable_rows(dy)
        if rows is None:
            self.output_connection.backward(dy)
        for l in reversed(range(plan.L)):
            for d in range(plan.D):
                self._backward_pass(l, d, need_dx or l > 0, rows if l == plan.L - 1 else None)
            if l:
                self.connections[l - 1].backward([buffers.input_gradient(l, d) for d in range(plan.D)])
        initial_gradients = {name: buffers.arrays[f"d{name}"][..., : plan.width(name)] for name in states}
        initial = tuple(np.empty_like(gradient) for gradient in initial_gradients.values())
        for part, name in zip(initial, states, strict=True):
            part[:, order] = initial_gradients[name]
        for (name, k), gradient in self.learned_gradients.items():
            gradient += initial_gradients[name][k].sum(axis=0)
        return self.input_connection.backward() if need_dx else None, initial

    def _readable_rows(self, batch: Batch) -> Array | None:
        """Return the caller's rows without a copy, if the engine can read them in place."""
        if self.spec.reverse or self.packed is None:
            return None
        return batch.rows_in_place(self.spec.dtype)

    def _backward_pass(self, l: int, d: int, need_dx: bool, dy: Array | None) -> None:
        padded = self.packed is not None and self.spec.cell.cell_parameters
        if padded:
            gradient = self.spec.cell_block(self.store, self.grad, l, d).reshape(-1, self.plan.H)
            self.cell_gradient[:, : self.plan.H] = gradient
        self.passes[l, d].backward(need_dx, threads.get_num_threads(), dy)
        if padded:
            gradient[...] = self.cell_gradient[:, : self.plan.H]
