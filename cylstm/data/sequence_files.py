"""Reading of sequences for classification: `.ts` files, or one CSV file per sequence and a label table."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm.data.series import interpolated, known_rows, read_csv, usable
from cylstm.data.tables import read_table
from cylstm.data.text_files import DataFileError, listed, text_lines

Array = NDArray[np.float64]
Missing = Literal["error", "interpolate"]
FLAGS = ("timestamps", "missing", "univariate", "equallength", "classlabel", "targetlabel")
HEADERS = (*FLAGS, "problemname", "dimension", "dimensions", "serieslength", "data")


class SequenceSet(NamedTuple):
    """Sequences with their names and labels.

    Parameters
    ----------
    values : list of ndarray
        (T_i, channels) each.
    labels : list of str or None
        None if the files have no labels.
    names : list of str
        Names of the CSV files, or numbers of the sequences of a `.ts` file, starting from 1.
    columns : list of str
        Names of the channels in CSV files; empty for `.ts` files.
    """

    values: list[Array]
    labels: list[str] | None
    names: list[str]
    columns: list[str]


def read_sequences(
    paths: Sequence[str | os.PathLike[str]],
    labels: str | os.PathLike[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    header: bool = True,
    delimiter: str = ",",
    missing: Missing = "error",
) -> SequenceSet:
    """Read all sequences of the given files.

    Parameters
    ----------
    paths : sequence of path
        `.ts` files, or CSV files and folders of them. Rows of a CSV file are steps, columns are channels.
    labels : path, optional
        For CSV files: a CSV file with the columns `file` and `label` and the same delimiter. Only the files
        in it are read from a folder. Names and links to files outside of the folder raise an error.
    columns : sequence of str, optional
        Columns of the CSV files. By default, all named numeric columns of the first file.
    header, delimiter, missing
        As for `read_csv`; `missing` also applies to `.ts` files.

    Raises
    ------
    ValueError
        If a file is invalid, or files differ in their channels; the message names the file and line.
    OSError
        If a file cannot be read.
    """
    kinds = set(map(is_ts, paths))
    if len(kinds) != 1:
        raise ValueError(f"expected .ts files, or CSV files and folders of them, got {listed(paths)}")
    if kinds == {True}:
        if labels is not None:
            raise ValueError(f"{labels}: expected no file of labels for .ts files, which contain labels")
        return _join([read_ts(path, missing=missing) for path in paths], paths)
    known = None if labels is None else _read_labels(labels, delimiter)
    files = [(name, file) for path in paths for name, file in _csv_files(Path(path), known, labels)]
    sequences, use_all_columns = [], not columns
    for name, file in files:
        if known is not None and name not in known:
            raise ValueError(f"{labels}: expected a label for each file, got none for {name}")
        values, columns = read_csv(
            file, columns or "numbers", header=header, delimiter=delimiter, missing=missing
        )
        sequences.append(values)
    names = [name for name, _ in files]
    if use_all_columns:
        _warn_about_row_numbers(sequences, columns or [])
    sequences = _fill_gaps(sequences, [str(file) for _, file in files])
    return SequenceSet(
        sequences, None if known is None else [known[name] for name in names], names, list(columns or [])
    )


def _fill_gaps(sequences: list[Array], locations: Sequence[str]) -> list[Array]:
    """Interpolate missing values; drop leading and trailing steps without values, with a warning."""
    filled, shortened = [], []
    for values, location in zip(sequences, locations, strict=True):
        rows = known_rows(values)
        if rows.stop - rows.start < len(values):
            shortened.append(location)
        filled.append(interpolated(values[rows]))
    if shortened:
        more = f" and {len(shortened) - 1} more" if len(shortened) > 1 else ""
        warnings.warn(
            f"{shortened[0]}{more}: steps without values at the beginning or the end are left out",
            stacklevel=3,
        )
    return filled


def _warn_about_row_numbers(sequences: list[Array], columns: Sequence[str]) -> None:
    """Warn about columns that number the rows from 0 or 1."""
    for j, name in enumerate(columns):
        if all(
            len(values) > 1 and values[0, j] in (0, 1) and (np.diff(values[:, j]) == 1).all()
            for values in sequences
        ):
            warnings.warn(
                f"column {name} counts the rows of every file and is used as a channel; to leave it out, "
                "select columns explicitly",
                stacklevel=3,
            )


def is_ts(path: str | os.PathLike[str]) -> bool:
    """Whether the file name ends in `.ts`."""
    return Path(path).suffix.lower() == ".ts"


def _csv_files(
    path: Path, known: dict[str, str] | None, labels: str | os.PathLike[str] | None
) -> list[tuple[str, Path]]:
    """Return names and paths: the file itself, or the labelled files of a folder, or all of its CSV files."""
    if not path.is_dir():
        return [(path.name, path)]
    if known is not None:
        return [(name, _inside(path, name, f"{labels}: ")) for name in known]
    with os.scandir(path) as entries:
        names = sorted(
            entry.name for entry in entries
            if entry.name.lower().endswith(".csv") and not entry.name.startswith(".")
        )  # fmt: skip
    if not names:
        raise ValueError(f"{path}: expected a folder of .csv files, got none in it")
    return [(name, _inside(path, name, "")) for name in names]


def _inside(folder: Path, name: str, location: str) -> Path:
    """Return the path of a file in a folder; raise ValueError if it is outside of the folder."""
    file = folder / name
    if file.parent == folder and name != ".." and not file.is_symlink():
        return file
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{location}expected a file inside of {folder}, got {name}, which is outside")
    return file


def _read_labels(path: str | os.PathLike[str], delimiter: str) -> dict[str, str]:
    """Read the label of each file from a table."""
    rows, names, lines = read_table(path, delimiter=delimiter)
    for name in ("file", "label"):
        if names.count(name) != 1:
            raise DataFileError(
                f"{path}, line 1: expected columns file and label, got {listed(names)}",
                "delimiter", purpose="if the cells were split at the wrong places",
            )  # fmt: skip
    labels: dict[str, str] = {}
    seen = set()
    for line, row in zip(lines, rows, strict=True):
        file, label = row[names.index("file")], row[names.index("label")]
        if not file or not label:
            raise DataFileError(f"{path}, line {line}: expected a file and a label, got an empty cell")
        if os.path.normpath(file) in seen:
            raise DataFileError(f"{path}, line {line}: expected each file once, got {file} again")
        seen.add(os.path.normpath(file))
        labels[file] = label
    return labels


def _join(
    parts: list[tuple[list[Array], list[str] | None]], paths: Sequence[str | os.PathLike[str]]
) -> SequenceSet:
    values = [sequence for sequences, _ in parts for sequence in sequences]
    for path, (sequences, labels) in zip(paths, parts, strict=True):
        if sequences[0].shape[1] != values[0].shape[1]:
            raise ValueError(
                f"{path}: expected {values[0].shape[1]} dimensions, as {paths[0]} has, "
                f"got {sequences[0].shape[1]}"
            )
        if (labels is None) != (parts[0][1] is None):
            raise ValueError(f"{path}: expected labels in all files or in none, as {paths[0]}")
    labels = (
        None if parts[0][1] is None else [label for _, part_labels in parts for label in part_labels or ()]
    )
    return SequenceSet(values, labels, [str(i) for i in range(1, len(values) + 1)], [])


def read_ts(
    path: str | os.PathLike[str], *, missing: Missing = "error"
) -> tuple[list[Array], list[str] | None]:
    """Read a file in the format of the UEA and UCR archives (http://timeseriesclassification.com).

    The header has lines `@name value` and ends with `@data`. Each following line is a sequence: dimensions
    and label, separated by `:`, with values separated by commas. Lines that start with `#` are comments.

    Parameters
    ----------
    path : path
    missing : {"error", "interpolate"}
        Raise an error for missing values (`?`, NaN), or interpolate between neighbours. Leading and trailing
        steps at which all dimensions are missing, such as padding, are dropped with a warning; other missing
        values there raise an error.

    Returns
    -------
    sequences : list of ndarray
        (T_i, dimensions) each.
    labels : list of str, or None
        None if the header declares that there are none.

    Raises
    ------
    DataFileError
        If the file is not in this format; the message names the line. A subclass of ValueError.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "two.ts")
    >>> with open(path, "w") as file:
    ...     _ = file.write("@classLabel true up down\\n@data\\n1,2,3:5,5,6:up\\n9,8:4,4:down\\n")
    >>> sequences, labels = read_ts(path)
    >>> [sequence.shape for sequence in sequences], labels
    ([(3, 2), (2, 2)], ['up', 'down'])
    """
    header = _Header()
    sequences, labels, locations = [], [], []
    for number, line in enumerate(text_lines(path, comment="#"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if not header.complete:
                header.read(line)
                continue
            values, label = header.sequence(line, missing)
        except DataFileError as error:
            raise error.at(f"{path}, line {number}") from None
        except ValueError as error:
            raise DataFileError(f"{path}, line {number}: {error}") from None
        sequences.append(values)
        labels.append(label)
        locations.append(f"{path}, line {number}")
    if not header.complete:
        raise DataFileError(f"{path}: not a .ts file: expected a line @data, got none")
    if not sequences:
        raise DataFileError(f"{path}: expected sequences after @data, got none")
    return _fill_gaps(sequences, locations), labels if header.classes is not None else None


class _Header:
    """The header of a `.ts` file, which parses and checks the sequences after it."""

    def __init__(self) -> None:
        self.complete = False
        self.classes: list[str] | None = None
        self.dimensions: int | None = None  # declared, or those of the first sequence
        self.length: int | None = None  # of all sequences, if declared to be equal
        self._declared: dict[str, str] = {}

    def read(self, line: str) -> None:
        """Parse one line."""
        if not line.startswith("@"):
            raise ValueError(f"expected a line of the header, @..., before @data, got {line[:40]!r}")
        name, value = (*line[1:].split(None, 1), "", "")[:2]
        name = name.lower()
        if name not in HEADERS:
            raise ValueError(f"expected one of @{', @'.join(HEADERS)}, got @{name}")
        if name in self._declared:
            raise ValueError(f"expected @{name} once, got it twice")
        self._declared[name] = value
        if name in FLAGS and (value.split() or [""])[0].lower() not in ("true", "false"):
            raise ValueError(f"expected @{name} true or false, got {value!r}")
        if name in ("dimension", "dimensions", "serieslength") and not (value.isdecimal() and int(value)):
            raise ValueError(f"expected a positive int after @{name}, got {value!r}")
        if name == "classlabel" and self._is("classlabel"):
            self.classes = value.split()[1:]
            if not self.classes or len(set(self.classes)) != len(self.classes):
                raise ValueError(f"expected the names of the classes after @classLabel true, got {value!r}")
        if name == "data":
            self._finish()

    def _is(self, name: str) -> bool:
        return self._declared.get(name, "false").split()[0].lower() == "true"

    def _finish(self) -> None:
        if self._is("timestamps"):
            raise ValueError("expected @timeStamps false, got true; series with timestamps are not supported")
        if self._is("targetlabel"):
            raise ValueError("expected classes, got @targetLabel true; regression targets are not supported")
        if "classlabel" not in self._declared:
            raise ValueError("expected @classLabel before @data, got none")
        declared = self._declared.get("dimensions") or self._declared.get("dimension")
        self.dimensions = int(declared) if declared else 1 if self._is("univariate") else None
        if self._is("equallength") and "serieslength" in self._declared:
            self.length = int(self._declared["serieslength"])
        self.complete = True

    def sequence(self, line: str, missing: Missing) -> tuple[Array, str]:
        """Parse a sequence: values (T, dimensions) and label."""
        if line.startswith("@"):
            raise ValueError(f"expected a sequence after @data, got {line[:40]!r}")
        parts, label = line.split(":"), ""
        if self.classes is not None:
            label = parts.pop().strip()
            if label not in self.classes:
                raise ValueError(
                    f"expected a class, one of {listed(self.classes)}, at the end, got {label[:40]!r}"
                )
        if not parts:
            raise ValueError("expected 1 or more dimensions, got 0")
        self.dimensions = self.dimensions or len(parts)
        if len(parts) != self.dimensions:
            raise ValueError(f"expected {self.dimensions} dimensions, got {len(parts)}")
        columns = [_parse_numbers(part, f"dimension {d}", missing) for d, part in enumerate(parts, 1)]
        lengths = sorted({len(column) for column in columns})
        if len(lengths) > 1:
            raise ValueError(f"expected dimensions of one length, got {lengths[0]} to {lengths[-1]} values")
        if self._is("equallength"):
            self.length = self.length or lengths[0]
            if lengths[0] != self.length:
                raise ValueError(
                    f"expected {self.length} values because of @equalLength true, got {lengths[0]}"
                )
        return _check_ends(np.array(columns).T), label


def _check_ends(values: Array) -> Array:
    """Check that all dimensions of values (T, dimensions) start and end at the same steps."""
    known = ~np.isnan(values)
    rows = known_rows(values)
    is_uneven = ~(known[rows.start] & known[rows.stop - 1])
    if is_uneven.any():
        raise ValueError(
            f"dimension {int(is_uneven.argmax()) + 1}: missing values at the start or the end cannot be "
            "interpolated where other dimensions have values"
        )
    return values


def _parse_numbers(text: str, location: str, missing: Missing) -> list[float]:
    """Parse the values of one dimension; NaN if missing."""
    numbers = []
    for i, cell in enumerate(text.split(","), 1):
        cell = cell.strip()
        try:
            if not cell:
                raise ValueError("expected a finite number, got ''")
            number = usable(cell)
        except ValueError as error:
            raise ValueError(f"{location}, value {i}: {error}") from None
        if math.isnan(number) and missing == "error":
            raise DataFileError(
                f"{location}, value {i}: missing, {cell!r}",
                "missing", "interpolate", "to interpolate between known values",
            )  # fmt: skip
        numbers.append(number)
    if all(map(math.isnan, numbers)):
        raise ValueError(f"{location}: no values at all")
    return numbers
