"""Files from which a training goes on.

A safetensors file: the vectors as tensors, and all else as one JSON object `cylstm-training` in its
metadata, with the SHA-256 of both. Written whole or not at all; read with the same distrust as a model file.
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
DATA = ("data", "validation", "values", "text")  # digests in an identity
ADDED = ("validation", "minibatch")  # to it, later than the first version of the format


class CheckpointError(ValueError):
    """A file that is no checkpoint of this training; the message says what is wrong with it."""


class Checkpoints:
    """Where and how often a training is written down.

    Parameters
    ----------
    path : path
        One file, which is replaced when the new one is complete. Without room for that, the earlier one
        stays, there is a warning, and training goes on.
    minutes : float
        Between two of them.
    steps : int, optional
        Updates of the parameters between two of them, instead of minutes.

    Attributes
    ----------
    notes : dict
        JSON values of the caller's, written with each; a callback may change them. A training that goes on
        has those of its file, unless there are others.

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
        self._identity: dict[str, Any] = {}  # of the caller's
        self._last = time.monotonic(), 0
        self.steps_written = 0  # updates before the state in the file

    def __repr__(self) -> str:
        """As it was constructed."""
        often = f"minutes={self.minutes:g}" if self.steps is None else f"steps={self.steps}"
        return f"Checkpoints({str(self.path)!r}, {often})"

    @classmethod
    def of(
        cls, checkpoints: "Checkpoints | str | os.PathLike[str] | None", resume: bool
    ) -> "Checkpoints | None":
        """What a caller gives: a path alone is one of every 10 minutes."""
        if checkpoints is None and resume:
            raise ValueError("resume: expected checkpoints to go on from, got none")
        if checkpoints is None or isinstance(checkpoints, Checkpoints):
            return checkpoints
        return cls(checkpoints)

    def identify(self, identity: Mapping[str, Any], resume: bool) -> bool:
        """Note by what else the training is known; whether there is a file of it to go on from.

        Parameters
        ----------
        identity : mapping
            JSON values by name.
        resume : bool
            Whether to look for one. The notes are then those of that file.

        Raises
        ------
        CheckpointError, OSError
            If the file is damaged, or of another training.
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
        """Count from here, a new training or one that the file holds."""
        self._last, self.steps_written = (time.monotonic(), steps), steps

    def due(self, steps: int) -> bool:
        """Whether it is time for the next, after so many updates."""
        when, before = self._last
        if self.steps is not None:
            return steps - before >= self.steps
        return time.monotonic() - when >= 60 * self.minutes

    def write(self, steps: int, content: Callable[[], tuple[dict[str, Array], dict[str, Any]]]) -> None:
        """Write what content() gives: vectors, and JSON values."""
        self._last = time.monotonic(), steps
        try:
            tensors, values = content()
            write(self.path, tensors, {**values, "notes": self.notes, "caller": self._identity})
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            warnings.warn(
                f"checkpoint {self.path}: could not be written ({reason}); an earlier one is still there, "
                "and training goes on",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self.steps_written = steps


def check_identity(expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """Raise ValueError for the first value by which a checkpoint is of another training."""
    if not isinstance(got, Mapping):
        raise ValueError("what it is of is damaged")
    for name, value in expected.items():
        if got.get(name) == value or (name in ADDED and name not in got):
            continue
        if name in DATA and None not in (value, got.get(name)):
            raise ValueError(f"{name}: it was made with others")  # than these, of which there is but a digest
        if name in DATA:
            raise ValueError(f"{name}: it was made with{'' if value is None else 'out'} such data")
        raise ValueError(f"{name}: {_difference(value, got.get(name))}")


def _difference(value: Any, made: Any, path: str = "") -> str:
    """Where two JSON values differ first: `expected` one, `got` the other."""
    if isinstance(value, dict) and isinstance(made, dict):
        key = next(key for key in [*value, *made] if value.get(key) != made.get(key))
        return _difference(value.get(key), made.get(key), f"{path}.{key}" if path else key)
    if isinstance(value, list) and isinstance(made, list):
        if len(value) != len(made):
            return f"expected {len(value)} {path}, got {len(made)}"
        k = next(k for k, (one, other) in enumerate(zip(value, made, strict=True)) if one != other)
        return _difference(value[k], made[k], f"{path}[{k}]")
    return f"expected {f'{path}={value}' if path else value}, got {made}"


def digest_of(arrays: Iterable[Any], text: str = "") -> str:
    """By which data are known again."""
    digest = hashlib.sha256(text.encode())
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], values: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    description = {"format": FORMAT, **values}
    text = json.dumps(description)
    metadata = {KEY: text, "sha256": _digest(text, tensors)}
    safetensors.write(path, tensors, metadata)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """What `write` wrote.

    Raises
    ------
    CheckpointError
        If the file is damaged, or no checkpoint.
    OSError
        If it cannot be read.
    """
    try:
        with SafetensorsFile(path) as file:
            metadata = file.metadata
            if KEY not in metadata:
                raise ValueError("it is no checkpoint of a training")
            tensors = {name: file.read(name) for name in file.tensors}
        if _digest(metadata[KEY], tensors) != metadata.get("sha256"):
            raise ValueError("its content is not what was written")
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
    """A state's nesting as JSON, with its arrays put into tensors."""
    if isinstance(state, tuple):
        return [flattened(part, tensors) for part in state]
    if state is None:
        return None
    name = f"state.{len(tensors)}"
    tensors[name] = np.ascontiguousarray(state)
    return name


def unflattened(nesting: Any, tensors: Mapping[str, Array]) -> Any:
    """The state that `flattened` took apart."""
    if isinstance(nesting, list):
        return tuple(unflattened(part, tensors) for part in nesting)
    return None if nesting is None else tensors[nesting]
