"""Resource limits of readers: memory and work are bounded in proportion to the size of a file."""

from typing import NamedTuple


class Limit(NamedTuple):
    """A limit of `floor` units or `per_byte` units per byte of the file, whichever is larger."""

    floor: int
    per_byte: float


LIMITS = {
    "parameters": Limit(2**21, 1),  # of all layers; each takes at least one byte in the file
    "numbers": Limit(2**24, 4),  # computed at load time, as by constant folding
    "nodes": Limit(2**15, 1),  # of a graph after function expansion
    "bytes": Limit(2**24, 16),  # of expanded nodes, or of decompressed archive members
    "layers": Limit(2**10, 0),
}


class Budget:
    """Count the resources that a reader uses for one file.

    Parameters
    ----------
    size : int
        Size in bytes of the file and of files that belong to it.

    Examples
    --------
    >>> budget = Budget(size=100)
    >>> budget.spend("layers", 1000)
    >>> budget.spend("layers", 1000)
    Traceback (most recent call last):
        ...
    ValueError: expected at most 1024 layers of a file of 100 bytes, got 2000
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._spent = dict.fromkeys(LIMITS, 0)

    def limit(self, unit: str) -> int:
        """Return the limit of a unit in `LIMITS`."""
        floor, per_byte = LIMITS[unit]
        return max(floor, int(per_byte * self.size))

    def spend(self, unit: str, count: int) -> None:
        """Add to the count of a unit, before the resource is allocated.

        Raises
        ------
        ValueError
            If the total exceeds the limit.
        """
        self._spent[unit] += count
        self.check(unit, self._spent[unit])

    def check(self, unit: str, count: int) -> None:
        """Raise ValueError if `count` alone exceeds the limit, without adding it to the total."""
        if count > self.limit(unit):
            raise ValueError(
                f"expected at most {self.limit(unit)} {unit} of a file of {self.size} bytes, got {count}"
            )
