"""The command `cylstm`: demo, train, predict, sample, serve and others. Arguments and output only."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from cylstm._system import threads, versions
from cylstm._version import __version__
from cylstm.cli import convert, forecast, models, serve, text
from cylstm.cli._common import as_option, in_options, print_json
from cylstm.cli._parsers import Command, Parser
from cylstm.cli._screen import STANDARD_OUTPUT, discard_output, fail, flush, show, warnings_as_lines
from cylstm.data.text_files import DataFileError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 0 for success.

    An error of the input, the disk or the memory is one line on standard error, with status 1;
    an interrupt has status 130.
    """
    _make_streams_usable()
    try:
        with warnings_as_lines(in_options):
            _run(arguments)
        flush()
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except OSError as error:
        if _is_broken_pipe(error):
            discard_output()
            return 1
        if error.filename == STANDARD_OUTPUT:
            discard_output()
        return fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except DataFileError as error:
        return fail(as_option(error))
    except (ValueError, ArithmeticError, MemoryError) as error:
        return fail(in_options(str(error)) or "out of memory")
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    try:
        options = parser().parse_args(arguments)
    except SystemExit:  # after --help, or for wrong usage
        flush()
        raise
    if options.threads is not None:
        threads.set_num_threads(threads.checked("--threads", options.threads))
    options.run(options)


def _is_broken_pipe(error: OSError) -> bool:
    """Whether the reader of a pipe has closed it, as `head` does; on Windows this is EINVAL."""
    windows = os.name == "nt" and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or windows


def _make_streams_usable() -> None:
    """Make closed streams and terminals with a limited encoding usable."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):  # as after `>&-`; a full disk is an error
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def parser() -> argparse.ArgumentParser:
    """The parser of all arguments, which the documentation also shows."""
    parser = Parser(
        prog="cylstm", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train and run LSTM networks on CPUs: forecast tables, classify sequences, model "
        "texts.",
        epilog="examples:\n"
        "  cylstm demo\n"
        "  cylstm train sales.csv --columns sales --period 12 --output sales.safetensors\n"
        "  cylstm predict sales.csv --model sales.safetensors\n"
        "Run `cylstm COMMAND --help` for details.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"cylstm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Command)
    common = Command(add_help=False)
    common.add_argument(
        "--threads", type=int, metavar="N", help="threads (default: the CPUs of this process)"
    )
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    forecast.add_commands(commands, common)
    models.add_commands(commands, common)
    text.add_commands(commands, common)
    convert.add_commands(commands, common)
    serve.add_commands(commands, common)
    info = commands.add_parser("info", parents=[common], help="versions, CPU, compute path, BLAS, threads")
    info.set_defaults(run=_info)
    return parser


def _info(options: argparse.Namespace) -> None:
    if options.json:
        print_json(versions.describe())
    else:
        for line in versions.report():
            show(line)
