"""What begins anew in a forked child: a lock that another thread held is never released there."""

import os
import weakref
from typing import Protocol


class Renewed(Protocol):
    """What has locks, or belongs to threads that a child does not have."""

    def begin(self) -> None:
        """Be as a forked child needs it."""


def renew_in_child(one: Renewed) -> None:
    """Call `one.begin()` first in every child that is forked while `one` lives."""
    _all.add(one)


def _begin() -> None:
    for one in _all:
        one.begin()


_all: "weakref.WeakSet[Renewed]" = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)
