"""Columns of numbers from a CSV file, with every fault reported by line and column."""

import csv
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # in lower case

LARGEST = 1e100  # squares of larger values overflow


def read_csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] | Literal["numbers"] | None = None,
    *,
    header: bool = True,
    delimiter: str = ",",
    missing: Literal["error", "interpolate"] = "error",
) -> tuple[Array, list[str]]:
    """Numbers of chosen columns, a row for each time step.

    Parameters
    ----------
    path : path
    columns : sequence of str or "numbers", optional
        Names, or without a header numbers counted from 1; "numbers": all columns of numbers, as
        the first row has them. By default the only one, if there is just one.
    header : bool
        Whether the first line names the columns.
    delimiter : str
    missing : {"error", "interpolate"}
        Refuse empty cells (also NA, NaN, null, ?), or give them as NaN, for `interpolated`.

    Returns
    -------
    values : ndarray
        (rows, columns).
    names : list of str

    Raises
    ------
    ValueError
        If the file is no table of numbers as described; the message names the place.
    OSError
        If it cannot be read.
    """
    rows, names, lines = read_table(path, header, delimiter)
    if columns is None or columns == "numbers":
        found = [name for i, name in enumerate(names) if number_of(rows[0][i]) is not None]
        if not found:
            raise ValueError(
                f"{path}, line {lines[0]}: expected columns of numbers, got the cells {rows[0]}; "
                "if they were cut in the wrong places, pass --delimiter"
            )
        if columns is None and len(found) != 1:
            raise ValueError(f"{path}: expected one column of numbers, got {found}; choose with --columns")
        columns = found
    unknown = [name for name in columns if name not in names]
    if unknown or not columns:
        raise ValueError(
            f"{path}: no column {', '.join(unknown) or '(none chosen)'}; it has {', '.join(names)}"
        )
    twice = [name for name in columns if names.count(name) > 1 or list(columns).count(name) > 1]
    if twice:
        raise ValueError(f"{path}: column {twice[0]}: expected once, got it more than once")
    values = np.empty((len(rows), len(columns)))
    for j, name in enumerate(columns):
        i = names.index(name)
        for row, cells in enumerate(rows):
            number = number_of(cells[i])
            try:
                values[row, j] = usable(number, cells[i])
            except ValueError as error:
                raise ValueError(f"{path}, line {lines[row]}, column {name}: {error}") from None
        _check_missing(values[:, j], f"{path}, column {name}", lines, missing)
    return values, list(columns)


def read_table(
    path: str | os.PathLike[str], header: bool = True, delimiter: str = ","
) -> tuple[list[list[str]], list[str], list[int]]:
    """Rows of equally many cells, the names of the columns, and the line on which each row ends."""
    if len(delimiter) != 1:
        raise ValueError(f"--delimiter: expected one character, got {delimiter!r}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a text file in UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from None
    while numbered and not numbered[-1][1]:
        numbered.pop()
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    if rows and len(rows[0]) == 1:  # where an empty line is an empty cell
        rows = [row or [""] for row in rows]
    if len(rows) < 1 + header:
        raise ValueError(f"{path}: expected lines of numbers, got {len(rows)} lines")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}, line {line}: expected {len(rows[0])} cells as in line 1, got {len(row)}"
            )
    if not header:
        return rows, [str(i) for i in range(1, len(rows[0]) + 1)], lines
    names = rows.pop(0)
    if all(number_of(name) is not None for name in names):
        raise ValueError(
            f"{path}, line 1: expected names of columns, got numbers; pass --no-header if it has none"
        )
    return rows, names, lines[1:]


def number_of(cell: str) -> float | None:
    """The number in a cell, NaN if it is empty, None if it is something else."""
    if cell.lower() in MISSING:
        return float("nan")
    if "_" in cell:  # which float() would read past
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def usable(number: float | None, cell: str) -> float:
    """The number of a cell, if there is one whose square does not overflow; NaN where one is missing."""
    if number is None or np.isinf(number):
        raise ValueError(f"expected a finite number, got {cell[:40]!r}")
    if abs(number) >= LARGEST:
        raise ValueError(f"expected a number below {LARGEST:g} in size, got {cell[:40]!r}")
    return number


def _check_missing(column: Array, place: str, lines: list[int], missing: str) -> None:
    """Refuse a column with missing values, or of nothing else."""
    gaps = np.isnan(column)
    if gaps.any() and missing != "interpolate":
        line = lines[int(np.argmax(gaps))]
        raise ValueError(
            f"{place}: {gaps.sum()} missing values, the first in line {line}; "
            "pass --missing interpolate to fill them"
        )
    if gaps.all():
        raise ValueError(f"{place}: no values at all")


def interpolated(values: Array) -> Array:
    """The columns with straight lines across their gaps; the ends take the nearest value.

    >>> interpolated(np.array([[np.nan], [1.0], [np.nan], [3.0]]))[:, 0]
    array([1., 1., 2., 3.])
    """
    filled = values.copy()
    rows: NDArray[Any] = np.arange(len(values))
    for column in filled.T:
        gaps = np.isnan(column)
        if gaps.any() and not gaps.all():
            column[gaps] = np.interp(rows[gaps], rows[~gaps], column[~gaps])
    return filled
