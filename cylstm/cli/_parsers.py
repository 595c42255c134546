"""Argument parsers whose errors show the usage of the command in question."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from cylstm.cli._screen import printable


class Parser(argparse.ArgumentParser):
    """Parser whose errors are safe to print."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message on standard error, and exit with status 2."""
        super().error(printable(message))


class Command(Parser):
    """Parser of one command; an error for an unknown option names the most similar one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but unknown arguments are an error."""
        self._check_options(args or ())
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def _check_options(self, args: Sequence[str]) -> None:
        """Check options before argparse, which reports missing arguments first after `--epohcs 3`."""
        options = [option for option in self._option_string_actions if option.startswith("--")]
        for given in args:
            name = given.partition("=")[0]
            if given == "--":
                return
            if not name.startswith("--") or " " in name or any(o.startswith(name) for o in options):
                continue
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
            self.error(f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else ""))
