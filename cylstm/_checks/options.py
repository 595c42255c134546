"""What constructors say about options that have no effect and about options that do not exist."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

# What other libraries call options of recurrent layers.
_ELSEWHERE = {
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
_thread = threading.local()  # .chosen: False while options of a file, a copy or a task are applied


@contextlib.contextmanager
def not_chosen() -> Iterator[None]:
    """Without warnings inside: the options are those of a file, a copy, another library's model or a task."""
    before = getattr(_thread, "chosen", True)
    _thread.chosen = False
    try:
        yield
    finally:
        _thread.chosen = before


def warn_without_effect(name: str, value: Any, reason: str) -> None:
    """Warn, at the line that called the package, that an option has no effect."""
    if is_chosen():
        warn_caller(f"{name}: {value!r} has no effect: {reason}")


def is_chosen() -> bool:
    """Whether a user has chosen what is done now: False inside `not_chosen`."""
    return bool(getattr(_thread, "chosen", True))


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package."""
    level, frame = 1, sys._getframe()
    inside = ("cylstm", "contextlib")  # whose context managers decorate functions of ours
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in inside:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def refuse_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> NoReturn:
    """Raise the error for options that a class does not have, which names it and the nearest that it has.

    Examples
    --------
    >>> refuse_unknown("RNN", ["activation"], ["hidden_size", "nonlinearity"])
    Traceback (most recent call last):
    TypeError: RNN: no option activation; did you mean nonlinearity?
    """
    import difflib

    known, texts = sorted(known), []
    for name in names:
        near = (
            [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else difflib.get_close_matches(name, known, 1)
        )
        instead = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        texts.append(f"no option {name}; {instead}")
    raise TypeError(f"{kind}: {' '.join(texts)}")
