"""Conversion of request and response bodies to and from arrays: JSON and raw numbers."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.layers.sequence_layer import SequenceLayer

Array = NDArray[Any]
JSON, RAW = "application/json", "application/octet-stream"


class RequestError(Exception):
    """A request that is answered with an error status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Codec:
    """Converter of the bodies for a model.

    Parameters
    ----------
    model : SequenceLayer
    max_steps : int
        Maximum time steps of a sequence.
    """

    def __init__(self, model: SequenceLayer, max_steps: int) -> None:
        self._model, self._max_steps = model, max_steps
        self._indices = model.reads_indices
        self._raw = np.dtype("<i4" if self._indices else "<f4")
        self._step = () if model.reads_single_indices else (model.input_size,)
        self._first = model.state_for_caller(model.initial_state(1), unbatched=True)

    def of_json(self, text: str | bytes, *, stateful: bool = True) -> dict[str, Any]:
        """Parse `x` and, if present and `stateful`, `state`, as `Session.run` takes them.

        Steps are (T, I), or (I,) for a single step, in the model's dtype; indices are (T,) or ().

        Raises
        ------
        RequestError
            With status 400, if the body is not a JSON object with these keys.
        ValueError, TypeError
            If the values do not fit the model.
        """
        given = _object_of_json(text, ("x", "state") if stateful else ("x",))
        given["x"] = self._steps_of_json(given["x"])
        if given.get("state") is not None:
            given["state"] = self._state("state", given["state"], self._first)
        return given

    def _steps_of_json(self, values: Any) -> Array:
        array = (_checks.index_array if self._indices else _checks.real_array)("x", values)
        return self._checked(array if self._indices else self._finite("x", array))

    def steps_of_raw(self, body: bytes) -> Array:
        """Parse raw rows: (T, I), or indices (T,)."""
        row = self._raw.itemsize * int(np.prod(self._step))
        if len(body) % row:
            each = f"{'int32' if self._indices else 'float32'} of {row} bytes per step"
            raise ValueError(f"x: expected rows of {each}, got {len(body)} bytes")
        return self._checked(np.frombuffer(body, self._raw).reshape(-1, *self._step))

    def _checked(self, x: Array) -> Array:
        ndim = len(self._step)
        if x.ndim not in (ndim, ndim + 1) or x.shape[x.ndim - ndim :] != self._step:
            chunk = ", ".join(["T", *map(str, self._step)]) + ("" if self._step else ",")
            raise ValueError(f"x: expected ({chunk}), got {x.shape}")
        if x.ndim > ndim and not 1 <= len(x) <= self._max_steps:
            raise ValueError(f"x: expected 1 to {self._max_steps} steps, got {len(x)}")
        return x

    def _finite(self, name: str, array: Array) -> Array:
        """Convert to the model's dtype; numbers in JSON are finite but may overflow."""
        with np.errstate(over="ignore"):
            converted = array.astype(self._model.dtype)
        if not np.isfinite(converted).all():
            raise ValueError(f"{name}: expected finite {self._model.dtype} numbers, got one that overflows")
        return converted

    def is_step(self, x: Array) -> bool:
        """Whether x is a single step without a time axis."""
        return x.ndim == len(self._step)

    def _state(self, name: str, values: Any, like: Any) -> Any:
        """Convert a state from the nested lists of `json_of` to the structure of `like`."""
        if isinstance(like, np.ndarray):
            return self._finite(name, _checks.shaped(name, values, like.shape))
        if like is None:  # a layer without a state
            if values is not None:
                raise ValueError(f"{name}: expected null, got {type(values).__name__}")
            return None
        if not isinstance(values, list) or len(values) != len(like):
            got = f"{len(values)}" if isinstance(values, list) else type(values).__name__
            raise ValueError(f"{name}: expected a list of {len(like)} parts, got {got}")
        return tuple(self._state(f"{name}[{k}]", values[k], part) for k, part in enumerate(like))

    def raw_of(self, y: Array) -> bytes:
        """Convert outputs to raw float32."""
        return y.astype("<f4").tobytes()


def json_of(**values: Any) -> bytes:
    """Format arrays, states and plain values as a JSON object.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps({name: _listed(value) for name, value in values.items()}, allow_nan=False).encode()


def _listed(value: Any) -> Any:
    """Convert arrays to nested lists, whose numbers round-trip exactly."""
    if isinstance(value, tuple):
        return [_listed(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _object_of_json(text: str | bytes, names: tuple[str, ...]) -> dict[str, Any]:
    """Parse a JSON object with "x" and optional other keys."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"body: expected JSON; {error}") from None
    if not isinstance(value, dict) or "x" not in value:
        raise RequestError(400, 'body: expected a JSON object {"x": ...}, got none with "x"')
    if others := sorted(set(value) - set(names)):
        expected = '"x" and optionally "state"' if "state" in names else '"x" alone'
        raise RequestError(400, f"body: expected {expected}, got {others[0]!r:.40} too")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON; raw bodies may contain any numbers")
