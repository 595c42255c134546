"""Functions shared by the commands."""

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cylstm import files
from cylstm.cli._screen import flush, show, show_data, warn
from cylstm.data import tables
from cylstm.data.text_files import DataFileError
from cylstm.training import History
from cylstm.training.history import history_of

# Patterns in messages of the library that name its arguments, and replacements that name options.
REWORDED = (
    (r"give order=, or the module itself;", "give --order;"),
    (r"give it as order=;", "give it with --order;"),
    (r"\(order=\)", "(--order)"),
    (r"\(nonlinearity='tanh' or 'relu'\)", "(--nonlinearity tanh or relu)"),
    (r"Give the arguments in brackets, or the module itself", "Give the options in brackets"),
    (r"give the model's to_json\(\) as config=", "give the model's to_json() with --config"),
    (r"^(order|config): ", r"--\1: "),
    (r"give those of inputs as constants=", "cylstm.from_onnx(path, constants=...) takes those of inputs"),
    (r"the checkpoint was made with epochs=", "the checkpoint was made with --epochs "),
    (r"would jump: pass epochs=", "would jump: pass --epochs "),
    (r", without resume", ", without --resume"),
    (r"lower the learning rate \(lr=", "lower the learning rate (--rate "),
    (r"Trainer\(truncate=(\w+)\) makes", r"--length \1 makes"),
    (
        r"import that module before loading the model",
        "the command imports no modules; import it in Python before loading the model",
    ),
)
NO_MATPLOTLIB = 'matplotlib is not installed; run pip install "cylstm[plot]"'


def check_outputs(outputs: Sequence[str | None], inputs: Sequence[str]) -> None:
    """Reject outputs that cannot be written, and those that would overwrite an input or each other.

    Files in a folder of inputs are inputs.
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
    """Reject invalid options before the training starts."""
    check_outputs([options.output, options.plot, options.checkpoint], inputs)
    if options.plot and not importlib.util.find_spec("matplotlib"):
        raise ValueError(f"--plot: {NO_MATPLOTLIB}")
    if options.resume and not options.checkpoint:
        raise ValueError("--resume: expected --checkpoint FILE to resume from")
    if options.checkpoint and not options.resume and os.path.exists(options.checkpoint):
        raise ValueError(f"--checkpoint: {options.checkpoint} exists; pass --resume, or delete it")


def fraction(flag: str, value: float) -> float:
    """Check a fraction in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{flag}: expected a fraction in [0, 1), got {value}")
    return value


def as_option(error: DataFileError) -> str:
    """The message of an error that names an argument of the library, with the option in its place."""
    option = {"header": "--no-header"}.get(error.argument, f"--{error.argument}")
    return error.worded(f"{option} {error.value}" if isinstance(error.value, str) else option)


def in_options(message: str) -> str:
    """Replace arguments of the library in a message by the options of the command."""
    for pattern, replacement in REWORDED:
        message = re.sub(pattern, replacement, message)
    return message


@contextlib.contextmanager
def saved_on_failure(
    output: str, save: Callable[[str], Any], describe: Callable[[BaseException], str]
) -> Iterator[None]:
    """If the training inside fails, save the model that `describe` names, with a warning, and re-raise."""
    try:
        yield
    except BaseException as error:
        weights = describe(error)
        if weights:
            try:
                save(output)
                warn(f"{output}: saved with {weights}; the training has not finished")
            except OSError as failure:
                warn(f"{output}: {weights} could not be saved: {failure.strerror or failure}")
        raise


def best_epoch_of(error: BaseException) -> str:
    """The weights that a failed training has left; empty if no epoch was finished."""
    history = history_of(error)
    if history is None or not history.epochs:
        return ""
    return f"the weights of epoch {history.best_epoch}" if history.best_epoch else "the last weights"


def names(columns: str | None) -> list[str] | None:
    """Parse names from `A,B`; names with commas are quoted as in CSV."""
    if not columns:
        return None
    try:
        return [name.strip() for name in next(csv.reader([columns], skipinitialspace=True))]
    except csv.Error:
        raise ValueError(f"--columns: expected names on one line, A,B, got {columns!r}") from None


def how_it_ended(history: History, seconds: float) -> str:
    """Number of epochs, time, and why the training ended.

    Raises
    ------
    KeyboardInterrupt
        If the training was interrupted before its first epoch was finished.
    """
    if not history.epochs and history.stopped == "interrupted":
        raise KeyboardInterrupt
    ended = {"": "", "early": ", ended early", "interrupted": ", interrupted"}[history.stopped]
    n = len(history.epochs)
    return f"{n} epoch{'s' if n > 1 else ''} in {seconds:.1f} s{ended}"


def facts_of(history: History, seconds: float) -> dict[str, Any]:
    """Number of epochs, time, and why the training ended, as JSON values."""
    return {
        "epochs": len(history.epochs), "best_epoch": history.best_epoch or None, "stopped": history.stopped,
        "seconds": seconds,
    }  # fmt: skip


def print_json(values: dict[str, Any]) -> None:
    """Print one line of standard JSON, and flush."""
    show(json.dumps(values, allow_nan=False))
    flush()


def write_table(options: argparse.Namespace, rows: Sequence[Sequence[Any]], as_json: dict[str, Any]) -> None:
    """Write rows as CSV to the file of --output, or print them; with --json, print them as JSON."""
    text = tables.written(rows)
    if options.output:
        files.write_atomically(options.output, text.encode())
    if options.json:
        print_json(as_json)
    elif options.output:
        show(f"Saved {options.output}")
    else:
        show_data(text)
