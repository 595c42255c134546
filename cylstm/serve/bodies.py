"""What clients send and get, as arrays and back: JSON and raw numbers."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.layers.sequence_layer import SequenceLayer

Array = NDArray[Any]
JSON, RAW = "application/json", "application/octet-stream"


class Refusal(Exception):
    """A request that is not answered with a result, but with a status and a reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Codec:
    """The bodies that belong to a model.

    Parameters
    ----------
    model : SequenceLayer
    max_steps : int
        Of a sequence.
    """

    def __init__(self, model: SequenceLayer, max_steps: int) -> None:
        self._model, self._max_steps = model, max_steps
        self._indices = model.reads_indices
        self._raw = np.dtype("<i4" if self._indices else "<f4")
        self._step = () if model.reads_single_indices else (model.input_size,)
        self._first = model._state_for_caller(model._initial_state(1), unbatched=True)

    def of_json(self, text: str | bytes, *, stateful: bool = True) -> dict[str, Any]:
        """`x` and, if a stateful request names one, `state` of a body, as `Session.run` takes them.

        Steps are (T, I), or (I,) for a single one, in the model's dtype; indices (T,) or ().

        Raises
        ------
        Refusal
            With status 400, if it is no JSON object of just these.
        ValueError, TypeError
            If they are not the model's.
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
        """(T, I), or (T,) indices, as many as there are."""
        row = self._raw.itemsize * int(np.prod(self._step))
        if len(body) % row:
            each = f"{'int32' if self._indices else 'float32'} of {row} bytes a step"
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
        """In the model's dtype: JSON has no form for what is not finite, but can hold what overflows."""
        with np.errstate(over="ignore"):
            converted = array.astype(self._model.dtype)
        if not np.isfinite(converted).all():
            raise ValueError(f"{name}: expected finite numbers of {self._model.dtype}, got others")
        return converted

    def is_step(self, x: Array) -> bool:
        """Whether it is one step, without an axis for time."""
        return x.ndim == len(self._step)

    def _state(self, name: str, values: Any, like: Any) -> Any:
        """A state in the form of another, from the lists that `json_of` has made of one."""
        if isinstance(like, np.ndarray):
            return self._finite(name, _checks.shaped(name, values, like.shape))
        if like is None:  # of a layer without a state
            if values is not None:
                raise ValueError(f"{name}: expected null, got {type(values).__name__}")
            return None
        if not isinstance(values, list) or len(values) != len(like):
            came = f"{len(values)}" if isinstance(values, list) else type(values).__name__
            raise ValueError(f"{name}: expected a list of {len(like)} parts, got {came}")
        return tuple(self._state(f"{name}[{k}]", values[k], part) for k, part in enumerate(like))

    def raw_of(self, y: Array) -> bytes:
        """As float32."""
        return y.astype("<f4").tobytes()


def json_of(**values: Any) -> bytes:
    """One JSON object of arrays, states and what JSON has anyway.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps({name: _listed(value) for name, value in values.items()}, allow_nan=False).encode()


def _listed(value: Any) -> Any:
    """Arrays as nested lists, whose numbers read back to the same bits."""
    if isinstance(value, tuple):
        return [_listed(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _object_of_json(text: str | bytes, names: tuple[str, ...]) -> dict[str, Any]:
    """The object in a body, of x and other names."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"body: expected JSON; {error}") from None
    if not isinstance(value, dict) or "x" not in value:
        raise Refusal(400, 'body: expected a JSON object {"x": ...}, got none with "x"')
    if others := sorted(set(value) - set(names)):
        expected = '"x" and maybe "state"' if "state" in names else '"x" alone'
        raise Refusal(400, f"body: expected {expected}, got {others[0]!r:.40} too")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON; raw numbers may be anything")
