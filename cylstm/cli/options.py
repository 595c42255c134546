"""The options of train, predict and evaluate, by kind of model, and their defaults."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cylstm import _checks
from cylstm.cli._common import fraction
from cylstm.cli.kinds import CLASSIFY, FORECAST, OF, TEXT

Defaults = Mapping[str, Any]
TABLES = {FORECAST: None, CLASSIFY: None}
ALL = {FORECAST: None, CLASSIFY: None, TEXT: None}


class Option(NamedTuple):
    """An option, with its default for each kind of model that it applies to."""

    flag: str
    defaults: Defaults
    help: str
    type: Any = str  # bool: a switch
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    check: Callable[[str, Any], Any] | None = None  # of flag and value; errors name the flag

    @property
    def name(self) -> str:
        """The name as an attribute of the parsed options."""
        return self.flag.removeprefix("--").replace("-", "_")


def _rate(flag: str, value: float) -> float:
    return _checks.number(flag, value, 0)


def _character(flag: str, value: str) -> None:
    if len(value) != 1 or value in '\r\n"':
        raise ValueError(f"{flag}: expected one character, and no quote, got {value!r}")


def _count(flag: str, defaults: Defaults, help: str) -> Option:
    return Option(flag, defaults, help, int, "N", check=_checks.positive)


def _fraction(flag: str, defaults: Defaults, help: str) -> Option:
    return Option(flag, defaults, help, float, "FRACTION", check=fraction)


READING = (
    Option("--no-header", TABLES, "line 1 of a CSV file is data; columns are named 1, 2, …", bool),
    Option("--delimiter", {FORECAST: ",", CLASSIFY: ","}, "between cells", str, "C", check=_character),
    Option(
        "--missing", {FORECAST: "error", CLASSIFY: "error"},
        "reject empty cells, or interpolate between known values", str, None, ("error", "interpolate"),
    ),
)  # fmt: skip
LABELS = Option("--labels", {CLASSIFY: None}, "CSV file with the columns file and label", str, "FILE")
PHASE = Option(
    "--phase", {FORECAST: 0}, "season of the first row, relative to the first training row",
    int, "N",
)  # fmt: skip
TEST = _fraction(
    "--test", {FORECAST: 0.2}, "fraction of the rows, at the end, that is held out to measure on"
)
MEASURED = Option(
    "--test", {FORECAST: 1.0}, "fraction of the rows, at the end, to measure on; 1: all that can be "
    "forecast; for the training file, the fraction held out there, 0.2", float, "FRACTION",
)  # fmt: skip

TRAIN = (
    Option("--columns", TABLES, "columns to read (default: the only numeric one; for classes, all)",
           str, "A,B"),
    _count("--horizon", {FORECAST: 12}, "steps ahead"),
    _count("--period", {FORECAST: None}, "rows in a season, 12 for months of a year"),
    TEST,
    LABELS,
    _fraction("--validation", {CLASSIFY: 0.2, TEXT: 0.1},
           "fraction of each class, or end of the text, held out to select the best epoch; 0: none"),
    _count("--hidden", {FORECAST: 32, CLASSIFY: 64, TEXT: 256}, "units of the LSTM"),
    _count("--layers", {CLASSIFY: 1, TEXT: 1}, "of the LSTM"),
    _fraction("--dropout", {CLASSIFY: 0.3, TEXT: 0.2}, "dropout probability in training"),
    _count("--epochs", {FORECAST: 8, CLASSIFY: 60, TEXT: 20},
           "passes through the data; for forecasts, 50 updates each"),
    _count("--patience", {FORECAST: None, CLASSIFY: 10, TEXT: None},
           "epochs without improvement on held-out data before a training ends early"),
    _count("--batch", {CLASSIFY: 16, TEXT: 64}, "sequences per update, or parts of the text in parallel"),
    _count("--length", {TEXT: 100}, "characters per update in each part"),
    Option("--rate", {CLASSIFY: 3e-3, TEXT: 3e-3}, "learning rate", float, "X", check=_rate),
    Option("--seed", {FORECAST: 0, CLASSIFY: 0, TEXT: 0}, "of all random choices", int, "N",
           check=_checks.natural),
    Option("--checkpoint", ALL, "to resume from; written every 10 minutes and at Ctrl-C", str, "FILE"),
    Option("--resume", ALL, "resume from the checkpoint if it exists", bool),
    Option("--plot", ALL, "plot the training, and forecasts if any (.png)", str, "FILE"),
    *READING,
)  # fmt: skip
PREDICT = (PHASE, *READING)
EVALUATE = (MEASURED, PHASE, LABELS, *READING)


def add(parser: argparse.ArgumentParser, options: tuple[Option, ...]) -> None:
    """Add options to a command; `settings` fills in the defaults once the kind of model is known."""
    groups: dict[str, Any] = {}
    for option in options:
        only = " and ".join(OF[kind] for kind in option.defaults)
        if len(option.defaults) == len(ALL):
            group: Any = parser
        else:
            group = groups.setdefault(only, None) or parser.add_argument_group(f"for {only} only")
            groups[only] = group
        if option.type is bool:
            group.add_argument(option.flag, action="store_true", default=None, help=option.help)
        else:
            group.add_argument(
                option.flag, type=option.type, metavar=option.metavar, choices=option.choices,
                help=option.help + _defaults(option),
            )  # fmt: skip


def _defaults(option: Option) -> str:
    """The default in words; one per kind of model if they differ."""
    values = set(option.defaults.values())
    if values == {None}:
        return ""
    if len(values) == 1:
        return f" (default: {values.pop()})"
    each = (f"{'none' if value is None else value} for {OF[kind]}" for kind, value in option.defaults.items())
    return f" (default: {', '.join(each)})"


def settings(given: argparse.Namespace, options: tuple[Option, ...], kind: str) -> argparse.Namespace:
    """All options with the defaults of this kind of model; `given` lists the flags on the command line.

    Raises
    ------
    ValueError
        If an option does not apply to this kind of model, or its `check` rejects the value.
    """
    filled = argparse.Namespace(**vars(given))
    filled.given = [option.flag for option in options if getattr(given, option.name) is not None]
    for option in options:
        if getattr(given, option.name) is None:
            setattr(filled, option.name, option.defaults.get(kind))
        elif kind not in option.defaults:
            kinds = " and ".join(OF[kind] for kind in option.defaults)
            raise ValueError(f"{option.flag}: only for {kinds}; leave it out for {OF[kind]}")
        elif option.check:
            option.check(option.flag, getattr(given, option.name))
    return filled
