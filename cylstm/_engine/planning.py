"""The buffers of a recurrent stack, one table; and the memory that they are cut from.

A new buffer is a row of `BUFFERS` here, and a member of the engine's struct.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Shape = tuple[int, ...]
ALIGNMENT = 128  # bytes: two cache lines, which processors fetch together


def padded(n: int, unit: int) -> int:
    """The least multiple of `unit` that is not below n."""
    return -(-n // unit) * unit


class Plan(NamedTuple):
    """Sizes of a forward (and backward) pass of L stacked layers of one cell.

    Parameters
    ----------
    N, B, I, H, P, L, D : int
        Valid steps of all sequences, sequences, input size, units, width of h, layers, directions.
    G, S, E : int
        Gates, states and extra planes of the cell.
    training : bool
        Whether everything that the backward pass reads is saved.
    reverse : bool
        Whether the layers read in another order than the one in which rows come and go.
    projects : bool
        Whether h is a projection of the cell's output.
    dropout, input_dropout, recurrent_dropout : bool
        Whether there are masks: of every output between layers, of an input, of the recurrent h.
    zoneout : tuple of str
        States that keep some of their units.
    drawn : bool
        Whether masks say which; else each keeps a fraction of its value.
    inspected : bool
        Whether the backward pass also saves dL/dh_t of every step.
    unit : int
        Units are padded to a multiple of it, a panel on the packed path; 1 on the BLAS path.
    ahead : int
        Rows of gates in inference on the packed path, if B is not more.
    strips : int
        Numbers of the packed path's scratch for gradients.
    segments, segment_steps : int
        Checkpoint segments, and steps of each: c is saved once for each, and the backward pass recomputes the
        states; 0: all states are saved.
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
    ahead: int = 0
    strips: int = 0
    segments: int = 0
    segment_steps: int = 0

    def padded(self, n: int) -> int:
        """The width of n units in the buffers."""
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
        """Rows of gates: of all steps, or of a few in inference on the packed path."""
        return self.N if self.training or not self.ahead else max(self.B, self.ahead)

    @property
    def gap(self) -> int:
        """Numbers between rows of gates, so that a column's elements do not all share a cache set."""
        return 32 if self.unit > 1 else 0

    @property
    def saved_rows(self) -> int:
        """Rows of what only the backward pass reads after its step."""
        return self.N if self.training else self.B

    @property
    def reorders(self) -> bool:
        """Whether rows come and go in another order than the one in which some direction reads them."""
        return self.D == 2 or self.reverse

    def inputs(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.D * self.P if layer else self.I

    def width(self, state: str) -> int:
        """Features of a state."""
        return self.P if state == "h" else self.H

    def has_input(self, layer: int) -> bool:
        """Whether a layer has an input buffer, rather than reading the states of the layer below in place."""
        return layer == 0 or self.D == 2 or self.dropout or self.input_dropout or self.Pp > self.P

    @property
    def donates_output(self) -> bool:
        """Whether only the caller needs the top layer's hidden sequence, in its present order and layout."""
        return self.segments > 0 and not self.reorders and self.Pp == self.P

    @property
    def alternates(self) -> bool:
        """Whether c of this step and of the one before take turns in one buffer."""
        return self.segments > 0 or not self.training

    @property
    def c_rows(self) -> int:
        """Rows of c: those of two steps, or of all steps and the initial one."""
        return 2 * self.B if self.alternates else self.B + self.N

    def buffers(self, scope: str, layer: int = 0) -> dict[str, Shape]:
        """Names and shapes of the table's buffers of one scope (and layer) that this pass needs."""
        return {
            row.name: row.shape(self, layer)
            for row in BUFFERS
            if row.scope == scope and row.needed(self, layer)
        }

    def shapes(self) -> dict[str, Shape]:
        """Every buffer by name; `gates1_0` is that of layer 1, direction 0.

        In training, each layer and direction has its own buffers, saved from forward to backward. In
        inference layers share them, and hidden sequences take turns.
        """
        shapes: dict[str, Shape] = {}
        for layer in range(self.L):
            for d in range(self.D):
                of_direction = self.buffers(DIRECTION, layer)
                shapes |= {self.name(kind, layer, d): shape for kind, shape in of_direction.items()}
            shapes |= {f"{name}{layer}": shape for name, shape in self.buffers(LAYER, layer).items()}
        return shapes | self.buffers(STACK) | (self.buffers(SCRATCH) if self.training else {})

    def name(self, kind: str, layer: int, d: int) -> str:
        """A buffer's name: of its own in training, shared where inference allows."""
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
        DIRECTION: one for each layer and direction, which the engine has by this name. LAYER: one for each
        layer. STACK: one. SCRATCH: one, in training, which the engine has by this name in every pass.
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
    Buffer("gates", DIRECTION, lambda p, _: (p.gate_rows, p.G * p.Hp + p.gap)),
    Buffer("h", DIRECTION, lambda p, _: (p.B + p.N, p.Pp)),
    Buffer("c", DIRECTION, lambda p, _: (p.c_rows, p.Hp), lambda p, _: p.S == 2),
    Buffer("h_kept", DIRECTION, lambda p, _: (p.B, p.Hp), lambda p, _: p.segments > 0),
    Buffer("c_kept", DIRECTION, lambda p, _: (p.segments * p.B, p.Hp), lambda p, _: p.segments > 0),
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
    Buffer("h_again", SCRATCH, lambda p, _: (2 * p.segment_steps * p.B, p.Hp), lambda p, _: p.segments > 0),
    Buffer("c_again", SCRATCH, lambda p, _: (2 * p.segment_steps * p.B, p.Hp), lambda p, _: p.segments > 0),
    Buffer("dh_kept", SCRATCH, lambda p, _: (p.B, p.P), lambda p, _: "h" in p.zoneout),
    Buffer("dc_kept", SCRATCH, lambda p, _: (p.B, p.H), lambda p, _: "c" in p.zoneout),
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
        self.used = 0.0  # fraction of the block that the last cut took

    def cut(self, shapes: Mapping[str, Shape], dtype: DTypeLike) -> dict[str, NDArray[np.floating]]:
        """Arrays of these shapes, uninitialised, aligned, and not overlapping.

        The arrays of an earlier cut share the memory, so they must not be used any more.
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
            # At least a quarter more, for batches that keep growing; the old block goes first.
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
    """The error of buffers that do not fit into memory."""
    return MemoryError(
        f"cannot allocate {size / 2**30:.1f} GiB of buffers: use shorter sequences, smaller batches "
        "or fewer units"
    )


def aligned_bytes(size: int, zeroed: bool = False) -> NDArray[np.uint8]:
    """Memory that starts on a cache line, uninitialised or zeros; zeros take none until they are touched."""
    try:
        raw = (np.zeros if zeroed else np.empty)(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError, OverflowError) as error:
        raise too_large(size) from error
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
