"""The memory of a stack's passes over one batch: planned sizes and arrays."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from cylstm._engine import _packed, isa
from cylstm._engine.planning import DIRECTION, SCRATCH, Arena, Plan
from cylstm.recurrent.spec import StackSpec
from cylstm.sequences.packing import Packing

Array = NDArray[Any]
# With at least this many checkpoint segments, and bytes of a state of all steps, training recomputes states
# in the backward pass: the memory saved is worth 1 to 4 % more time.
MIN_SEGMENTS, MIN_STATE_BYTES = 8, 8 << 20


class CarriedState(NamedTuple):
    """Views of one state of a layer and direction in its buffer."""

    name: str
    first: Array  # the initial state
    padding: Array  # the padding columns of the initial state
    rows: Array
    last: Any  # index of each sequence's final state in `rows`


class StackBuffers:
    """The buffers of a stack's passes, allocated from arenas that grow to the largest batch.

    Parameters
    ----------
    training, inspected : bool
        As in `Workspace`.
    """

    def __init__(self, training: bool, inspected: bool) -> None:
        self.training, self.inspected = training, inspected
        self.arena = Arena()
        self.donated = Arena()  # for hidden states that may be donated to the caller
        self.arrays: dict[str, Array] = {}

    def release(self) -> None:
        """Drop the arrays, before more memory is allocated."""
        self.arrays = {}

    def plan_for(self, spec: StackSpec, packing: Packing) -> None:
        """Allocate the arrays for passes over batches with this packing."""
        self.plan = plan_of(spec, packing, self.training, self.inspected)
        shapes = self.plan.shapes()
        donated = {name: shapes.pop(name) for name in self._donated_names()}
        self.arrays = self.arena.cut(shapes, spec.dtype) | self.donated.cut(donated, spec.dtype)
        self.arrays["no_bias"][...] = 0

    def _donated_names(self) -> list[str]:
        return [self.plan.name("h", self.plan.L - 1, 0)] if self.plan.donates_output else []

    def donate_output(self) -> bool:
        """Transfer ownership of the top layer's hidden states to the caller, if possible.

        Return whether it was transferred; if so, the next pass needs a new plan.
        """
        # In a mostly unused arena, they would retain the memory of a larger batch.
        if not self.plan.donates_output or self.donated.used < 0.8:
            return False
        del self.arrays[self._donated_names()[0]]
        self.donated = Arena()
        return True

    def of(self, kind: str, l: int, d: int) -> Array:
        """Return a buffer of one layer and direction."""
        return self.arrays[self.plan.name(kind, l, d)]

    def hidden(self, l: int, d: int) -> Array:
        """Return the hidden states of all packed steps, without the initial one."""
        return self.of("h", l, d)[self.plan.B :, : self.plan.P]

    def input(self, l: int, d: int) -> Array:
        """Return the input of a layer: where possible, the hidden states of the layer below, in place."""
        return self.of("x", l, d) if self.plan.has_input(l) else self.hidden(l - 1, 0)

    def input_gradient(self, l: int, d: int) -> Array:
        """Return the buffer of dL/dx, which is that of x, or that of dL/dy if the sizes are equal."""
        return self.arrays["dy0"] if l and self.plan.D == 1 else self.input(l, d)

    def carried(self, name: str, l: int, d: int, packing: Packing) -> CarriedState:
        """Return views of a state of one layer and direction."""
        buffer, width = self.of(name, l, d), self.plan.width(name)
        last: Any = packing.last_alternating if name == "c" and self.plan.alternates else packing.last
        if packing.order is None and packing.B:  # consecutive rows
            last = slice(int(last[0]), int(last[0]) + packing.B)
        first = buffer[: packing.B]
        return CarriedState(name, first[:, :width], first[:, width:], buffer[:, :width], last)

    def engine_arrays(self, l: int, d: int) -> dict[str, Array]:
        """Return the buffers of one layer and direction by the engine's names."""
        plan = self.plan
        arrays = {kind: self.of(kind, l, d) for kind in plan.buffers(DIRECTION, l)} | {"x": self.input(l, d)}
        arrays |= {"b_ih": self.arrays["no_bias"], "b_hh": self.arrays["no_bias"]}
        if self.training:
            arrays |= {name: self.arrays[name] for name in plan.buffers(SCRATCH)}
            states = {f"d{state}": self.arrays[f"d{state}"][l * plan.D + d] for state in ("h", "c")[: plan.S]}
            arrays |= states | {"dy": self.arrays[f"dy{d}"], "dx": self.input_gradient(l, d)}
        return arrays


def plan_of(spec: StackSpec, packing: Packing, training: bool, inspected: bool) -> Plan:
    """Plan passes over batches with this packing."""
    drawn = training and not inspected
    zoneout = {"h": spec.zoneout, "c": spec.zoneout_cell}
    return Plan(
        N=packing.N, B=packing.B, I=spec.input_size, H=spec.hidden_size, P=spec.state_size,
        L=spec.num_layers, D=spec.num_directions,
        G=len(spec.cell.gates), S=len(spec.cell.states), E=spec.cell.extra,
        training=training, reverse=spec.reverse, projects=spec.projects,
        dropout=drawn and spec.dropout > 0 and spec.num_layers > 1,
        input_dropout=drawn and spec.input_dropout > 0,
        recurrent_dropout=drawn and spec.recurrent_dropout > 0,
        zoneout=tuple(state for state, p in zoneout.items() if p > 0), drawn=drawn,
        inspected=inspected, **_packed_path(spec), **_segments(spec, packing, drawn),
    )  # fmt: skip


def _packed_path(spec: StackSpec) -> dict[str, int]:
    """Return the padding and scratch sizes of the packed path."""
    if isa.path() != "packed":
        return {}
    strips = _packed.strips(spec.cell.row, isa.selected(), spec.hidden_size, spec.state_size)
    return {"unit": isa.unit(spec.dtype.itemsize), "min_gate_rows": _packed.AHEAD, "strips": strips}


def _segments(spec: StackSpec, packing: Packing, drawn: bool) -> dict[str, int]:
    """Choose checkpoint segments for long sequences, if the cell's states are recomputable."""
    is_modified = spec.projects or spec.zoneout or spec.zoneout_cell  # after the cell's own equations
    if isa.path() != "packed" or not spec.cell.recomputable or is_modified or not drawn:
        return {}
    segments = -(-len(packing.rows) // _packed.SPAN)
    size = packing.N * spec.hidden_size * spec.dtype.itemsize
    is_long = segments >= MIN_SEGMENTS and size >= MIN_STATE_BYTES
    return {"segments": segments, "segment_steps": _packed.SPAN} if is_long else {}
