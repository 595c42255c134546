"""Memory for the engine with guard cells around each array, and numbers in it that nobody must read."""

import numpy as np

from cylstm._engine import planning
from cylstm.layers import parameters
from cylstm.recurrent import panels

ALIGNMENT, PATTERN = planning.ALIGNMENT, 0xA5
GUARD = 64 * ALIGNMENT  # bytes on either side: more than a row of the arrays in tests
UNSET = 0xFF  # bytes of a NaN in both dtypes: what is read before it was written shows in the results


class Guards:
    """Arrays with guard cells before and behind, and whether these are as they were.

    Parameters
    ----------
    short : dict, optional
        Rows by which the memory of an array is shorter than the array says, by name: a planted defect.
    """

    def __init__(self, short=None):
        self.short, self.blocks = short or {}, []

    def bytes(self, size, name="", zeroed=False):
        """Aligned memory of this size."""
        raw = np.full(size + 2 * GUARD + ALIGNMENT, PATTERN, np.uint8)
        start = GUARD + -(raw.ctypes.data + GUARD) % ALIGNMENT
        self.blocks.append((name, raw, start, start + size))
        raw[start : start + size] = 0 if zeroed else UNSET
        return raw[start : start + size]

    def array(self, shape, dtype, name=""):
        """An array of this shape, and whatever it holds."""
        dtype, short = np.dtype(dtype), self.short.get(name, 0)
        block = self.bytes(int(np.prod(shape[1:])) * max(0, shape[0] - short) * dtype.itemsize, name)
        if not short:
            return np.ndarray(shape, dtype, buffer=block)
        _, raw, start, _ = self.blocks[-1]
        return np.ndarray(shape, dtype, buffer=raw, offset=start)

    def copy(self, array):
        """A caller's array."""
        copied = self.array(array.shape, array.dtype, "the caller's")
        copied[...] = array
        return copied

    def cut(self, shapes, dtype):
        """As `Arena.cut`."""
        return {name: self.array(shape, dtype, name) for name, shape in shapes.items()}

    def install(self, monkeypatch):
        """From now on arenas, packed weights and parameters get their memory here."""
        monkeypatch.setattr(planning.Arena, "cut", lambda _, shapes, dtype: self.cut(shapes, dtype))
        for module in (panels, parameters):
            monkeypatch.setattr(module, "aligned_bytes", self.bytes)
        return self

    def check(self):
        """Raise AssertionError where somebody wrote beside an array; returns how many there are."""
        for name, raw, start, end in self.blocks:
            assert (raw[:start] == PATTERN).all(), f"written before {name or 'weights'}"
            assert (raw[end:] == PATTERN).all(), f"written behind {name or 'weights'}"
        return len(self.blocks)
