"""What the commands share."""

import argparse
import contextlib
import csv
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cylstm import files
from cylstm.cli._screen import flush, show, show_data, warn
from cylstm.data import tables
from cylstm.data.text_files import DataFileError
from cylstm.training import History
from cylstm.training.history import history_of

# What errors of the library say of arguments, and what the command says instead.
REWORDED = (
    ("give order=, or the module itself;", "give --order;"),
    ("give it as order=;", "give it with --order;"),
    ("give the model's to_json() as config=", "give the model's to_json() with --config"),
    ("give those of inputs as constants=", "cylstm.from_onnx(path, constants=...) takes those of inputs"),
    ("the checkpoint was made with epochs=", "the checkpoint was made with --epochs "),
    ("would jump: pass epochs=", "would jump: pass --epochs "),
    ("another training of the model, without resume", "another training, without --resume"),
)
NO_MATPLOTLIB = 'matplotlib is not installed; pip install matplotlib, or "cylstm[plot]", brings it'


def check_outputs(outputs: Sequence[str | None], inputs: Sequence[str]) -> None:
    """Refuse outputs that cannot be written, and those that would replace an input or each other.

    What is in a folder of inputs is an input.
    """
    taken = {os.path.realpath(path) for path in inputs}
    folders = [path for path in taken if os.path.isdir(path)]
    for path in filter(None, outputs):
        files.check_writable(path)
        real = os.path.realpath(path)
        inside = any(os.path.dirname(real) == folder and os.path.exists(real) for folder in folders)
        if real in taken or inside:
            raise ValueError(f"{path}: would be overwritten; choose another file for the output")
        taken.add(real)


def check_training(options: argparse.Namespace, inputs: Sequence[str]) -> None:
    """What can be refused before a training is begun."""
    check_outputs([options.output, options.plot, options.checkpoint], inputs)
    if options.plot and not importlib.util.find_spec("matplotlib"):
        raise ValueError(f"--plot: {NO_MATPLOTLIB}")
    if options.resume and not options.checkpoint:
        raise ValueError("--resume: expected --checkpoint FILE to go on from")
    if options.checkpoint and not options.resume and os.path.exists(options.checkpoint):
        raise ValueError(f"--checkpoint: {options.checkpoint} exists; pass --resume to go on, or delete it")


def share(flag: str, value: float) -> float:
    """A share of something, all of it excluded."""
    if not 0 <= value < 1:
        raise ValueError(f"{flag}: expected a share in [0, 1), got {value}")
    return value


def as_option(error: DataFileError) -> str:
    """The message of an error that names an argument of the library, with the option for it."""
    option = {"header": "--no-header"}.get(error.argument, f"--{error.argument}")
    return error.worded(f"{option} {error.value}" if isinstance(error.value, str) else option)


def in_options(message: str) -> str:
    """The message of another error of the library, with options for the arguments that it names."""
    for words, reworded in REWORDED:
        message = message.replace(words, reworded)
    return message


@contextlib.contextmanager
def saved_on_failure(
    output: str, save: Callable[[str], Any], kept: Callable[[BaseException], str]
) -> Iterator[None]:
    """If the training inside fails, save what `kept` names, with a warning, and let the exception pass on."""
    try:
        yield
    except BaseException as error:
        what = kept(error)
        if what:
            try:
                save(output)
                warn(f"{output}: saved with {what}; the training has not finished")
            except OSError as failure:
                warn(f"{output}: {what} could not be saved: {failure.strerror or failure}")
        raise


def best_epoch_of(error: BaseException) -> str:
    """Which weights a training that failed has left; none if no epoch was over."""
    history = history_of(error)
    if history is None or not history.epochs:
        return ""
    return f"the weights of epoch {history.best_epoch}" if history.best_epoch else "the last weights"


def names(columns: str | None) -> list[str] | None:
    """Names from `A,B`, in the quotes of CSV where they hold commas."""
    if not columns:
        return None
    try:
        return [name.strip() for name in next(csv.reader([columns], skipinitialspace=True))]
    except csv.Error:
        raise ValueError(f"--columns: expected names on one line, A,B, got {columns!r}") from None


def how_it_ended(history: History, seconds: float) -> str:
    """Epochs, time, and why there were no more.

    Raises
    ------
    KeyboardInterrupt
        If there was not even one: then there is nothing to keep.
    """
    if not history.epochs and history.stopped == "interrupted":
        raise KeyboardInterrupt
    ended = {"": "", "early": ", ended early", "interrupted": ", interrupted"}[history.stopped]
    n = len(history.epochs)
    return f"{n} epoch{'s' if n > 1 else ''} in {seconds:.1f} s{ended}"


def facts_of(history: History, seconds: float) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "epochs": len(history.epochs), "best_epoch": history.best_epoch or None, "stopped": history.stopped,
        "seconds": seconds,
    }  # fmt: skip


def print_json(values: dict[str, Any]) -> None:
    """One line that any reader of JSON takes, at once."""
    show(json.dumps(values, allow_nan=False))
    flush()


def give_table(options: argparse.Namespace, rows: Sequence[Sequence[Any]], as_json: dict[str, Any]) -> None:
    """Rows as CSV to the file of --output, or printed; with --json the same as JSON is printed."""
    text = tables.written(rows)
    if options.output:
        files.write_atomically(options.output, text.encode())
    if options.json:
        print_json(as_json)
    elif options.output:
        show(f"Saved {options.output}")
    else:
        show_data(text)
