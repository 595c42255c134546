"""Values in an ONNX graph as the reader represents them: arrays if constant, else the axes of x or of states.

An axis is a group of atoms: the batch's axes and features, whose sizes are in a table. A reshape regroups
atoms, a transpose moves groups. Atoms of size 1 are left out, so that it does not matter whether and where
an axis of size 1 stands. Atoms and sources of states are compared by identity, so that no name in a file can
equal one.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from cylstm.convert._common import ConversionError

Array = NDArray[Any]
MAX_RANK = 64  # axes of a value, as NumPy has them at most


class Atom:
    """A part of an axis; two of them are equal only if they are the same object."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    def __repr__(self) -> str:
        """What it stands for, for messages."""
        return self.label


class Source:
    """What rows of states come from: an input of the graph, or a state of a node."""

    __slots__ = ("is_input", "label")

    def __init__(self, label: str, *, is_input: bool) -> None:
        self.label, self.is_input = label, is_input

    def __repr__(self) -> str:
        """What it is, for messages."""
        return self.label


Group = tuple[Atom, ...]
Groups = tuple[Group, ...]
Sizes = Mapping[Atom, int]
Row = tuple[Source, int]  # and which row of it
ROW = Atom("row")  # the atom of the rows of states


class Constant(NamedTuple):
    """An array; `shaped` if it was computed from the sizes of the batch, which stand for any sizes."""

    array: Array
    shaped: bool = False


class Steps(NamedTuple):
    """x after some of the layers: its axes, and the version of the chain of layers that computes it."""

    groups: Groups
    version: int


class Rows(NamedTuple):
    """States or lengths, from inputs or recurrent nodes, and their axes."""

    rows: tuple[Row, ...]
    groups: Groups


Value = Constant | Steps | Rows


@dataclasses.dataclass
class UnrolledLayer:
    """A recurrent layer of which each step has nodes of its own: where it starts, and what it multiplies."""

    version: int
    T: int
    time: Group
    batch: Group
    inputs: dict[str, Array] = dataclasses.field(default_factory=dict)  # that x is multiplied with
    matrices: dict[str, Array] = dataclasses.field(default_factory=dict)  # that h is multiplied with
    biases: dict[str, Array] = dataclasses.field(default_factory=dict)
    kinds: set[str] = dataclasses.field(default_factory=set)  # of nodes


class UnrolledStep(NamedTuple):
    """A value inside the steps of an unrolled layer; `raw` if it is a step of the layer's x, unchanged."""

    layer: UnrolledLayer
    raw: bool = False


def constant_array(value: Value | None) -> Array:
    """The array of an input that has to be constant, and has to be the same for any batch."""
    if not isinstance(value, Constant) or value.shaped:
        raise ConversionError("expected constant weights, got values that depend on inputs or their sizes")
    return value.array


def sizes_in(value: Value | None) -> Array:
    """The array of an input that holds sizes or axes, which may be those of the batch."""
    if not isinstance(value, Constant):
        raise ConversionError("expected sizes or axes that are known, got values that depend on x")
    return value.array


def optional_sizes(value: Value | None) -> Array | None:
    """As `sizes_in`, of an input that may be absent."""
    return None if value is None else sizes_in(value)


def symbolic(value: Value | None) -> Steps | Rows:
    """An input that has to be x or states."""
    if not isinstance(value, (Steps, Rows)):
        raise ConversionError("expected to read x or states")
    return value


def shape(groups: Groups, sizes: Sizes) -> list[int]:
    """The sizes of the axes."""
    return [math.prod(sizes[atom] for atom in group) for group in groups]


def without_ones(groups: Groups, sizes: Sizes) -> Groups:
    """The groups without atoms of size 1."""
    return tuple(tuple(atom for atom in group if sizes[atom] != 1) for group in groups)


def axis_of(axis: Any, rank: int) -> int:
    """An axis counted from the front."""
    number = int(axis)
    if not -rank <= number < rank:
        raise ValueError(f"axis: expected one of {rank}, got {number}")
    return number % rank


def transposed(groups: Groups, perm: Sequence[int] | None) -> Groups:
    """In another order; reversed for None."""
    order = list(range(len(groups)))[::-1] if perm is None else list(perm)
    if sorted(order) != list(range(len(groups))):
        raise ValueError(f"perm: expected an order of {len(groups)} axes, got {order}")
    return tuple(groups[k] for k in order)


def squeezed(groups: Groups, axes: Sequence[int] | None) -> Groups:
    """Without axes of size 1; all of them for None."""
    chosen = {axis_of(a, len(groups)) for a in axes} if axes is not None else None
    for k in chosen or ():
        if groups[k]:
            atoms = " x ".join(map(repr, groups[k]))
            raise ValueError(f"expected axis {k} to have the size 1, got one of {atoms}")
    return tuple(group for k, group in enumerate(groups) if group or (chosen is not None and k not in chosen))


def unsqueezed(groups: Groups, axes: Sequence[int]) -> Groups:
    """With more axes of size 1."""
    rank = len(groups) + len(axes)
    if rank > MAX_RANK:
        raise ValueError(f"axes: expected at most {MAX_RANK} in all, got {rank}")
    new, old = {axis_of(a, rank) for a in axes}, iter(groups)
    if len(new) != len(axes):
        raise ValueError(f"axes: expected different ones, got {list(axes)}")
    return tuple(() if k in new else next(old) for k in range(rank))


def reshaped(groups: Groups, wanted: Sequence[int], sizes: Sizes, allow_zero: bool) -> Groups:
    """The atoms in groups of these sizes: 0 is the size that was there, -1 what is left."""
    have = shape(groups, sizes)
    target = [
        have[k] if n == 0 and not allow_zero and k < len(have) else int(n) for k, n in enumerate(wanted)
    ]
    if target.count(-1) == 1:
        rest = math.prod(n for n in target if n != -1)
        target[target.index(-1)] = math.prod(have) // rest if rest else 0
    atoms = [atom for group in groups for atom in group]
    new: list[Group] = []
    for n in target:
        group: list[Atom] = []
        while atoms and math.prod(sizes[atom] for atom in group) < n:
            group.append(atoms.pop(0))
        if math.prod(sizes[atom] for atom in group) != n:
            raise ConversionError(f"expected a shape that keeps features and steps whole, got {list(wanted)}")
        new.append(tuple(group))
    if atoms:
        raise ConversionError(f"expected a shape of as many numbers, got {list(wanted)}")
    return tuple(new)
