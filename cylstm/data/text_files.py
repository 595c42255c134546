"""Text files of data: which files are opened, and in which encodings; errors that say what to pass."""

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

# Names by which a shell passes an open file: `cylstm train <(zcat data.gz)`, `... | cylstm train /dev/stdin`.
PASSED_BY_SHELL = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+")
MARKS = (  # byte order marks; that of UTF-32 begins with one of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that errors="surrogateescape" has let through


class DataFileError(ValueError):
    """A file of data that is not as expected.

    Parameters
    ----------
    problem : str
        With the place, what was expected and what was found.
    argument : str, optional
        That of the reading function which may help.
    value : optional
        What to pass as this argument, if that is known.
    purpose : str
        What it does, from "to" or "if" on.

    Attributes
    ----------
    problem, argument, value, purpose
        As given, so that a caller with options of its own, as the command has, can name these instead.
    """

    def __init__(self, problem: str, argument: str = "", value: Any = None, purpose: str = "") -> None:
        self.problem, self.argument, self.value, self.purpose = problem, argument, value, purpose
        super().__init__(self.worded(f"{argument}={'' if value is None else repr(value)}"))

    def worded(self, argument: str) -> str:
        """The message, with these words for the argument."""
        return f"{self.problem}; pass {argument} {self.purpose}" if self.argument else self.problem

    def at(self, place: str) -> "DataFileError":
        """The same error with its place before it."""
        return DataFileError(f"{place}: {self.problem}", self.argument, self.value, self.purpose)


def listed(names: Iterable[Any], most: int = 12) -> str:
    """Names for a message, with commas; shortened if there are many or long ones."""
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in map(str, names)]
    more = f", … ({len(shown)} in all)" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def text_lines(
    path: str | os.PathLike[str], *, newline: str | None = None, comment: str = ""
) -> Iterator[str]:
    """The lines of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Parameters
    ----------
    path : path
        A regular file, or an open one that the shell passes as /dev/stdin or /dev/fd/N.
    newline : str, optional
        As for `open`: None ends every line with a single line feed, "" leaves the ends as they are.
    comment : str, optional
        Lines that begin with it may hold bytes of any encoding.

    Yields
    ------
    str
        With their ends, without a byte order mark.

    Raises
    ------
    DataFileError
        If it is no text in one of these encodings; the message names the line.
    MemoryError
        If it is larger than a sixteenth of the machine's memory, or its lines do not fit.
    OSError
        If it cannot be read, or is neither of these files.
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
    except UnicodeDecodeError as error:  # of UTF-16 and UTF-32: surrogateescape lets all others through
        place = f"{path}, line {number + 1}"
        raise DataFileError(f"{place}: expected a text file in {encoding.upper()}: {error.reason}") from None
    except MemoryError as error:
        raise MemoryError(str(error) or f"{path}: does not fit into memory") from None


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole of such a file, with line feeds as ends of lines; raises as `text_lines`."""
    try:
        return "".join(text_lines(path))
    except MemoryError as error:
        raise MemoryError(str(error) or f"{path}: does not fit into memory") from None


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or what the shell passes; anything else is refused, without waiting for it."""
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
    """What the shell passes, which may have no end: no more of it is read than memory has room for."""

    def __init__(self, path: str | os.PathLike[str], handle: int) -> None:
        super().__init__(handle, "rb")
        self._path, self._left = path, largest()

    def readinto(self, buffer: Any) -> int:
        """As it is, until it is too much."""
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
    """Bytes that are read of one file: a sixteenth of the memory, as what is made of them is larger."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16
    except (AttributeError, ValueError, OSError):  # not known on this system
        return 2**31


def _encoding(path: str | os.PathLike[str], file: Any) -> str:
    """By its byte order mark; without one UTF-8, which has no NUL bytes in text."""
    start = file.peek(4096)
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        found = "a NUL byte, as in binary files and in UTF-16 without a byte order mark"
        raise _not_text(path, start[: start.index(b"\0")].count(b"\n") + 1, found)
    return "utf-8"


def _check_decoded(path: str | os.PathLike[str], number: int, line: str) -> None:
    if undecoded := NOT_UTF8.search(line):
        raise _not_text(path, number, f"the byte 0x{ord(undecoded[0]) - 0xDC00:02x}")


def _not_text(path: str | os.PathLike[str], number: int, found: str) -> DataFileError:
    """An error that says what the file is, if that is known."""
    kind = file_kind(path)
    if kind in (TEXT, UNKNOWN):
        expected = f"expected a text file in UTF-8, got {found}; save text in that encoding"
        return DataFileError(f"{path}, line {number}: {expected}")
    return DataFileError(f"{path}: expected a text file, got {kind.words}")
