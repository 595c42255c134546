"""A model's parameters: one flat vector, one flat gradient vector, and named views of both."""

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm._engine import _optim
from cylstm._engine.planning import Shape, aligned_bytes, too_large

Array = NDArray[Any]
DRAW_CHUNK = 1 << 16  # random numbers drawn at a time, in float64 for any dtype


class _BuildState(threading.local):
    """Whether this thread builds layers without initial values."""

    without_values = False


_building = _BuildState()


@contextlib.contextmanager
def without_initial_values() -> Iterator[None]:
    """Build layers in the `with` block with zeros as parameters, to be loaded afterwards."""
    before = _building.without_values
    _building.without_values = True
    try:
        yield
    finally:
        _building.without_values = before


class _Vector:
    """A flat vector of zeros that is allocated on first use."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        if size > np.iinfo(np.intp).max // dtype.itemsize:
            raise too_large(size * dtype.itemsize)
        self.size, self._dtype = size, dtype
        self._array: Array | None = None

    @property
    def is_used(self) -> bool:
        return self._array is not None

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = aligned_bytes(self.size * self._dtype.itemsize, zeroed=True).view(self._dtype)
        return self._array


class Place:
    """Identity token of a model's flat vectors, shared by all of its layers."""

    def __init__(self) -> None:
        self.version = 0
        self.row_changes = 0  # number of changes of the rows in use, of parameters with sparse gradients


class ParameterStore:
    """Flat storage of named arrays and their gradients.

    Parameters
    ----------
    shapes : mapping of str to shape
        Names and shapes in memory order.
    dtype : numpy dtype

    Notes
    -----
    After `join`, the vectors of a store are slices of those of a larger store. All writes to parameters use
    `writing`, which increments the `version` of the whole model, so that stale packed copies of the weights
    can be detected. `place` is replaced when the vectors move.
    """

    def __init__(self, shapes: Mapping[str, Shape], dtype: np.dtype[Any]) -> None:
        self.shapes = dict(shapes)
        self.dtype = dtype
        offsets = list(itertools.accumulate(map(_count, self.shapes.values()), initial=0))
        self._ranges = list(zip(self.shapes.items(), itertools.pairwise(offsets), strict=True))
        self.size = offsets[-1]
        self._vectors = _Vector(self.size, dtype), _Vector(self.size, dtype)  # of the whole model
        self._start = 0  # offset of this store in the vectors
        self._slices: dict[int, Array] = {}  # cached slices of the vectors, until these move
        self.place = Place()
        self._joined = False
        self._parts: list[ParameterStore] = []
        self._used: dict[str, Array] = {}  # masks of the rows in use, of parameters with sparse gradients
        self._all = np.array([[0, self.size]], np.intp)
        self._active_ranges: tuple[Any, Array] = (
            None,
            self._all,
        )  # cached result of `active_ranges`, with its key
        self._named: dict[str, dict[str, Array]] = {}  # cached views of the vectors, until these move
        # The leaf stores that this store is joined from, with their offsets; empty for a leaf.
        self._nested: list[tuple[int, ParameterStore]] = []

    @property
    def data(self) -> Array:
        """The flat parameter vector; write through `writing`."""
        return self._slice(0)

    @property
    def grad(self) -> Array:
        """The flat gradient vector, allocated on first use."""
        return self._slice(1)

    def _slice(self, which: int) -> Array:
        part = self._slices.get(which)
        if part is None:
            part = self._vectors[which].array[self._start : self._start + self.size]
            self._slices[which] = part
        return part

    @property
    def version(self) -> int:
        """Number of writes to parameters of the whole model."""
        return self.place.version

    @property
    def revision(self) -> tuple[Place, int]:
        """Identity of the values: equal as long as the vectors neither move nor are written to."""
        return self.place, self.place.version

    @contextlib.contextmanager
    def writing(self) -> Iterator[Array]:
        """Return the flat parameter vector, for writing in the `with` block."""
        try:
            yield self.data
        finally:
            self.place.version += 1

    def initialize(self, fill: Callable[[Array], None]) -> None:
        """Set the initial parameters with fill(flat), except in a `without_initial_values` block."""
        if not _building.without_values:
            with self.writing() as flat:
                fill(flat)

    def freeze(self) -> None:
        """Release the gradients and make the parameters read-only."""
        vectors = self._vectors[0], _Vector(0, self.dtype)
        vectors[0].array.flags.writeable = False
        self._attach(self.place, vectors, self._start)

    def parameters(self) -> dict[str, Array]:
        """Return read-only views of the parameters by name."""
        if "data" not in self._named:
            views = self.views(self.data)
            for view in views.values():
                view.flags.writeable = False
            self._named["data"] = views
        return dict(self._named["data"])

    def gradients(self) -> dict[str, Array]:
        """Return views of the gradients by name."""
        if "grad" not in self._named:
            self._named["grad"] = self.views(self.grad)
        return dict(self._named["grad"])

    def enable_row_gradients(self, name: str) -> None:
        """Make the gradient of a parameter sparse: it has only the rows passed to `use_rows`."""
        self._used[name] = np.zeros(self.shapes[name][0] + 2, bool)  # with one more element at both ends

    def use_rows(self, name: str, rows: Array) -> None:
        """Add rows to the sparse gradient of a parameter, until `zero_grad`."""
        # Clipped, because another thread that calls the same layer may write to `rows`.
        np.put(self._used[name], rows + 1, True, mode="clip")
        self.place.row_changes += 1

    def active_ranges(self) -> Array:
        """Return (n, 2), the start and end of each range of the flat vectors whose gradient is in use.

        This is the whole vector, except for unused rows of sparse gradients, which are 0.
        """
        sparse = [(start, store) for start, store in self._leaves() if store._used]
        if not sparse:
            return self._all
        if self._active_ranges[0] != (self.place, self.place.row_changes):
            edges, begin = [], 0
            for start, store in sparse:
                for first, stop, rows in store._used_row_edges():
                    edges += [[begin, start + first], start + rows]
                    begin = start + stop
            ranges = np.concatenate([*edges, [begin, self.size]]).reshape(-1, 2)
            self._active_ranges = (self.place, self.place.row_changes), ranges[ranges[:, 0] < ranges[:, 1]]
        return self._active_ranges[1]

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if self._vectors[1].is_used:
            _optim.scale(self.grad, self.active_ranges(), 0)
        for _, store in self._leaves():
            for used in store._used.values():
                used[...] = False
        self.place.row_changes += 1

    def _leaves(self) -> "list[tuple[int, ParameterStore]]":
        return self._nested or [(0, self)]  # not stored: it would be a reference cycle

    def _used_row_edges(self) -> Iterator[tuple[int, int, Array]]:
        """Yield start and end of each parameter with a sparse gradient, and the edges of its rows in use."""
        for (name, shape), (first, stop) in self._ranges:
            if name in self._used:
                used = self._used[name]
                yield first, stop, first + np.flatnonzero(used[1:] != used[:-1]) * _count(shape[1:])

    def load(self, values: Mapping[str, Any]) -> None:
        """Copy arrays by name, after checking all of them."""
        missing = [name for name in self.shapes if name not in values]
        unknown = [name for name in values if name not in self.shapes]
        if missing or unknown:
            raise ValueError(f"state: missing {shown(missing)}, not in this model {shown(unknown)}")
        arrays = {name: _checks.real_array(name, values[name]) for name in self.shapes}
        for name, array in arrays.items():
            if array.shape != self.shapes[name]:
                raise ValueError(f"{name}: expected shape {self.shapes[name]}, got {array.shape}")
            if array.dtype.kind == "b":
                raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
        for name, array in arrays.items():
            is_narrowed = not np.can_cast(array.dtype, self.dtype)  # may raise under np.errstate
            if is_narrowed or np.may_share_memory(array, self.data):
                arrays[name] = np.array(array, self.dtype)
        with self.writing() as flat:
            for name, view in self.views(flat).items():
                view[...] = arrays[name]

    @classmethod
    def join(cls, parts: Mapping[str, "ParameterStore"]) -> "ParameterStore":
        """Join stores, with names prefixed with `<key>.`; the parts become slices of the new store."""
        dtypes = {part.dtype for part in parts.values()}
        if len(dtypes) != 1:
            raise ValueError(f"layers: expected one dtype, got {sorted(map(str, dtypes))}")
        stores = list(parts.values())
        for position, (key, part) in enumerate(parts.items()):
            if part._joined or part in stores[:position]:
                raise ValueError(f"layer {key}: already part of a model; build a separate layer for this one")
        shapes = {
            f"{key}.{name}": shape for key, part in parts.items() for name, shape in part.shapes.items()
        }
        joined = cls(shapes, dtypes.pop())
        joined._parts = stores
        starts = itertools.accumulate((store.size for store in stores), initial=0)
        joined._nested = [
            (start + inner, leaf)
            for start, store in zip(starts, stores, strict=False)
            for inner, leaf in store._leaves()
        ]
        for part in stores:
            part._joined = True
        joined._attach(joined.place, joined._vectors, 0)
        return joined

    def _attach(self, place: Place, vectors: tuple[_Vector, _Vector], start: int) -> None:
        """Move the values to a slice of a model's vectors."""
        for which, (before, vector) in enumerate(zip(self._vectors, vectors, strict=True)):
            if before is not vector and before.is_used and vector.size and not self._parts:
                vector.array[start : start + self.size] = self._slice(which)
        self.place, self._vectors, self._start = place, vectors, start
        self._named.clear()
        self._slices.clear()
        for part in self._parts:
            part._attach(place, vectors, start)
            start += part.size

    def views(self, flat: Array) -> dict[str, Array]:
        """Return views by name of a vector with the layout of the parameters."""
        return {name: flat[start:stop].reshape(shape) for (name, shape), (start, stop) in self._ranges}

    def block(self, flat: Array, names: list[str]) -> Array:
        """Return the part of a flat vector with the given parameters, which must be adjacent."""
        order = list(self.shapes)
        first = order.index(names[0])
        if order[first : first + len(names)] != names:
            raise ValueError(f"{names}: not adjacent in {order}")
        return flat[self._ranges[first][1][0] : self._ranges[first + len(names) - 1][1][1]]


def _count(shape: Shape) -> int:
    return math.prod(shape)


def fill_random(flat: Array, draw: Callable[[int], Array]) -> None:
    """Fill a vector with draw(n) in chunks: the values of a single draw, in less memory."""
    for start in range(0, len(flat), DRAW_CHUNK):
        part = flat[start : start + DRAW_CHUNK]
        part[...] = draw(len(part))
