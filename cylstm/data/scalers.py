"""Scaling of features, learned from the training data and saved with the model."""

import functools
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks.options import has_option_warnings, warn_caller
from cylstm.data import _inputs

Array = NDArray[Any]
Self = TypeVar("Self", bound="Scaler")
BLOCK = 2**16  # values converted to float64 at once, to avoid a full copy of large data
VARIES = 1e-12  # relative to the largest value: a column with less spread is constant up to rounding


class ScalersWarning(UserWarning):
    """A network is used without the scalers that its model carries: `docs/reference/file-format.md`."""


def warn_not_applied(what: str, scalers: Mapping[str, "Scaler"]) -> None:
    """Warn at the caller's line that `what` does not apply the model's scalers, if it has any."""
    if scalers and has_option_warnings():
        warn_caller(
            f"{what}: the model's scalers, {', '.join(sorted(scalers))}, are not applied: x and y are in "
            "scaled units, as in training; call scalers[name].transform on x and scalers[name].inverse on y, "
            "or use the Classifier or estimator that the model belongs to",
            ScalersWarning,
        )


class Scaler(ABC):
    """Base class of scalers: (x - offset) / scale for each feature, and its inverse.

    A subclass implements `_statistics(parts)`, which returns offset and spread, (I,) each, of the rows of
    float64 arrays (n, I). `parts` can be iterated over several times. NaN is a missing value to ignore.

    Attributes
    ----------
    offset, scale : ndarray or None
        (I,), in float64, read-only; None before `fit`. A constant feature has scale 1.
    """

    _types: dict[str, type["Scaler"]] = {}  # noqa: RUF012 - registry by class name, filled by __init_subclass__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the scaler under its class name, which files refer to."""
        super().__init_subclass__(**kwargs)
        cls._types.setdefault(cls.__name__, cls)

    def __init__(self) -> None:
        self.offset: Array | None = None
        self.scale: Array | None = None

    def __repr__(self) -> str:
        """Show the number of fitted features."""
        fitted = "not fitted" if self.offset is None else f"fitted to {len(self.offset)} features"
        return f"<{type(self).__name__}, {fitted}>"

    @abstractmethod
    def _statistics(self, parts: Iterable[Array]) -> tuple[Array, Array]: ...

    def fit(self: Self, x: Any) -> Self:
        """Learn offset and scale.

        Parameters
        ----------
        x : array, data frame or list of arrays
            (..., I), or (n,) for one feature. Use training data only, so that no information of the
            validation data leaks into the model. Missing values (NaN, masked, null or NA) are ignored.

        Raises
        ------
        ValueError, TypeError
            If a feature has no values, or a value is infinite, too large or not a real number.
        """
        given = _given(x)
        _inputs.check_samples("x", given, gaps=True)
        arrays = given if isinstance(given, list) else [given]
        if not sum(array.size for array in arrays):
            raise ValueError("x: expected at least one value, got none")
        parts = _Parts(arrays)
        largest = _reduced(np.fmax, (np.fmax.reduce(np.abs(part), axis=0) for part in parts))
        if np.isnan(largest).any():
            raise ValueError(
                f"x: expected at least one value, got none in column {np.argmax(np.isnan(largest))}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            offset, spread = self._statistics(parts)
        scale = np.where(spread > VARIES * largest, spread, 1.0)
        if not (np.isfinite(offset) & np.isfinite(spread)).all():
            raise ValueError(f"x: expected values whose squares do not overflow, got up to {largest.max():g}")
        self.offset, self.scale = _frozen(offset), _frozen(scale)
        return self

    def transform(self, x: Any) -> Any:
        """Scale x.

        Parameters
        ----------
        x : array, data frame or list of arrays
            (..., I), with the I features of `fit`; or (n,) if I is 1. Missing values (NaN, masked, null or
            NA) are NaN in the result.

        Returns
        -------
        ndarray or list of ndarray
            New arrays in the dtype of x, float32 or float64; float64 for integers.

        Raises
        ------
        RuntimeError
            Before `fit`.
        ValueError, TypeError
            If x has another number of features, or is not an array of real numbers.
        """
        offset, scale = self._fitted("transform")
        return self._each(x, lambda part, out: np.divide(part - offset, scale, out=out, casting="same_kind"))

    def inverse(self, x: Any) -> Any:
        """Undo `transform`: convert model outputs to the units of the data. Same arguments and errors."""
        offset, scale = self._fitted("inverse")
        return self._each(x, lambda part, out: np.add(part * scale, offset, out=out, casting="same_kind"))

    def _fitted(self, what: str) -> tuple[Array, Array]:
        if self.offset is None or self.scale is None:
            raise RuntimeError(f"{what}: not fitted; call fit first")
        return self.offset, self.scale

    def _each(self, x: Any, function: Callable[[Array, Array], Array]) -> Any:
        given = _given(x)
        if isinstance(given, list):
            return [self._one(f"x[{i}]", array, function) for i, array in enumerate(given)]
        return self._one("x", given, function)

    def _one(self, name: str, array: Array, function: Callable[[Array, Array], Array]) -> Array:
        features = 0 if self.offset is None else len(self.offset)
        if not array.ndim or (array.shape[-1] != features and (array.ndim, features) != (1, 1)):
            one = " or (n,)" if features == 1 else ""
            raise ValueError(f"{name}: expected (..., {features}){one}, got {array.shape}")
        dtype = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
        out = np.empty(array.shape, dtype)
        for index in _blocks(array.shape):
            function(array[index], out[index])
        return out

    @property
    def config(self) -> dict[str, Any]:
        """Type, offset and scale as JSON-compatible values."""
        offset, scale = self._fitted("config")
        return {"type": type(self).__name__, "offset": offset.tolist(), "scale": scale.tolist()}

    @classmethod
    def from_config(cls: type[Self], config: Mapping[str, Any]) -> Self:
        """The scaler that `config` describes.

        Raises
        ------
        ValueError, TypeError
            If `config` does not describe a scaler of this class.
        """
        if not isinstance(config, Mapping) or set(config) != {"type", "offset", "scale"}:
            raise ValueError("scaler: expected type, offset and scale")
        made = cls._types.get(config["type"]) if isinstance(config["type"], str) else None
        if made is None or not issubclass(made, cls):
            raise ValueError(f"scaler: expected a {cls.__name__}, got type {config['type']!r}")
        offset, scale = _numbers("offset", config["offset"]), _numbers("scale", config["scale"])
        if len(offset) != len(scale) or not (scale > 0).all():
            raise ValueError("scaler: expected a scale above 0 for every offset")
        scaler = made()
        scaler.offset, scaler.scale = _frozen(offset), _frozen(scale)
        return scaler


class StandardScaler(Scaler):
    """Scale each feature to mean 0 and standard deviation 1.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import StandardScaler
    >>> scaler = StandardScaler().fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> scaler.transform([[1.0, 5.0], [5.0, 6.0]])
    array([[-1.,  0.],
           [ 3.,  1.]])
    >>> scaler.inverse([[3.0, 1.0]])
    array([[5., 6.]])
    """

    def _statistics(self, parts: Iterable[Array]) -> tuple[Array, Array]:
        rows = _reduced(np.add, (np.count_nonzero(~np.isnan(part), axis=0) for part in parts))
        mean = _reduced(np.add, (np.nansum(part, axis=0) for part in parts)) / rows
        squares = _reduced(np.add, (np.nansum((part - mean) ** 2, axis=0) for part in parts))
        return mean, np.sqrt(squares / rows)


class MinMaxScaler(Scaler):
    """Scale each feature linearly so that its minimum maps to 0 and its maximum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import MinMaxScaler
    >>> MinMaxScaler().fit(np.array([2.0, 4.0, 6.0])).transform(np.array([3.0, 8.0]))
    array([0.25, 1.5 ])
    """

    def _statistics(self, parts: Iterable[Array]) -> tuple[Array, Array]:
        minimum = _reduced(np.fmin, (np.fmin.reduce(part, axis=0) for part in parts))
        maximum = _reduced(np.fmax, (np.fmax.reduce(part, axis=0) for part in parts))
        return minimum, maximum - minimum


def _given(x: Any) -> Array | list[Array]:
    """Convert x to a list of arrays or, also from nested lists of numbers, to one array."""
    if _inputs.is_list(x) and not isinstance(x[0], (list, tuple)):
        return _inputs.arrays_of("x", x, gaps=True)
    return _checks.real_array("x", x, gaps=True)


class _Parts:
    """Iterable over the rows of arrays (..., I) or (n,) in float64 blocks (n, I)."""

    def __init__(self, arrays: list[Array]) -> None:
        self._arrays = arrays

    def __iter__(self) -> Iterator[Array]:
        for array in self._arrays:
            features = array.shape[-1] if array.ndim > 1 else 1
            for index in _blocks(array.shape):
                yield array[index].reshape(-1, features).astype(np.float64, copy=False)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield indices that cut an array of this shape into blocks of about `BLOCK` values or one row."""
    size = math.prod(shape)
    if not size:
        return
    if size <= BLOCK or len(shape) == 0:
        yield (...,)
        return
    each = size // shape[0]
    if len(shape) > 2 and each > BLOCK:
        for i in range(shape[0]):
            for index in _blocks(shape[1:]):
                yield i, *index
        return
    step = max(1, BLOCK // each)
    for first in range(0, shape[0], step):
        yield (slice(first, first + step),)


def _reduced(combine: "np.ufunc", values: Iterable[Array]) -> Array:
    """Reduce the values of all parts with a binary ufunc."""
    result: Array = functools.reduce(combine, values)
    return result


def _frozen(array: Array) -> Array:
    """Return a read-only copy, which copies of a scaler can share."""
    result = np.array(array, np.float64)
    result.flags.writeable = False
    return result


def _numbers(name: str, values: Any) -> Array:
    """Convert a JSON list to a vector of finite numbers."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"scaler: expected a list of numbers as {name}")
    for value in values:
        if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            raise ValueError(f"scaler: expected finite numbers as {name}, got {value!r:.20}")
    return np.array(values, np.float64)
