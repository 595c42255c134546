"""Output of the command. Control characters in text from files are escaped for terminals."""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# Control characters (C0, DEL, C1), bidirectional marks, line separators, surrogates.
CONTROL = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
STANDARD_OUTPUT = "standard output"  # as the file name in errors


def printable(text: str, but: str = "") -> str:
    r"""Escape, as `repr` does, all characters that could change what a terminal shows.

    >>> printable("red \x1b[31m, \u202egnp.exe")
    'red \\x1b[31m, \\u202egnp.exe'
    """
    return CONTROL.sub(lambda found: found[0] if found[0] in but else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def show(line: Any = "") -> None:
    """Print a line of a report on standard output."""
    _write(printable(str(line)) + "\n")


def show_data(text: str) -> None:
    """Print data on standard output: unchanged to a file or pipe, escaped on a terminal."""
    _write(printable(text, but="\n\t") if sys.stdout.isatty() else text)


def _write(text: str) -> None:
    with _naming_output():
        sys.stdout.write(text)


def flush() -> None:
    """Flush standard output."""
    with _naming_output():
        sys.stdout.flush()


@contextlib.contextmanager
def _naming_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from None


def discard_output() -> None:
    """Discard buffered output if standard output cannot be written."""
    with contextlib.suppress(OSError):  # a stream without a file, of a caller in Python
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(message: str) -> None:
    """Print a warning line on standard error."""
    _note(f"warning: {message}")


def fail(message: str, status: int = 1) -> int:
    """Print an error line on standard error; returns the exit status."""
    _note(message)
    return status


def _note(message: str) -> None:
    sys.stderr.write(f"cylstm: {printable(message)}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def warnings_as_lines(reword: Callable[[str], str]) -> Iterator[None]:
    """Print warnings of the library, reworded, like those of the command."""
    earlier = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_, **__: warn(reword(str(message)))
        try:
            yield
        finally:
            warnings.showwarning = earlier
