"""Columns of numbers from a CSV file; errors name line and column."""

import itertools
import math
import os
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm.data.tables import Row, open_table
from cylstm.data.text_files import DataFileError, listed

Array = NDArray[np.float64]
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # in lower case
UNNAMED = re.compile(r"|Unnamed: \d+")  # as pandas writes its column of row numbers, and reads such a file

LARGEST = 1e100  # squares of larger values overflow


def read_csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] | Literal["numbers"] | None = None,
    *,
    header: bool = True,
    delimiter: str = ",",
    missing: Literal["error", "interpolate"] = "error",
) -> tuple[Array, list[str]]:
    """Read columns of a CSV file, one row per time step.

    Trailing rows of empty cells, which spreadsheets may write, are ignored.

    Parameters
    ----------
    path : path
        A text file in UTF-8, or in UTF-16 with a byte order mark.
    columns : sequence of str or "numbers", optional
        Column names, or numbers counted from 1 if there is no header. "numbers" selects all columns with a
        number in the first row. By default, the only such column. Columns without a name, such as row
        numbers written by pandas, are selected only if named; a warning says so.
    header : bool
        Whether the first line names the columns.
    delimiter : str
    missing : {"error", "interpolate"}
        Raise an error for empty cells (also NA, NaN, null, ?), or return them as NaN, for `known_rows` and
        `interpolated`. A column whose values start later or end earlier than others' raises an error.

    Returns
    -------
    values : ndarray
        (rows, columns).
    names : list of str

    Raises
    ------
    DataFileError
        If the file is not a table of numbers as described; the message names the place. A ValueError.
    MemoryError
        If the file is too large; the message names it.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "sales.csv")
    >>> with open(path, "w") as file:
    ...     _ = file.write("month,sales\\n2024-01,5\\n2024-02,\\n2024-03,7\\n,\\n")
    >>> values, names = read_csv(path, missing="interpolate")
    >>> names, interpolated(values)[:, 0]
    (['sales'], array([5., 6., 7.]))
    """
    try:
        return _read(path, columns, header, delimiter, missing)
    except MemoryError as error:
        raise MemoryError(str(error) or f"{path}: does not fit into memory") from None


def _read(
    path: str | os.PathLike[str], columns: Any, header: bool, delimiter: str, missing: str
) -> tuple[Array, list[str]]:
    names, rows = open_table(path, header, delimiter)
    if header and all(number_of(name) is not None for name in names):
        raise DataFileError(
            f"{path}, line 1: expected names of columns, got numbers",
            "header", False, "if the file has no header",
        )  # fmt: skip
    first = next(rows)
    if columns is None or columns == "numbers":
        chosen = _numeric(path, names, first, header)
        if columns is None and len(chosen) != 1:
            raise DataFileError(
                f"{path}: expected one column of numbers, got {listed(chosen)}",
                "columns",
                purpose="to select",
            )
    else:
        chosen = list(columns)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise DataFileError(
            f"{path}: no column {listed(unknown) or '(none selected)'}; it has {listed(names)}"
        )
    counts, asked = Counter(names), Counter(chosen)
    twice = [name for name in chosen if counts[name] > 1 or asked[name] > 1]
    if twice:
        raise DataFileError(f"{path}: column {twice[0]}: expected once, got it more than once")
    places = [names.index(name) for name in chosen]
    values, lines = _numbers(path, chosen, places, itertools.chain([first], rows))
    _check_missing(path, values, chosen, lines, missing)
    return values, chosen


def _numeric(path: Any, names: list[str], first: Row, header: bool) -> list[str]:
    """Return the named columns with a number in the first row."""
    found = [i for i, cell in enumerate(first.cells) if number_of(cell) is not None]
    unnamed = [i for i in found if header and UNNAMED.fullmatch(names[i])]
    if len(found) == len(unnamed):
        cells = first.cells if len(first.cells) <= 12 else [*first.cells[:12], "…"]
        kind = "columns of numbers that have a name" if unnamed else "columns of numbers"
        raise DataFileError(
            f"{path}, line {first.line}: expected {kind}, got the cells {cells}",
            "delimiter", purpose="if they were split at the wrong places",
        )  # fmt: skip
    if unnamed:
        warnings.warn(f"{path}: column {unnamed[0] + 1} has no name and is left out", stacklevel=4)
    return [names[i] for i in found if i not in unnamed]


def _numbers(
    path: Any, names: list[str], places: list[int], rows: Iterable[Row]
) -> tuple[Array, "array[int]"]:
    """Parse the cells at these places: numbers (rows, columns), and the line of each row."""
    numbers, lines = array("d"), array("I")
    for line, cells in rows:
        try:
            numbers.extend([usable(cells[i]) for i in places])
        except ValueError:
            raise _unusable(f"{path}, line {line}", names, [cells[i] for i in places]) from None
        lines.append(line)
    return np.frombuffer(numbers).reshape(-1, len(places)), lines


def _unusable(place: str, names: list[str], cells: list[str]) -> DataFileError:
    """Build the error of the first invalid cell of a row."""
    for name, cell in zip(names, cells, strict=True):
        try:
            usable(cell)
        except ValueError as error:
            return DataFileError(f"{place}, column {name}: {error}")
    raise AssertionError("every cell is valid")


def number_of(cell: str) -> float | None:
    """Parse a cell: its number, NaN if it is empty, or None if it is anything else."""
    try:
        return None if "_" in cell else float(cell)  # float() accepts underscores
    except ValueError:
        return math.nan if cell.lower() in MISSING else None


def usable(cell: str) -> float:
    """Parse a cell: its number, or NaN if it is empty; ValueError if not finite or its square overflows."""
    number = number_of(cell)
    if number is None or math.isinf(number):
        raise ValueError(f"expected a finite number, got {cell[:40]!r}")
    if abs(number) >= LARGEST:
        raise ValueError(f"expected an absolute value below {LARGEST:g}, got {cell[:40]!r}")
    return number


def _check_missing(path: Any, values: Array, names: list[str], lines: "array[int]", missing: str) -> None:
    """Raise an error for empty columns, and for missing values that are not or cannot be interpolated."""
    known = ~np.isnan(values)
    if known.all():
        return
    for name, column in zip(names, known.T, strict=True):
        if not column.any():
            raise DataFileError(f"{path}, column {name}: no values at all")
    if missing != "interpolate":
        j = int(np.argmin(known.all(axis=0)))
        line = lines[int(np.argmin(known[:, j]))]
        raise DataFileError(
            f"{path}, column {names[j]}: {(~known[:, j]).sum()} missing values, the first in line {line}",
            "missing", "interpolate", "to interpolate between known values",
        )  # fmt: skip
    firsts, lasts = known.argmax(axis=0), len(known) - 1 - known[::-1].argmax(axis=0)
    first, last = int(firsts.min()), int(lasts.max())
    for name, its_first, its_last in zip(names, firsts.tolist(), lasts.tolist(), strict=True):
        if its_first > first or its_last < last:
            raise DataFileError(
                f"{path}, column {name}: has values from line {lines[its_first]} to {lines[its_last]}, "
                f"others from line {lines[first]} to {lines[last]}; missing values at the start or the end "
                "cannot be interpolated; shorten the table, or leave the column out"
            )


def known_rows(values: Array) -> slice:
    """Return the rows of (N, C) from the first to the last with a value.

    >>> known_rows(np.array([[np.nan], [1.0], [np.nan], [3.0], [np.nan]]))
    slice(1, 4, None)
    """
    known = np.flatnonzero(~np.isnan(values).all(axis=1))
    return slice(int(known[0]), int(known[-1]) + 1) if len(known) else slice(0, 0)


def interpolated(values: Array) -> Array:
    """Interpolate columns linearly between known values; missing values at the ends stay NaN.

    >>> interpolated(np.array([[np.nan], [1.0], [np.nan], [3.0], [np.nan]]))[:, 0]
    array([nan,  1.,  2.,  3., nan])
    """
    filled = values.copy()
    rows: NDArray[Any] = np.arange(len(values))
    for column in filled.T:
        gaps = np.isnan(column)
        if gaps.any() and not gaps.all():
            column[gaps] = np.interp(rows[gaps], rows[~gaps], column[~gaps], left=np.nan, right=np.nan)
    return filled
