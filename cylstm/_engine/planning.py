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
    T, B, I, H, G, L : int
        Time steps, batch, input size, hidden size, gates, layers.
    training : bool
        Whether everything that the backward pass reads is kept.
    """

    T: int
    B: int
    I: int
    H: int
    G: int
    L: int
    training: bool

    def shapes(self) -> dict[str, Shape]:
        """Every buffer by name, `gates1` being that of layer 1.

        Kept from forward to backward: x, gates, h, c. The rest is scratch. In inference the
        layers share their gates, two hidden sequences take turns, and c keeps two steps.
        """
        T, B, H, L = self.T, self.B, self.H, self.L
        shapes = {"x": (T, B, self.I), "bias": (self.G * H,)}
        for layer in range(L):
            shapes[f"gates{self.slot(layer, 1)}"] = (T, B, self.G * H)
            shapes[f"h{self.slot(layer, 2)}"] = (T + 1, B, H)
            shapes[f"c{layer}"] = (T + 1 if self.training else 2, B, H)
        if self.training:
            shapes |= {"dy": (T, B, H), "dh": (L, B, H), "dc": (L, B, H)}
        return shapes

    def slot(self, layer: int, in_turn: int) -> int:
        """Which buffer a layer has of those that only training keeps for every layer."""
        return layer if self.training else layer % in_turn


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
            self._block = aligned_bytes(end)
            self.allocations += 1
        return {
            name: np.ndarray(shape, dtype, buffer=self._block, offset=offsets[name])
            for name, shape in shapes.items()
        }


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Uninitialised memory that starts on a cache line."""
    try:
        raw = np.empty(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError) as error:
        raise MemoryError(
            f"cannot allocate {size / 2**30:.1f} GiB of buffers: use shorter sequences, smaller batches "
            "or fewer units"
        ) from error
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
