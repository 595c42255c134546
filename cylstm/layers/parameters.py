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
DRAWN_AT_ONCE = 1 << 16  # numbers, drawn in float64 for any dtype


class _Building(threading.local):
    """Whether this thread builds layers whose values are loaded afterwards."""

    without_values = False


_building = _Building()


@contextlib.contextmanager
def without_initial_values() -> Iterator[None]:
    """Layers built in the `with` block draw no initial parameters: these are zeros, and loaded afterwards."""
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
        self.used = 0  # number of changes of the rows in use, of parameters `by_rows`


class ParameterStore:
    """Flat storage of named arrays and their gradients.

    Parameters
    ----------
    shapes : mapping of str to shape
        Names and shapes in memory order.
    dtype : numpy dtype

    Notes
    -----
    `join` makes a store a part of a larger one; then its vectors are slices of that
    one's. All writing to parameters goes through `writing`, which increments the `version` of
    the whole model, so that transformed copies of the weights can be recognised as stale. `place` is another
    object once the vectors have moved.
    """

    def __init__(self, shapes: Mapping[str, Shape], dtype: np.dtype[Any]) -> None:
        self.shapes = dict(shapes)
        self.dtype = dtype
        ends = list(itertools.accumulate(map(_count, self.shapes.values()), initial=0))
        self._places = list(zip(self.shapes.items(), itertools.pairwise(ends), strict=True))
        self.size = ends[-1]
        self._vectors = _Vector(self.size, dtype), _Vector(self.size, dtype)  # of the whole model
        self._start = 0  # of this store in them
        self._cut: dict[int, Array] = {}  # its slices of them, as long as these stay in place
        self.place = Place()
        self._joined = False
        self._parts: list[ParameterStore] = []
        self._used: dict[str, Array] = {}  # of parameters whose gradient has rows in use: which, bool
        self._all = np.array([[0, self.size]], np.intp)
        self._spans: tuple[Any, Array] = (None, self._all)  # those of this place and count
        self._named: dict[str, dict[str, Array]] = {}  # views of the vectors, as long as these stay in place
        # The stores that are not made of others, and where they begin, if it is made of others.
        self._below: list[tuple[int, ParameterStore]] = []

    @property
    def data(self) -> Array:
        """The flat parameter vector; write through `writing`."""
        return self._slice(0)

    @property
    def grad(self) -> Array:
        """The flat gradient vector, allocated on first use."""
        return self._slice(1)

    def _slice(self, which: int) -> Array:
        found = self._cut.get(which)
        if found is None:
            found = self._vectors[which].array[self._start : self._start + self.size]
            self._cut[which] = found
        return found

    @property
    def version(self) -> int:
        """Number of times that parameters of the whole model were written."""
        return self.place.version

    @property
    def revision(self) -> tuple[Place, int]:
        """Equal to an earlier one if the vectors have neither moved nor been written to since."""
        return self.place, self.place.version

    @contextlib.contextmanager
    def writing(self) -> Iterator[Array]:
        """The flat parameter vector, to be written inside the `with` block."""
        try:
            yield self.data
        finally:
            self.place.version += 1

    def initialize(self, fill: Callable[[Array], None]) -> None:
        """Set the initial parameters: fill(flat), unless they are loaded (`without_initial_values`)."""
        if not _building.without_values:
            with self.writing() as flat:
                fill(flat)

    def freeze(self) -> None:
        """Release the gradients; nothing can write to the parameters any more."""
        vectors = self._vectors[0], _Vector(0, self.dtype)
        vectors[0].array.flags.writeable = False
        self._attach(self.place, vectors, self._start)

    def parameters(self) -> dict[str, Array]:
        """Read-only views by name."""
        if "data" not in self._named:
            views = self.views(self.data)
            for view in views.values():
                view.flags.writeable = False
            self._named["data"] = views
        return dict(self._named["data"])

    def gradients(self) -> dict[str, Array]:
        """Views by name."""
        if "grad" not in self._named:
            self._named["grad"] = self.views(self.grad)
        return dict(self._named["grad"])

    def by_rows(self, name: str) -> None:
        """From now on just those rows of this parameter have a gradient that `use_rows` names."""
        self._used[name] = np.zeros(self.shapes[name][0] + 2, bool)  # with one more at either end

    def use_rows(self, name: str, rows: Array) -> None:
        """The gradient of these rows of a parameter is in use until `zero_grad`."""
        # A copy, and clipped: another thread that calls the same layer may write to rows.
        np.put(self._used[name], rows + 1, True, mode="clip")
        self.place.used += 1

    def spans(self) -> Array:
        """(n, 2), where the parts of the flat vectors begin and end whose gradient is in use.

        All of them, but for parameters `by_rows`: their other rows have a gradient of 0 and stay as they are.
        """
        by_rows = [(start, store) for start, store in self._leaves() if store._used]
        if not by_rows:
            return self._all
        if self._spans[0] != (self.place, self.place.used):
            edges, begin = [], 0
            for start, store in by_rows:
                for first, stop, rows in store._edges_of_rows():
                    edges += [[begin, start + first], start + rows]
                    begin = start + stop
            spans = np.concatenate([*edges, [begin, self.size]]).reshape(-1, 2)
            self._spans = (self.place, self.place.used), spans[spans[:, 0] < spans[:, 1]]
        return self._spans[1]

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if self._vectors[1].is_used:
            _optim.scale(self.grad, self.spans(), 0)
        for _, store in self._leaves():
            for used in store._used.values():
                used[...] = False
        self.place.used += 1

    def _leaves(self) -> "list[tuple[int, ParameterStore]]":
        return self._below or [(0, self)]  # not stored: a reference cycle would outlive its model

    def _edges_of_rows(self) -> Iterator[tuple[int, int, Array]]:
        """Of parameters `by_rows`: where they begin and end, and their rows in use, from and to in turn."""
        for (name, shape), (first, stop) in self._places:
            if name in self._used:
                used = self._used[name]
                yield first, stop, first + np.flatnonzero(used[1:] != used[:-1]) * _count(shape[1:])

    def load(self, values: Mapping[str, Any]) -> None:
        """Copy arrays in by name; nothing is changed unless all of them fit."""
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
            narrowed = not np.can_cast(array.dtype, self.dtype)  # which may raise, under np.errstate
            if narrowed or np.may_share_memory(array, self.data):
                arrays[name] = np.array(array, self.dtype)
        with self.writing() as flat:
            for name, view in self.views(flat).items():
                view[...] = arrays[name]

    @classmethod
    def join(cls, parts: Mapping[str, "ParameterStore"]) -> "ParameterStore":
        """One store of several, names prefixed with `<key>.`; the parts become its slices."""
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
        joined._below = [
            (start + inner, leaf)
            for start, store in zip(starts, stores, strict=False)
            for inner, leaf in store._leaves()
        ]
        for part in stores:
            part._joined = True
        joined._attach(joined.place, joined._vectors, 0)
        return joined

    def _attach(self, place: Place, vectors: tuple[_Vector, _Vector], start: int) -> None:
        """Become a slice of a model's vectors, and copy the present values there."""
        for which, (before, vector) in enumerate(zip(self._vectors, vectors, strict=True)):
            if before is not vector and before.is_used and vector.size and not self._parts:
                vector.array[start : start + self.size] = self._slice(which)
        self.place, self._vectors, self._start = place, vectors, start
        self._named.clear()
        self._cut.clear()
        for part in self._parts:
            part._attach(place, vectors, start)
            start += part.size

    def views(self, flat: Array) -> dict[str, Array]:
        """Views by name of a vector with the layout of the parameters."""
        return {name: flat[start:stop].reshape(shape) for (name, shape), (start, stop) in self._places}

    def block(self, flat: Array, names: list[str]) -> Array:
        """The part of a flat vector that holds some parameters, which must be adjacent."""
        order = list(self.shapes)
        first = order.index(names[0])
        if order[first : first + len(names)] != names:
            raise ValueError(f"{names}: not adjacent in {order}")
        return flat[self._places[first][1][0] : self._places[first + len(names) - 1][1][1]]


def _count(shape: Shape) -> int:
    return math.prod(shape)


def fill_drawn(flat: Array, draw: Callable[[int], Array]) -> None:
    """Fill a vector with draw(n), n numbers at a time: the same as all of them at once, in less memory."""
    for begin in range(0, len(flat), DRAWN_AT_ONCE):
        part = flat[begin : begin + DRAWN_AT_ONCE]
        part[...] = draw(len(part))
