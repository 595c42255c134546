"""Buffers planned once: sizes of a recurrent stack, and the memory that they are cut from."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray

Shape = tuple[int, ...]
ALIGNMENT = 64  # bytes: a cache line, and a vector of AVX-512


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of a forward (and backward) pass of L stacked layers of one cell.

    Parameters
    ----------
    N, B, I, H, L, D : int
        Real steps of all sequences, sequences, input size, hidden size, layers, directions.
    G, S : int
        Gates and states of the cell.
    has_extra : bool
        Whether the cell has a plane of its own.
    padded : int or None
        Rows of the padded output, T.B; None: the packed one needs no padding.
    training : bool
        Whether everything that the backward pass reads is kept.
    dropout : bool
        Whether there are masks between the layers.
    inspected : bool
        Whether the backward pass also keeps dL/dh_t of every step.
    """

    N: int
    B: int
    I: int
    H: int
    L: int
    D: int
    G: int
    S: int
    has_extra: bool
    padded: int | None
    training: bool
    dropout: bool = False
    inspected: bool = False

    def inputs(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.D * self.H if layer else self.I

    def has_input(self, layer: int) -> bool:
        """Whether a layer reads a buffer of its own, not the states of the layer below where they stand."""
        return layer == 0 or self.D == 2 or self.dropout

    def shapes(self) -> dict[str, Shape]:
        """Every buffer by name; `gates1_0` is that of layer 1, direction 0.

        Kept from forward to backward: x, gates, extra, h, c. The rest is scratch. In inference layers and
        directions share what dies within a pass, and hidden sequences take turns.
        """
        N, B, H = self.N, self.B, self.H
        shapes: dict[str, Shape] = {"no_bias": (self.G * H,)}
        for layer in range(self.L):
            if self.has_input(layer):
                for d in range(self.D):
                    shapes[self.name("x", layer, d)] = (N, self.inputs(layer))
            for d in range(self.D):
                shapes[self.name("gates", layer, d)] = (N, self.G * H)
                shapes[self.name("h", layer, d)] = (B + N, H)
                if self.S == 2:
                    shapes[self.name("c", layer, d)] = (B + N if self.training else 2 * B, H)
                if self.has_extra:
                    shapes[self.name("extra", layer, d)] = (N if self.training else B, H)
        if self.D == 2:
            shapes["out"] = (N, 2 * H)
        if self.padded is not None:
            shapes["padded"] = (self.padded, self.D * H)
        if self.training:
            shapes["sums"] = (self.G * H,)
            shapes |= {f"d{state}": (self.L * self.D, B, H) for state in ("h", "c")[: self.S]}
            shapes |= {f"dy{d}": (N, H) for d in range(self.D)}
            if self.D == 2:
                shapes["dout"] = (N, 2 * H)
            if self.has_extra:
                shapes["dextra"] = (B, H)
            if self.inspected:
                shapes |= {f"dh_steps{l}_{d}": (N, H) for l in range(self.L) for d in range(self.D)}
            if self.dropout:
                shapes |= {f"mask{layer}": (N, self.D * H) for layer in range(self.L - 1)}
        return shapes

    def name(self, kind: str, layer: int, d: int) -> str:
        """A buffer's name: of its own in training, shared where inference allows."""
        if not self.training:
            shared = {
                "gates": (0, 0),
                "extra": (0, 0),
                "c": (0, 0),
                "h": (layer % 2, d),
                "x": (min(layer, 1), d),
            }
            layer, d = shared[kind]
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
            end += -(-size // ALIGNMENT) * ALIGNMENT
        if end > self._block.nbytes:
            # At least a quarter more, for batches that keep growing; the old block goes first.
            size = max(end, self._block.nbytes * 5 // 4)
            self._block = np.empty(0, np.uint8)
            self._block = aligned_bytes(size)
            self.allocations += 1
        return {
            name: np.ndarray(shape, dtype, buffer=self._block, offset=offsets[name])
            for name, shape in shapes.items()
        }


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Uninitialised memory that starts on a cache line."""
    try:
        raw = np.empty(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError, OverflowError) as error:
        raise MemoryError(
            f"cannot allocate {size / 2**30:.1f} GiB of buffers: use shorter sequences, smaller batches "
            "or fewer units"
        ) from error
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
