"""Parsers whose errors show the usage of the command that was meant."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from cylstm.cli._screen import printable


class Parser(argparse.ArgumentParser):
    """With errors that are safe to print."""

    def error(self, message: str) -> NoReturn:
        """Usage and message on standard error, status 2."""
        super().error(printable(message))


class Command(Parser):
    """Of one command: an option that it does not have is its own error, with the nearest one that it has."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse, but nothing may be unknown."""
        self._check_options(args or ())
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def _check_options(self, args: Sequence[str]) -> None:
        """Before anything else is missed: `--epohcs 3` hides arguments that are required."""
        options = [option for option in self._option_string_actions if option.startswith("--")]
        for given in args:
            name = given.partition("=")[0]
            if given == "--":
                return
            if not name.startswith("--") or " " in name or any(o.startswith(name) for o in options):
                continue
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
            self.error(f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else ""))
