"""Progress of long work: a bar in terminals and notebooks, a line of text now and then elsewhere.

Nothing here fails: without a usable `sys.stderr` there is no output, and a terminal that goes away ends the
output, not the work.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

SECONDS = {"text": 5.0, "notebook": 1.0}  # between two lines, at least
SHARE = 0.02  # of the time so far, which is at least between two lines of long work
_FAILURES = (OSError, ValueError, AttributeError)  # of a stream that is closed, gone, or not a stream

Place = Literal["terminal", "notebook", "text", ""]


class Progress:
    """Counts steps of work and shows them on standard error; a context manager.

    In a terminal it is a bar of tqdm, in a Jupyter notebook one of ipywidgets if that is installed. In log
    files and other notebooks it is a line of text now and then; work of a few seconds writes none to a log
    file.

    Parameters
    ----------
    total : int
        Steps.
    unit : str
        What a step is, in the plural.
    initial : int
        Steps made before.
    leave : bool
        Whether a bar in a terminal stays when the work is done.
    shown : bool
        False: show nothing.

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
        self._began = self._written = time.monotonic()
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
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End a bar; the last state of lines."""
        if self._bar is not None:
            self._show(self._bar.close)
        elif self._place == "notebook" or self._lines:
            self._show(self._write_line)

    def describe(self, text: str) -> None:
        """What the next steps are a part of: an epoch."""
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
        """Numbers of the last epoch, for what is shown from now on."""
        self._numbers = ", ".join(f"{name}={value:.4g}" for name, value in numbers.items())
        if self._bar is not None:
            self._show(lambda: self._bar.set_postfix_str(self._numbers, refresh=False))
        elif self._place == "notebook" and not self._lines:  # the first one at once
            self._show(self._write_line)

    def _is_due(self) -> bool:
        now = time.monotonic()
        return now - self._written >= max(SECONDS[self._place], SHARE * (now - self._began))

    def _write_line(self) -> None:
        self._written, self._lines = time.monotonic(), self._lines + 1
        parts = [self._heading, f"{self._done} of {self._total} {self._unit}", self._numbers]
        seconds = self._written - self._began
        print(f"{', '.join(filter(None, parts))} ({seconds:.0f} s)", file=sys.stderr, flush=True)

    def _show(self, action: Callable[[], Any]) -> None:
        """Do it, and show nothing more once it fails: whoever watched has gone, and the work goes on."""
        try:
            action()
        except _FAILURES:
            if self._bar is not None:
                self._bar.disable = True
            self._bar, self._place = None, ""


def is_writable(stream: Any) -> bool:
    """Whether a stream can be written to: it is there, and not closed."""
    try:
        stream.write("")
    except _FAILURES:
        return False
    return True


def _place() -> Place:
    """Where standard error is read."""
    stream = sys.stderr
    if not is_writable(stream):
        return ""
    try:
        if stream.isatty():
            return "terminal"
    except _FAILURES:  # an object with `write` alone is enough for text
        return "text"
    return "notebook" if _in_notebook() else "text"


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook; of IPython in a terminal it is not."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")
