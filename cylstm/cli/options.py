"""The options of train, predict and evaluate: which kinds of model have them, and their defaults."""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

FORECAST, CLASSIFY, TEXT = "forecast", "classify", "text"
OF = {FORECAST: "forecasts", CLASSIFY: "classes", TEXT: "texts"}
Defaults = Mapping[str, Any]
TABLES = {FORECAST: None, CLASSIFY: None}
ALL = {FORECAST: None, CLASSIFY: None, TEXT: None}


class Option(NamedTuple):
    """An option, with its default for each kind of model that has it."""

    flag: str
    defaults: Defaults
    help: str
    type: Any = str  # bool: a switch
    metavar: str | None = None
    choices: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """As an attribute of the parsed options."""
        return self.flag.removeprefix("--").replace("-", "_")


READING = (
    Option("--no-header", TABLES, "line 1 of a CSV file is data; columns are named 1, 2, …", bool),
    Option("--delimiter", {FORECAST: ",", CLASSIFY: ","}, "between cells", str, "C"),
    Option(
        "--missing", {FORECAST: "error", CLASSIFY: "error"},
        "refuse empty cells, or interpolate between neighbours", str, None, ("error", "interpolate"),
    ),
)  # fmt: skip
LABELS = Option("--labels", {CLASSIFY: None}, "CSV file with the columns file and label", str, "FILE")
PHASE = Option(
    "--phase", {FORECAST: 0}, "season of the first row, counted from that of the first row learnt from",
    int, "N",
)  # fmt: skip
TEST = Option(
    "--test", {FORECAST: 0.2}, "share of the rows, the last ones, to measure on; train does not learn from "
    "them", float, "SHARE",
)  # fmt: skip

TRAIN = (
    Option("--columns", TABLES, "columns to read (default: the only one of numbers; for classes, all)",
           str, "A,B"),
    Option("--horizon", {FORECAST: 12}, "steps ahead", int, "N"),
    Option("--period", {FORECAST: None}, "rows in a season, 12 for months of a year", int, "N"),
    TEST,
    LABELS,
    Option("--validation", {CLASSIFY: 0.2, TEXT: 0.1},
           "share, of each class or the end of the text, to choose the epoch by; 0: none", float, "SHARE"),
    Option("--hidden", {FORECAST: 32, CLASSIFY: 64, TEXT: 256}, "units of the LSTM", int, "N"),
    Option("--layers", {CLASSIFY: 1, TEXT: 1}, "of the LSTM", int, "N"),
    Option("--dropout", {CLASSIFY: 0.3, TEXT: 0.2}, "share of the states left out in training", float,
           "SHARE"),
    Option("--epochs", {FORECAST: 8, CLASSIFY: 60, TEXT: 20},
           "times through the data; of forecasts, of 50 updates", int, "N"),
    Option("--patience", {FORECAST: None, CLASSIFY: 10, TEXT: None},
           "epochs without progress on the rows, sequences or text held out, until a training ends early",
           int, "N"),
    Option("--batch", {CLASSIFY: 16, TEXT: 64}, "sequences of an update, or places read at once", int, "N"),
    Option("--length", {TEXT: 100}, "characters of an update at each place", int, "N"),
    Option("--rate", {CLASSIFY: 3e-3, TEXT: 3e-3}, "learning rate", float, "X"),
    Option("--seed", {FORECAST: 0, CLASSIFY: 0, TEXT: 0}, "of all random choices", int, "N"),
    Option("--checkpoint", ALL, "to go on from; written every 10 minutes and at Ctrl-C", str, "FILE"),
    Option("--resume", ALL, "go on from the checkpoint, if there is one", bool),
    Option("--plot", ALL, "draw the training, and forecasts, too (.png)", str, "FILE"),
    *READING,
)  # fmt: skip
PREDICT = (PHASE, *READING)
EVALUATE = (TEST, PHASE, LABELS, *READING)


def add(parser: argparse.ArgumentParser, options: tuple[Option, ...]) -> None:
    """Let a command take them; `settings` fills in the defaults, when the kind of model is known."""
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
    """In words; of each kind, if they differ."""
    values = set(option.defaults.values())
    if values == {None}:
        return ""
    if len(values) == 1:
        return f" (default: {values.pop()})"
    each = (f"{'none' if value is None else value} for {OF[kind]}" for kind, value in option.defaults.items())
    return f" (default: {', '.join(each)})"


def settings(given: argparse.Namespace, options: tuple[Option, ...], kind: str) -> argparse.Namespace:
    """All options with the defaults of this kind of model.

    Raises
    ------
    ValueError
        If one was given that this kind does not have.
    """
    filled = argparse.Namespace(**vars(given))
    for option in options:
        if getattr(given, option.name) is None:
            setattr(filled, option.name, option.defaults.get(kind))
        elif kind not in option.defaults:
            kinds = " and ".join(OF[kind] for kind in option.defaults)
            raise ValueError(f"{option.flag}: only for {kinds}; leave it out for {OF[kind]}")
    return filled
