"""Reset of objects in forked children, where a lock held by another thread is never released."""

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object with locks or threads, which a forked child has to replace."""

    def reset_after_fork(self) -> None:
        """Reset the object in a forked child."""


def register(instance: ForkAware) -> None:
    """Call `instance.reset_after_fork()` in every child that is forked during the object's lifetime."""
    _instances.add(instance)


def _reset_all() -> None:
    for instance in _instances:
        instance.reset_after_fork()


_instances: "weakref.WeakSet[ForkAware]" = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
