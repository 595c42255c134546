"""Parts of data in order of time."""

from typing import Any

from cylstm import _checks


def split(series: Any, validation: float = 0.1, test: float = 0.0, gap: int = 0) -> tuple[slice, ...]:
    """Rows for training, validation and test, in order of time: what is judged is later than what is learnt.

    Parameters
    ----------
    series : int or anything with a length
        Rows or samples, the earliest first, or how many there are.
    validation, test : float
        Shares of the rows, each rounded to at least one row; 0 for none.
    gap : int
        Rows that are left out between the parts, for data in which neighbours know of each other.

    Returns
    -------
    tuple of slice
        For training, validation and test; none for a share of 0.

    Raises
    ------
    ValueError
        If nothing would be left to learn from.

    Examples
    --------
    >>> from cylstm.data import split
    >>> split(100, validation=0.2)
    (slice(0, 80, None), slice(80, 100, None))
    >>> split([0.5] * 100, validation=0.2, test=0.1, gap=5)
    (slice(0, 60, None), slice(65, 85, None), slice(90, 100, None))
    """
    n = len(series) if hasattr(series, "__len__") else _checks.positive("series", series)
    shares = {
        "test": _checks.number("test", test, 0, 1),
        "validation": _checks.number("validation", validation, 0, 1),
    }
    gap = _checks.natural("gap", gap)
    parts, end = [], n
    for share in shares.values():
        if share:
            parts.append(slice(end - max(round(n * share), 1), end))
            end = parts[-1].start - gap
    if end < 1:
        raise ValueError(
            f"series: expected rows to learn from, got {n} rows for validation {validation}, test {test} "
            f"and gap {gap}"
        )
    return (slice(0, end), *reversed(parts))
