"""Reading and writing of CSV files, protected against formula injection.

A text cell that a spreadsheet would interpret as a formula, such as `=1+1` or `@name`, is written with a
leading `'`, which is removed on reading. Numbers are written unchanged.
"""

import csv
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cylstm.data.text_files import DataFileError, text_lines

FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")  # the last signs are full-width
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
QUOTED = re.compile(r'[",;\t\r\n]|^\s|\s$')  # spreadsheets may also treat semicolons and tabs as delimiters


class Row(NamedTuple):
    """Cells without surrounding white space, and the number of their last line."""

    line: int
    cells: list[str]


def open_table(
    path: str | os.PathLike[str], header: bool = True, delimiter: str = ","
) -> tuple[list[str], Iterator[Row]]:
    """Return the column names, or their numbers from 1, and an iterator over rows of equal length.

    Trailing rows of empty cells are ignored.

    Raises
    ------
    DataFileError, OSError, MemoryError
        If the file is not such a table, here or during iteration; the message names the line.
    """
    rows = _equal_rows(path, header, delimiter)
    first = next(rows, None)
    second = next(rows, None) if header else first
    if first is None or second is None:
        found = 0 if first is None else 1
        raise DataFileError(f"{path}: expected lines of numbers, got {found} lines")
    names = first.cells if header else [str(i) for i in range(1, len(first.cells) + 1)]
    return [cell_read(name) for name in names], itertools.chain([second], rows)


def _equal_rows(path: str | os.PathLike[str], header: bool, delimiter: str) -> Iterator[Row]:
    """Yield rows as long as the first; skip empty ones before the header and at the end of the file."""
    width, top = 0, 0
    empty: list[tuple[int, int]] = []  # line and cell count of empty rows that may be trailing
    for row in _rows(path, delimiter):
        line, cells = row
        if not width and not any(cells) and (header or not cells):
            continue
        width, top = width or len(cells), top or line
        if not any(cells) and len(cells) in (0, width):
            empty.append((line, len(cells)))
            continue
        for empty_line, found in empty:
            if not found and width > 1:  # in a table of one column, an empty line is an empty cell
                raise DataFileError(f"{path}, line {empty_line}: expected {width} cells, got an empty line")
            yield Row(empty_line, [""] * width)
        empty.clear()
        if len(cells) != width:
            raise DataFileError(
                f"{path}, line {line}: expected {width} cells as in line {top}, got {len(cells)}",
                "delimiter", purpose="if the cells were cut in the wrong places",
            )  # fmt: skip
        yield row


def _rows(path: str | os.PathLike[str], delimiter: str) -> Iterator[Row]:
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"':
        raise ValueError(f"delimiter: expected one character other than a quote, got {delimiter!r}")
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataFileError(f"{path}, line {start}: not a row of CSV: {_explained(str(error))}") from None
        if cells is None:
            return
        yield Row(reader.line_num, [cell.strip() for cell in cells])


def _lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield lines with unchanged line ends; "\\r\\r\\n", which some programs write, is one line end."""
    before = ""
    for line in text_lines(path, newline=""):
        if line == "\r\n" and before.endswith("\r"):
            before = line
            continue
        before = line
        yield line


def _explained(error: str) -> str:
    """Translate an error message of the csv module."""
    if "unexpected end of data" in error:
        return "unclosed quote"
    if "field larger than field limit" in error:
        return f"a cell of more than {csv.field_size_limit()} characters; is a quote unclosed?"
    return error


def read_table(
    path: str | os.PathLike[str], header: bool = True, delimiter: str = ","
) -> tuple[list[list[str]], list[str], list[int]]:
    """Read a whole table: its rows, the column names, and the last line number of each row."""
    names, rows = open_table(path, header, delimiter)
    cells, lines = [], []
    for row in rows:
        cells.append([cell_read(cell) for cell in row.cells])
        lines.append(row.line)
    return cells, names, lines


def cell_written(value: Any) -> str:
    """Format a value as a CSV cell that spreadsheets do not interpret as a formula.

    >>> [cell_written(value) for value in ("up", "=1+1", "-1.5", "-a", "'=b", -1.5)]
    ['up', "'=1+1", '-1.5', "'-a", "''=b", '-1.5']
    """
    text = str(value)
    if isinstance(value, str) and FORMULA.match(text) and not NUMBER.fullmatch(text):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def cell_read(cell: str) -> str:
    """Undo `cell_written`, given the cell without CSV quotes."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def written(rows: Iterable[Sequence[Any]]) -> str:
    """Format rows as the text of a CSV file."""
    return "".join(",".join(map(cell_written, row)) + "\n" for row in rows)
