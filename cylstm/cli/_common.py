"""What the commands share."""

import os

from cylstm import files

NO_MATPLOTLIB = 'matplotlib is not installed; pip install matplotlib, or "cylstm[plot]", brings it'


def check_outputs(outputs: list[str | None], inputs: list[str]) -> None:
    """Refuse outputs that cannot be written, and those that would replace an input or each other."""
    taken = {os.path.realpath(path) for path in inputs}
    for path in filter(None, outputs):
        files.check_writable(path)
        if os.path.realpath(path) in taken:
            raise ValueError(f"{path}: would be overwritten; choose another file for the output")
        taken.add(os.path.realpath(path))
