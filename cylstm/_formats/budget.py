"""What a file may ask a reader for: memory and work are bounded by the file's size, here and nowhere else."""

from typing import NamedTuple


class Limit(NamedTuple):
    """At most `floor` units, or `per_byte` for each byte of the file if that is more."""

    floor: int
    per_byte: float


LIMITS = {
    "parameters": Limit(2**21, 1),  # of all layers: each is stored, in at least one byte
    "numbers": Limit(2**24, 4),  # computed from what is stored, before the first call
    "nodes": Limit(2**15, 1),  # of a graph whose functions are expanded
    "bytes": Limit(2**24, 16),  # that such nodes take, or that parts of an archive unpack to
    "layers": Limit(2**10, 0),
}


class Budget:
    """Counts what a reader makes of one file.

    Parameters
    ----------
    size : int
        Bytes of the file, with those of the files that belong to it.

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
        """The most that the file may ask for, of a unit in `LIMITS`."""
        floor, per_byte = LIMITS[unit]
        return max(floor, int(per_byte * self.size))

    def spend(self, unit: str, count: int) -> None:
        """Count more of a unit, before it is made.

        Raises
        ------
        ValueError
            If that is more in all than the file may ask for.
        """
        self._spent[unit] += count
        self.check(unit, self._spent[unit])

    def check(self, unit: str, count: int) -> None:
        """Raise the ValueError of `spend` for a single thing, which is not counted with others."""
        if count > self.limit(unit):
            raise ValueError(
                f"expected at most {self.limit(unit)} {unit} of a file of {self.size} bytes, got {count}"
            )
