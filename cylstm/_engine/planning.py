"""Buffers planned once: sizes of a recurrent stack, and the memory that they are cut from."""

from collections.abc import Mapping
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
        Real steps of all sequences, sequences, input size, units, width of h, layers, directions.
    G, S, E : int
        Gates, states and extra planes of the cell.
    training : bool
        Whether everything that the backward pass reads is kept.
    reverse : bool
        Whether the layers read in another order than the one in which rows come and go.
    projects : bool
        Whether h is a projection of the cell's output.
    dropout, input_dropout, recurrent_dropout : bool
        Whether there are masks: of every output between layers, of an input, of the recurrent h.
    zoneout : tuple of str
        States that keep some of their units.
    drawn : bool
        Whether masks say which; else they keep a share of each.
    inspected : bool
        Whether the backward pass also keeps dL/dh_t of every step.
    unit : int
        Units are padded to a multiple of it, a panel on the packed path; 1 on the BLAS path.
    ahead : int
        Rows of gates that inference on the packed path keeps, if B is not more.
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

    def inputs(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.D * self.P if layer else self.I

    def width(self, state: str) -> int:
        """Features of a state."""
        return self.P if state == "h" else self.H

    def has_input(self, layer: int) -> bool:
        """Whether a layer reads a buffer of its own, not the states of the layer below where they stand."""
        apart = self.padded(self.P) > self.P
        return layer == 0 or self.D == 2 or self.dropout or self.input_dropout or apart

    @property
    def donates_output(self) -> bool:
        """Whether only the caller needs the top layer's hidden sequence, as it stands."""
        apart = self.padded(self.P) > self.P
        return self.segments > 0 and self.D == 1 and not self.reverse and not apart

    def shapes(self) -> dict[str, Shape]:
        """Every buffer by name; `gates1_0` is that of layer 1, direction 0.

        Kept from forward to backward: what a layer and direction has of its own. The rest is scratch. In
        inference layers share what dies within a pass, and hidden sequences take turns.
        """
        N, P = self.N, self.P
        shapes: dict[str, Shape] = {"no_bias": (self.G * self.H,)}
        for layer in range(self.L):
            inputs = self.inputs(layer)
            for d in range(self.D):
                own = self.of_direction() | ({"x": (N, inputs)} if self.has_input(layer) else {})
                shapes |= {self.name(kind, layer, d): shape for kind, shape in own.items()}
            if self.input_dropout:
                shapes[f"mask_x{layer}"] = (self.B, inputs)
            if self.dropout and layer + 1 < self.L:
                shapes[f"mask{layer}"] = (N, self.D * P)
        if self.D == 2 or self.reverse:
            shapes["out"] = (N, self.D * P)
        return shapes | (self.scratch() | self._gradients() if self.training else {})

    def of_direction(self) -> dict[str, Shape]:
        """Buffers of every layer and direction, by kind."""
        N, B, P, Hp, Pp = self.N, self.B, self.P, self.padded(self.H), self.padded(self.P)
        again = N if self.training else B  # rows of what only the backward pass reads again
        rows = N if self.training or not self.ahead else max(B, self.ahead)
        shapes: dict[str, Shape] = {"gates": (rows, self.G * Hp + self._gap), "h": (B + N, Pp)}
        if self.S == 2:
            shapes["c"] = (B + N if self.training and not self.segments else 2 * B, Hp)
        if self.segments:
            shapes |= {"h_kept": (B, Hp), "c_kept": (self.segments * B, Hp)}
        if self.E:
            shapes["extra"] = (again, self.E * Hp)
        if self.projects:
            shapes["m"] = (again, Hp)
        if self.recurrent_dropout:
            shapes |= {"mask_h": (B, P), "h_masked": (N, Pp)}
        if self.drawn:
            shapes |= {f"zone_{state}": (N, self.width(state)) for state in self.zoneout}
        if self.inspected:
            shapes["dh_steps"] = (N, P)
        return shapes

    @property
    def _gap(self) -> int:
        """Numbers between rows of gates, so that a column's places do not all share a cache set."""
        return 32 if self.unit > 1 else 0

    def scratch(self) -> dict[str, Shape]:
        """Scratch of the backward pass, which all layers and directions share, by the engine's names."""
        B, P, Hp = self.B, self.P, self.padded(self.H)
        shapes: dict[str, Shape] = (
            {"strips": (self.strips,)} if self.unit > 1 else {"sums": (self.G * self.H,)}
        )
        if self.segments:
            shapes |= {f"{state}_again": (2 * self.segment_steps * B, Hp) for state in ("h", "c")}
        shapes |= {f"d{state}_kept": (B, self.width(state)) for state in self.zoneout}
        if self.E:
            shapes["dextra"] = (B, Hp)
        if self.projects:
            shapes["dm"] = (B, Hp)
        if self.recurrent_dropout:
            shapes["dh_masked"] = (B, self.padded(P))
        return shapes

    def _gradients(self) -> dict[str, Shape]:
        """What the backward pass hands from step to step and from layer to layer."""
        N, B, P = self.N, self.B, self.P
        shapes: dict[str, Shape] = {
            f"d{state}": (self.L * self.D, B, self.padded(self.width(state)))
            for state in ("h", "c")[: self.S]
        }
        shapes |= {f"dy{d}": (N, P) for d in range(self.D)}
        if self.D == 2:
            shapes["dout"] = (N, 2 * P)
        if self.D == 2 or self.reverse:
            shapes["dx"] = (N, self.I)
        return shapes

    def name(self, kind: str, layer: int, d: int) -> str:
        """A buffer's name: of its own in training, shared where inference allows."""
        if not self.training:
            shared = {"h": (layer % 2, d), "x": (min(layer, 1), d)}
            layer, d = shared.get(kind, (0, d))
        return f"{kind}{layer}_{d}"


class Arena:
    """One block of memory that grows to the largest request and is cut anew for each.

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
        self.used = 0.0  # share of the block that the last cut took

    def cut(self, shapes: Mapping[str, Shape], dtype: DTypeLike) -> dict[str, NDArray[np.floating]]:
        """Arrays of these shapes, uninitialised, aligned, and not overlapping.

        The arrays of an earlier cut share the memory, so they must be used no more.
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
