"""Checkpoint files, from which training resumes.

A safetensors file with the vectors as tensors and everything else as one JSON object `cylstm-training` in its
metadata, with the SHA-256 of both. It is written atomically, and validated like a model file when read.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._formats import safetensors
from cylstm._formats.safetensors import SafetensorsFile, bytes_of

Array = NDArray[Any]
KEY, FORMAT = "cylstm-training", 1
DATA = ("data", "validation", "values", "text")  # digests in the identity
ADDED = ("validation", "minibatch")  # to the identity since the first version of the format


class CheckpointError(ValueError):
    """A file is not a checkpoint of this training run; the message says why."""


class Checkpoints:
    """Where and how often checkpoints are written.

    Parameters
    ----------
    path : path
        The file, which is replaced atomically. If writing fails, for example on a full disk, the earlier
        checkpoint stays, a warning is issued, and training continues.
    minutes : float
        Minutes between two checkpoints.
    steps : int, optional
        Parameter updates between two checkpoints, instead of minutes.

    Attributes
    ----------
    notes : dict
        JSON values of the caller, written with each checkpoint; a callback may change them. A resumed run has
        those of its checkpoint, unless others are set.

    Examples
    --------
    >>> import cylstm
    >>> cylstm.Checkpoints("run.ckpt", steps=500)
    Checkpoints('run.ckpt', steps=500)
    """

    def __init__(self, path: str | os.PathLike[str], minutes: float = 10.0, steps: int | None = None) -> None:
        self.path = Path(path)
        self.minutes = _checks.number("minutes", minutes, 0)
        self.steps = None if steps is None else _checks.positive("steps", steps)
        self.notes: dict[str, Any] = {}
        self._identity: dict[str, Any] = {}  # the caller's
        self._last = time.monotonic(), 0
        self.steps_written = 0  # updates up to the state in the file

    def __repr__(self) -> str:
        """Return the constructor call."""
        interval = f"minutes={self.minutes:g}" if self.steps is None else f"steps={self.steps}"
        return f"Checkpoints({str(self.path)!r}, {interval})"

    @classmethod
    def of(
        cls, checkpoints: "Checkpoints | str | os.PathLike[str] | None", resume: bool
    ) -> "Checkpoints | None":
        """Convert the argument of `fit`; a path alone means a checkpoint every 10 minutes."""
        if checkpoints is None and resume:
            raise ValueError("resume: expected checkpoints to resume from, got none")
        if checkpoints is None or isinstance(checkpoints, Checkpoints):
            return checkpoints
        return cls(checkpoints)

    def identify(self, identity: Mapping[str, Any], resume: bool) -> bool:
        """Set more values that identify the run; return whether there is a checkpoint to resume from.

        Parameters
        ----------
        identity : mapping
            JSON values by name.
        resume : bool
            Whether to look for a checkpoint; `notes` are then read from it.

        Raises
        ------
        CheckpointError, OSError
            If the file is damaged or of another training run.
        """
        self._identity = dict(identity)
        if not resume or not self.path.exists():
            return False
        values = read(self.path)[1]
        try:
            check_identity(identity, values["caller"])
            self.notes = dict(values["notes"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: not of this training: {error}") from error
        return True

    def begin(self, steps: int) -> None:
        """Count minutes and updates from here, at the start of a new or resumed run."""
        self._last, self.steps_written = (time.monotonic(), steps), steps

    def due(self, steps: int) -> bool:
        """Whether the next checkpoint is due after the given number of updates."""
        last_time, last_steps = self._last
        if self.steps is not None:
            return steps - last_steps >= self.steps
        return time.monotonic() - last_time >= 60 * self.minutes

    def write(self, steps: int, content: Callable[[], tuple[dict[str, Array], dict[str, Any]]]) -> None:
        """Write the vectors and JSON values returned by content()."""
        self._last = time.monotonic(), steps
        try:
            tensors, values = content()
            write(self.path, tensors, {**values, "notes": self.notes, "caller": self._identity})
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            warnings.warn(
                f"checkpoint {self.path}: could not be written ({reason}); an earlier one is unchanged, "
                "and training continues",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self.steps_written = steps


def check_identity(expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """Raise ValueError for the first value that identifies a different training run."""
    if not isinstance(got, Mapping):
        raise ValueError("its identity is damaged")
    for name, value in expected.items():
        if got.get(name) == value or (name in ADDED and name not in got):
            continue
        if name in DATA and None not in (value, got.get(name)):
            raise ValueError(f"{name}: differs from that of the checkpoint")  # only a digest is known
        if name in DATA:
            raise ValueError(f"{name}: the checkpoint was made with{'' if value is None else 'out'} it")
        raise ValueError(f"{name}: {_difference(value, got.get(name))}")


def _difference(value: Any, saved: Any, path: str = "") -> str:
    """Describe where two JSON values first differ."""
    if isinstance(value, dict) and isinstance(saved, dict):
        key = next(key for key in [*value, *saved] if value.get(key) != saved.get(key))
        return _difference(value.get(key), saved.get(key), f"{path}.{key}" if path else key)
    if isinstance(value, list) and isinstance(saved, list):
        if len(value) != len(saved):
            return f"expected {len(value)} {path}, got {len(saved)}"
        k = next(k for k, (one, other) in enumerate(zip(value, saved, strict=True)) if one != other)
        return _difference(value[k], saved[k], f"{path}[{k}]")
    return f"expected {f'{path}={value}' if path else value}, got {saved}"


def digest_of(arrays: Iterable[Any], text: str = "") -> str:
    """SHA-256 of arrays and text, which identifies data."""
    digest = hashlib.sha256(text.encode())
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], values: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    description = {"format": FORMAT, **values}
    text = json.dumps(description)
    metadata = {KEY: text, "sha256": _digest(text, tensors)}
    safetensors.write(path, tensors, metadata)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the tensors and values of a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is damaged or not a checkpoint.
    OSError
        If it cannot be read.
    """
    try:
        with SafetensorsFile(path) as file:
            metadata = file.metadata
            if KEY not in metadata:
                raise ValueError("it is not a checkpoint")
            tensors = {name: file.read(name) for name in file.tensors}
        if _digest(metadata[KEY], tensors) != metadata.get("sha256"):
            raise ValueError("its checksum does not match its content")
        values = json.loads(metadata[KEY])
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"expected format {FORMAT}; it may be of a newer cylstm")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    return tensors, values


def _digest(text: str, tensors: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(bytes_of(array))
    return digest.hexdigest()


def flattened(state: Any, tensors: dict[str, Array]) -> Any:
    """The nesting of a state as JSON; its arrays are added to tensors."""
    if isinstance(state, tuple):
        return [flattened(part, tensors) for part in state]
    if state is None:
        return None
    name = f"state.{len(tensors)}"
    tensors[name] = np.ascontiguousarray(state)
    return name


def unflattened(nesting: Any, tensors: Mapping[str, Array]) -> Any:
    """Restore a state from the result of `flattened`."""
    if isinstance(nesting, list):
        return tuple(unflattened(part, tensors) for part in nesting)
    return None if nesting is None else tensors[nesting]
