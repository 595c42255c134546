"""Reading of text files: permitted file types, encodings, and errors that suggest an argument."""

import codecs
import errno
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from cylstm._formats.file_kinds import TEXT, UNKNOWN, file_kind
from cylstm._system.atomic_files import open_regular

# Paths of files opened by a shell: `cylstm train <(zcat data.gz)`, `... | cylstm train /dev/stdin`.
PASSED_BY_SHELL = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+")
MARKS = (  # UTF-32 first: its byte order mark starts with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # undecodable bytes under errors="surrogateescape"


class DataFileError(ValueError):
    """A data file with unexpected contents.

    Parameters
    ----------
    problem : str
        The place in the file, what was expected and what was found.
    argument : str, optional
        The argument of the reading function that may help.
    value : optional
        The value to pass, if known.
    purpose : str
        What the argument does, a phrase that starts with "to" or "if".

    Attributes
    ----------
    problem, argument, value, purpose
        As passed. The command line uses them to name its options instead of arguments.
    """

    def __init__(self, problem: str, argument: str = "", value: Any = None, purpose: str = "") -> None:
        self.problem, self.argument, self.value, self.purpose = problem, argument, value, purpose
        super().__init__(self.worded(f"{argument}={'' if value is None else repr(value)}"))

    def worded(self, argument: str) -> str:
        """The message, with the given text for the argument."""
        return f"{self.problem}; pass {argument} {self.purpose}" if self.argument else self.problem

    def at(self, place: str) -> "DataFileError":
        """Return this error with the place prepended."""
        return DataFileError(f"{place}: {self.problem}", self.argument, self.value, self.purpose)


def listed(names: Iterable[Any], limit: int = 12) -> str:
    """Join names with commas for a message; shorten long names and long lists."""
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in map(str, names)]
    more = f", … ({len(shown)} in all)" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def text_lines(
    path: str | os.PathLike[str], *, newline: str | None = None, comment: str = ""
) -> Iterator[str]:
    """Iterate over the lines of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Parameters
    ----------
    path : path
        A regular file, or one opened by the shell, such as /dev/stdin or /dev/fd/N.
    newline : str, optional
        As for `open`: None converts every line end to a line feed, "" leaves line ends unchanged.
    comment : str, optional
        Lines with this prefix may contain bytes of any encoding.

    Yields
    ------
    str
        Lines with their line ends, without a byte order mark.

    Raises
    ------
    DataFileError
        If the file is not text in one of these encodings; the message names the line.
    MemoryError
        If the file is larger than a sixteenth of the machine's memory, or its lines do not fit.
    OSError
        If the file cannot be read, or is not one of these kinds.
    """
    number, encoding = 0, ""
    try:
        with _opened(path) as file:
            encoding = _encoding(path, file)
            text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline=newline)
            for number, line in enumerate(text, 1):
                if not line.isascii() and not (comment and line.startswith(comment)):
                    _check_decoded(path, number, line)
                if "\0" in line:
                    raise _not_text(path, number, "a NUL byte")
                yield line
    except UnicodeDecodeError as error:  # only UTF-16 and UTF-32: with UTF-8, surrogateescape raises nothing
        place = f"{path}, line {number + 1}"
        raise DataFileError(f"{place}: expected a text file in {encoding.upper()}: {error.reason}") from None
    except MemoryError as error:
        raise MemoryError(str(error) or f"{path}: does not fit into memory") from None


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a whole file, with line feeds as line ends; same errors as `text_lines`."""
    try:
        return "".join(text_lines(path))
    except MemoryError as error:
        raise MemoryError(str(error) or f"{path}: does not fit into memory") from None


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file or one opened by the shell; reject others without blocking."""
    if not PASSED_BY_SHELL.fullmatch(str(path)):
        file = open_regular(path)
        if os.fstat(file.fileno()).st_size > largest():
            file.close()
            raise _too_large(path)
        return file
    handle = os.open(path, os.O_RDONLY)
    try:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return io.BufferedReader(_Bounded(path, handle))
    except BaseException:
        os.close(handle)
        raise


class _Bounded(io.FileIO):
    """A file opened by the shell, possibly endless: reading stops at a limit."""

    def __init__(self, path: str | os.PathLike[str], handle: int) -> None:
        super().__init__(handle, "rb")
        self._path, self._left = path, largest()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; raise MemoryError past the limit."""
        count = super().readinto(buffer) or 0
        self._left -= count
        if self._left < 0:
            raise _too_large(self._path)
        return count


def _too_large(path: str | os.PathLike[str]) -> MemoryError:
    return MemoryError(
        f"{path}: expected at most {largest() / 2**30:.1f} GiB, a sixteenth of this machine's memory, "
        "got more"
    )


def largest() -> int:
    """Return the size limit of a file in bytes: a sixteenth of the memory, because parsed data are larger."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16
    except (AttributeError, ValueError, OSError):  # not known on this system
        return 2**31


def _encoding(path: str | os.PathLike[str], file: Any) -> str:
    """Detect the encoding by the byte order mark; UTF-8 without one, whose text has no NUL bytes."""
    start = file.peek(4096)
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        found = "a NUL byte (a binary file, or UTF-16 without a byte order mark)"
        raise _not_text(path, start[: start.index(b"\0")].count(b"\n") + 1, found)
    return "utf-8"


def _check_decoded(path: str | os.PathLike[str], number: int, line: str) -> None:
    if undecoded := NOT_UTF8.search(line):
        raise _not_text(path, number, f"the byte 0x{ord(undecoded[0]) - 0xDC00:02x}")


def _not_text(path: str | os.PathLike[str], number: int, found: str) -> DataFileError:
    """Build an error that names the kind of file, if it is known."""
    kind = file_kind(path)
    if kind in (TEXT, UNKNOWN):
        expected = f"expected a text file in UTF-8, got {found}; save text in that encoding"
        return DataFileError(f"{path}, line {number}: {expected}")
    return DataFileError(f"{path}: expected a text file, got {kind.words}")
