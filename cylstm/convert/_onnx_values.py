"""What a reader of ONNX knows about a value: its array if it is constant, else which axes it has.

An axis is a group of atoms: names of the batch's axes and of features, whose sizes are in a table. A reshape
regroups atoms, a transpose moves groups. Atoms of size 1 are left out, so that it does not matter whether
and where an axis of size 1 stands.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from cylstm.convert._common import ConversionError

Array = NDArray[Any]
Group = tuple[str, ...]
Groups = tuple[Group, ...]
Sizes = Mapping[str, int]
ROW = "row"  # the atom of the rows of states


class Constant(NamedTuple):
    """An array; `shaped` if it was computed from the sizes of the batch, which stand for any sizes."""

    array: Array
    shaped: bool = False


class Steps(NamedTuple):
    """The sequences on their way: their axes, and after which edit of the chain of layers they are."""

    groups: Groups
    version: int


class Rows(NamedTuple):
    """States or lengths, from inputs or recurrent nodes: (where it is from, which row of it), and axes."""

    rows: tuple[tuple[str, int], ...]
    groups: Groups


Value = Constant | Steps | Rows


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
            raise ValueError(f"expected axis {k} to have the size 1, got one of {'·'.join(groups[k])}")
    return tuple(group for k, group in enumerate(groups) if group or (chosen is not None and k not in chosen))


def unsqueezed(groups: Groups, axes: Sequence[int]) -> Groups:
    """With more axes of size 1."""
    rank = len(groups) + len(axes)
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
        group: list[str] = []
        while atoms and math.prod(sizes[atom] for atom in group) < n:
            group.append(atoms.pop(0))
        if math.prod(sizes[atom] for atom in group) != n:
            raise ConversionError(f"expected a shape that keeps features and steps whole, got {list(wanted)}")
        new.append(tuple(group))
    if atoms:
        raise ConversionError(f"expected a shape of as many numbers, got {list(wanted)}")
    return tuple(new)
