"""The table of buffers of a recurrent stack, and the arena that they are allocated from.

A new buffer needs a row in `BUFFERS` and a member in the engine's struct.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Shape = tuple[int, ...]
ALIGNMENT = 128  # bytes: two cache lines, which processors prefetch together


def padded(n: int, unit: int) -> int:
    """Round n up to a multiple of `unit`."""
    return -(-n // unit) * unit


class Plan(NamedTuple):
    """Sizes of a forward (and backward) pass of L stacked layers of one cell.

    Parameters
    ----------
    N, B, I, H, P, L, D : int
        Valid steps of all sequences, sequences, input size, units, features of h, layers, directions.
    G, S, E : int
        Gates, states and extra planes of the cell.
    training : bool
        Whether the forward pass saves what the backward pass reads.
    reverse : bool
        Whether the layers read sequences in reverse.
    projects : bool
        Whether h is a projection of the cell's output.
    dropout, input_dropout, recurrent_dropout : bool
        Whether there are masks for outputs between layers, for inputs, and for the recurrent h.
    zoneout : tuple of str
        States with zoneout.
    drawn : bool
        Whether zoneout draws masks; otherwise it computes the expected value.
    inspected : bool
        Whether the backward pass saves dL/dh_t of every step.
    unit : int
        Numbers of units are padded to a multiple of this: the panel width on the packed path, 1 on the BLAS
        path.
    min_gate_rows : int
        Minimum rows of gates in inference; 0 if the gates of all steps are stored, as on the BLAS path.
    strips : int
        Size of the packed path's scratch buffer for gradients.
    segments, segment_steps : int
        Number of checkpoint segments and steps per segment: c is saved once per segment, and the backward
        pass recomputes the other states. 0 if all states are saved.
    """

    N: int
    B: int
    I: int
    H: int
    P: int
    L: int
    D: int
    G: int
    S: int
    E: int = 0
    training: bool = False
    reverse: bool = False
    projects: bool = False
    dropout: bool = False
    input_dropout: bool = False
    recurrent_dropout: bool = False
    zoneout: tuple[str, ...] = ()
    drawn: bool = False
    inspected: bool = False
    unit: int = 1
    min_gate_rows: int = 0
    strips: int = 0
    segments: int = 0
    segment_steps: int = 0

    def padded(self, n: int) -> int:
        """Padded width of n units."""
        return padded(n, self.unit)

    @property
    def Hp(self) -> int:
        """H, padded."""
        return self.padded(self.H)

    @property
    def Pp(self) -> int:
        """P, padded."""
        return self.padded(self.P)

    @property
    def gate_rows(self) -> int:
        """Rows of gates: all steps, or a few in inference on the packed path."""
        return self.N if self.training or not self.min_gate_rows else max(self.B, self.min_gate_rows)

    @property
    def gate_padding(self) -> int:
        """Padding of rows of gates, so that the elements of a column are in different cache sets."""
        return 32 if self.unit > 1 else 0

    @property
    def saved_rows(self) -> int:
        """Rows of buffers that after their step only the backward pass reads."""
        return self.N if self.training else self.B

    @property
    def reorders(self) -> bool:
        """Whether some direction reads rows in another order than the caller's."""
        return self.D == 2 or self.reverse

    def inputs(self, layer: int) -> int:
        """Number of input features of a layer."""
        return self.D * self.P if layer else self.I

    def width(self, state: str) -> int:
        """Number of features of a state."""
        return self.P if state == "h" else self.H

    def has_input(self, layer: int) -> bool:
        """Whether a layer has an input buffer; others read the states of the layer below in place."""
        return layer == 0 or self.D == 2 or self.dropout or self.input_dropout or self.Pp > self.P

    @property
    def donates_output(self) -> bool:
        """Whether the top layer's hidden states can be donated: only the caller reads them, as they are."""
        return self.segments > 0 and not self.reorders and self.Pp == self.P

    @property
    def alternates(self) -> bool:
        """Whether c alternates between two blocks of rows, the present and the previous step."""
        return self.segments > 0 or not self.training

    @property
    def c_rows(self) -> int:
        """Rows of c: those of two steps, or of all steps and the initial one."""
        return 2 * self.B if self.alternates else self.B + self.N

    def buffers(self, scope: str, layer: int = 0) -> dict[str, Shape]:
        """Names and shapes of the buffers of one scope (and layer) that this pass needs."""
        return {
            row.name: row.shape(self, layer)
            for row in BUFFERS
            if row.scope == scope and row.needed(self, layer)
        }

    def shapes(self) -> dict[str, Shape]:
        """Names and shapes of all buffers; `gates1_0` belongs to layer 1, direction 0.

        In training, each layer and direction has separate buffers, which the backward pass reads. In
        inference, layers share them, and hidden sequences alternate between two.
        """
        shapes: dict[str, Shape] = {}
        for layer in range(self.L):
            for d in range(self.D):
                of_direction = self.buffers(DIRECTION, layer)
                shapes |= {self.name(kind, layer, d): shape for kind, shape in of_direction.items()}
            shapes |= {f"{name}{layer}": shape for name, shape in self.buffers(LAYER, layer).items()}
        return shapes | self.buffers(STACK) | (self.buffers(SCRATCH) if self.training else {})

    def name(self, kind: str, layer: int, d: int) -> str:
        """Name of the buffer of a layer and direction; in inference, layers share buffers."""
        if not self.training:
            shared = {"h": (layer % 2, d), "x": (min(layer, 1), d)}
            layer, d = shared.get(kind, (0, d))
        return f"{kind}{layer}_{d}"


class Buffer(NamedTuple):
    """A row of the table of buffers.

    Parameters
    ----------
    name : str
    scope : str
        DIRECTION: one for each layer and direction. LAYER: one for each layer. STACK: one. SCRATCH: one, in
        training, shared by all passes. The engine uses the names of scopes DIRECTION and SCRATCH.
    shape : function of (Plan, layer)
    needed : function of (Plan, layer)
        Whether a pass has this buffer.
    """

    name: str
    scope: str
    shape: Callable[[Plan, int], Shape]
    needed: Callable[[Plan, int], bool] = lambda p, layer: True


DIRECTION, LAYER, STACK, SCRATCH = "direction", "layer", "stack", "scratch"
BUFFERS = (
    Buffer("gates", DIRECTION, lambda p, _: (p.gate_rows, p.G * p.Hp + p.gate_padding)),
    Buffer("h", DIRECTION, lambda p, _: (p.B + p.N, p.Pp)),
    Buffer("c", DIRECTION, lambda p, _: (p.c_rows, p.Hp), lambda p, _: p.S == 2),
    Buffer("h_checkpoint", DIRECTION, lambda p, _: (p.B, p.Hp), lambda p, _: p.segments > 0),
    Buffer("c_checkpoints", DIRECTION, lambda p, _: (p.segments * p.B, p.Hp), lambda p, _: p.segments > 0),
    Buffer("extra", DIRECTION, lambda p, _: (p.saved_rows, p.E * p.Hp), lambda p, _: p.E > 0),
    Buffer("m", DIRECTION, lambda p, _: (p.saved_rows, p.Hp), lambda p, _: p.projects),
    Buffer("mask_h", DIRECTION, lambda p, _: (p.B, p.P), lambda p, _: p.recurrent_dropout),
    Buffer("h_masked", DIRECTION, lambda p, _: (p.N, p.Pp), lambda p, _: p.recurrent_dropout),
    Buffer("zone_h", DIRECTION, lambda p, _: (p.N, p.P), lambda p, _: p.drawn and "h" in p.zoneout),
    Buffer("zone_c", DIRECTION, lambda p, _: (p.N, p.H), lambda p, _: p.drawn and "c" in p.zoneout),
    Buffer("dh_steps", DIRECTION, lambda p, _: (p.N, p.P), lambda p, _: p.inspected),
    Buffer("x", DIRECTION, lambda p, layer: (p.N, p.inputs(layer)), lambda p, layer: p.has_input(layer)),
    Buffer("mask_x", LAYER, lambda p, layer: (p.B, p.inputs(layer)), lambda p, _: p.input_dropout),
    Buffer("mask", LAYER, lambda p, _: (p.N, p.D * p.P), lambda p, layer: p.dropout and layer + 1 < p.L),
    Buffer("no_bias", STACK, lambda p, _: (p.G * p.H,)),
    Buffer("out", STACK, lambda p, _: (p.N, p.D * p.P), lambda p, _: p.reorders),
    Buffer("dh", STACK, lambda p, _: (p.L * p.D, p.B, p.Pp), lambda p, _: p.training),
    Buffer("dc", STACK, lambda p, _: (p.L * p.D, p.B, p.Hp), lambda p, _: p.training and p.S == 2),
    Buffer("dy0", STACK, lambda p, _: (p.N, p.P), lambda p, _: p.training),
    Buffer("dy1", STACK, lambda p, _: (p.N, p.P), lambda p, _: p.training and p.D == 2),
    Buffer("dout", STACK, lambda p, _: (p.N, 2 * p.P), lambda p, _: p.training and p.D == 2),
    Buffer("dx", STACK, lambda p, _: (p.N, p.I), lambda p, _: p.training and p.reorders),
    Buffer("strips", SCRATCH, lambda p, _: (p.strips,), lambda p, _: p.unit > 1),
    Buffer("sums", SCRATCH, lambda p, _: (p.G * p.H,), lambda p, _: p.unit == 1),
    Buffer(
        "h_recomputed", SCRATCH, lambda p, _: (2 * p.segment_steps * p.B, p.Hp), lambda p, _: p.segments > 0
    ),
    Buffer(
        "c_recomputed", SCRATCH, lambda p, _: (2 * p.segment_steps * p.B, p.Hp), lambda p, _: p.segments > 0
    ),
    Buffer("dh_retained", SCRATCH, lambda p, _: (p.B, p.P), lambda p, _: "h" in p.zoneout),
    Buffer("dc_retained", SCRATCH, lambda p, _: (p.B, p.H), lambda p, _: "c" in p.zoneout),
    Buffer("dextra", SCRATCH, lambda p, _: (p.B, p.Hp), lambda p, _: p.E > 0),
    Buffer("dm", SCRATCH, lambda p, _: (p.B, p.Hp), lambda p, _: p.projects),
    Buffer("dh_masked", SCRATCH, lambda p, _: (p.B, p.Pp), lambda p, _: p.recurrent_dropout),
)


class Arena:
    """One block of memory that grows to the largest request and is cut into arrays for each.

    >>> arena = Arena()
    >>> views = arena.cut({"a": (2, 3), "b": (4,)}, "float32")
    >>> views["a"].shape, views["b"].shape, arena.allocations
    ((2, 3), (4,), 1)
    >>> views = arena.cut({"a": (1, 1)}, "float64")
    >>> arena.allocations
    1
    """

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self.allocations = 0
        self.used = 0.0  # fraction of the block in use by the last `cut`

    def cut(self, shapes: Mapping[str, Shape], dtype: DTypeLike) -> dict[str, NDArray[np.floating]]:
        """Return uninitialised, aligned, disjoint arrays of these shapes.

        They reuse the memory of earlier arrays, which must not be used any more.
        """
        dtype = np.dtype(dtype)
        offsets, end = {}, 0
        for name, shape in shapes.items():
            offsets[name] = end
            size = dtype.itemsize
            for n in shape:
                size *= n
            end += padded(size, ALIGNMENT)
        if end > self._block.nbytes:
            # Grow by at least a quarter, for batches that keep growing; release the old block first.
            size = max(end, self._block.nbytes * 5 // 4)
            self._block = np.empty(0, np.uint8)
            self._block = aligned_bytes(size)
            self.allocations += 1
        self.used = end / max(1, self._block.nbytes)
        return {
            name: np.ndarray(shape, dtype, buffer=self._block, offset=offsets[name])
            for name, shape in shapes.items()
        }


def too_large(size: int) -> MemoryError:
    """Return the error for buffers that do not fit into memory."""
    return MemoryError(
        f"cannot allocate {size / 2**30:.1f} GiB of buffers: use shorter sequences, smaller batches "
        "or fewer units"
    )


def aligned_bytes(size: int, zeroed: bool = False) -> NDArray[np.uint8]:
    """Allocate cache-line-aligned memory, uninitialised or zeroed (then in use only where written)."""
    try:
        raw = (np.zeros if zeroed else np.empty)(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError, OverflowError) as error:
        raise too_large(size) from error
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
