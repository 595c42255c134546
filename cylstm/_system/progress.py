"""Progress output: a bar in terminals and notebooks, an occasional line of text elsewhere.

Failures of the output are ignored: without a usable `sys.stderr` there is no output, and a terminal that is
closed ends the output but not the computation.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

SECONDS = {"text": 5.0, "notebook": 1.0}  # minimum interval between lines
FRACTION = 0.02  # minimum interval between lines as a fraction of the elapsed time
_FAILURES = (OSError, ValueError, AttributeError)  # raised by a stream that is closed or not a stream

Place = Literal["terminal", "notebook", "text", ""]


class Progress:
    """Count steps of a computation and show them on standard error; a context manager.

    Shows a tqdm bar in a terminal, or in a Jupyter notebook with ipywidgets. In log files and other notebooks
    it writes an occasional line of text; computations of a few seconds write nothing to a log file.

    Parameters
    ----------
    total : int
        Number of steps.
    unit : str
        Name of a step in the plural.
    initial : int
        Number of steps completed before.
    leave : bool
        Whether a bar in a terminal remains at the end.
    shown : bool
        If false, show nothing.

    Examples
    --------
    >>> with Progress(3, "batches", shown=False) as progress:
    ...     for epoch in range(3):
    ...         progress.describe(f"epoch {epoch + 1}/3")
    ...         progress.update()
    ...         progress.results({"loss": 0.5})
    """

    def __init__(
        self, total: int, unit: str, *, initial: int = 0, leave: bool = True, shown: bool = True
    ) -> None:
        self._total, self._done, self._unit = total, initial, unit
        self._heading, self._numbers = "", ""
        self._start = self._written = time.monotonic()
        self._lines = 0
        self._bar: Any = None
        self._place = _place() if shown else ""
        if self._place in ("terminal", "notebook"):
            self._show(lambda: self._open_bar(leave))

    def _open_bar(self, leave: bool) -> None:
        if self._place == "terminal":
            from tqdm import tqdm
        elif importlib.util.find_spec("ipywidgets"):
            from tqdm.notebook import tqdm
        else:
            return
        self._bar = tqdm(
            total=self._total, initial=self._done, unit=f" {self._unit}", leave=leave, file=sys.stderr
        )

    def __enter__(self) -> "Progress":
        """Return the object itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the bar, or write a final line."""
        if self._bar is not None:
            self._show(self._bar.close)
        elif self._place == "notebook" or self._lines:
            self._show(self._write_line)

    def describe(self, text: str) -> None:
        """Set the heading of the following steps, such as an epoch."""
        self._heading = text
        if self._bar is not None:
            self._show(lambda: self._bar.set_description(text, refresh=False))

    def update(self, n: int = 1) -> None:
        """Count steps."""
        self._done += n
        if self._bar is not None:
            self._show(lambda: self._bar.update(n))
        elif self._place and self._is_due():
            self._show(self._write_line)

    def results(self, numbers: Mapping[str, float]) -> None:
        """Set results to show, such as those of the last epoch."""
        self._numbers = ", ".join(f"{name}={value:.4g}" for name, value in numbers.items())
        if self._bar is not None:
            self._show(lambda: self._bar.set_postfix_str(self._numbers, refresh=False))
        elif self._place == "notebook" and not self._lines:  # write the first line immediately
            self._show(self._write_line)

    def _is_due(self) -> bool:
        now = time.monotonic()
        return now - self._written >= max(SECONDS[self._place], FRACTION * (now - self._start))

    def _write_line(self) -> None:
        self._written, self._lines = time.monotonic(), self._lines + 1
        parts = [self._heading, f"{self._done} of {self._total} {self._unit}", self._numbers]
        seconds = self._written - self._start
        print(f"{', '.join(filter(None, parts))} ({seconds:.0f} s)", file=sys.stderr, flush=True)

    def _show(self, action: Callable[[], Any]) -> None:
        """Run an output action; after a failure, disable all further output."""
        try:
            action()
        except _FAILURES:
            if self._bar is not None:
                self._bar.disable = True
            self._bar, self._place = None, ""


def is_writable(stream: Any) -> bool:
    """Whether a stream exists and is open for writing."""
    try:
        stream.write("")
    except _FAILURES:
        return False
    return True


def _place() -> Place:
    """Detect where standard error is shown."""
    stream = sys.stderr
    if not is_writable(stream):
        return ""
    try:
        if stream.isatty():
            return "terminal"
    except _FAILURES:  # an object that only has `write` is sufficient for text
        return "text"
    return "notebook" if _in_notebook() else "text"


def _in_notebook() -> bool:
    """Whether this process is a notebook kernel, as opposed to IPython in a terminal."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")
