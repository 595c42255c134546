"""Warnings about options without effect, and errors about unknown options."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

# Names that other libraries use for options of recurrent layers.
_SYNONYMS = {
    "activation": "nonlinearity",
    "go_backwards": "reverse",
    "hidden_dim": "hidden_size",
    "hidden_units": "hidden_size",
    "input_dim": "input_size",
    "n_layers": "num_layers",
    "random_state": "seed",
    "units": "hidden_size",
    "use_bias": "bias",
}
_thread = threading.local()  # .enabled: False inside `without_option_warnings`


@contextlib.contextmanager
def without_option_warnings() -> Iterator[None]:
    """Suppress warnings about options that the user did not choose, such as those of a file or a copy."""
    before = getattr(_thread, "enabled", True)
    _thread.enabled = False
    try:
        yield
    finally:
        _thread.enabled = before


def warn_without_effect(name: str, value: Any, reason: str) -> None:
    """Warn, at the line that called the package, that an option has no effect."""
    if has_option_warnings():
        warn_caller(f"{name}: {value!r} has no effect: {reason}")


def has_option_warnings() -> bool:
    """Whether warnings are enabled: False inside `without_option_warnings`."""
    return bool(getattr(_thread, "enabled", True))


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package."""
    level, frame = 1, sys._getframe()
    inside = ("cylstm", "contextlib")  # contextlib decorates some functions of the package
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in inside:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def raise_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> NoReturn:
    """Raise TypeError for unknown options, with the closest known ones.

    Examples
    --------
    >>> raise_unknown("RNN", ["activation"], ["hidden_size", "nonlinearity"])
    Traceback (most recent call last):
    TypeError: RNN: no option activation; did you mean nonlinearity?
    """
    import difflib

    known, texts = sorted(known), []
    for name in names:
        near = (
            [_SYNONYMS[name]] if _SYNONYMS.get(name) in known else difflib.get_close_matches(name, known, 1)
        )
        hint = f"did you mean {near[0]}?" if near else f"options are {', '.join(known)}."
        texts.append(f"no option {name}; {hint}")
    raise TypeError(f"{kind}: {' '.join(texts)}")
