"""Scaling of features, learnt from the training data and kept with the model."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cylstm.data import _inputs

Array = NDArray[Any]
Self = TypeVar("Self", bound="Scaler")
VARIES = 1e-12  # of the largest value: a column that spreads less is constant but for rounding


class Scaler(ABC):
    """Base of all scalers: (x - offset) / scale for each feature, and back.

    A subclass gives `_statistics(parts)`, offset and spread (I,) of the rows of float64 arrays (n, I).

    Attributes
    ----------
    offset, scale : ndarray or None
        (I,), in float64; None before `fit`. A constant feature has scale 1.
    """

    _types: dict[str, type["Scaler"]] = {}  # noqa: RUF012 - by name, for files; subclasses add themselves

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register a scaler that files can name."""
        super().__init_subclass__(**kwargs)
        cls._types.setdefault(cls.__name__, cls)

    def __init__(self) -> None:
        self.offset: Array | None = None
        self.scale: Array | None = None

    @abstractmethod
    def _statistics(self, parts: list[Array]) -> tuple[Array, Array]: ...

    def fit(self: Self, x: Any) -> Self:
        """Learn offset and scale.

        Parameters
        ----------
        x : array, data frame or list of arrays
            (..., I), or one feature without an axis for it, (n,). Of training data only: what is known of
            later data would flatter the model.

        Raises
        ------
        ValueError, TypeError
            If there are no values, or one is NaN, infinite, too large or no real number.
        """
        given = _given(x)
        _inputs.check_samples("x", given)
        arrays = given if isinstance(given, list) else [given]
        if not sum(array.size for array in arrays):
            raise ValueError("x: expected at least one value, got none")
        parts = [_rows(array) for array in arrays]
        with np.errstate(over="ignore", invalid="ignore"):
            offset, spread = self._statistics(parts)
        largest = np.max([np.abs(part).max(axis=0, initial=0) for part in parts], axis=0)
        scale = np.where(spread > VARIES * largest, spread, 1.0)
        if not (np.isfinite(offset) & np.isfinite(spread)).all():
            raise ValueError(f"x: expected numbers of usual size, got up to {largest.max():g}")
        self.offset, self.scale = offset, scale
        return self

    def transform(self, x: Any) -> Any:
        """x scaled, in new arrays of the same form.

        Parameters
        ----------
        x : array, data frame or list of arrays
            (..., I), with the I features of `fit`; or (n,) if I is 1. NaN stays NaN.

        Returns
        -------
        ndarray or list of ndarray
            In float32 or float64, as x is; of ints in float64.

        Raises
        ------
        RuntimeError
            Before `fit`.
        ValueError, TypeError
            If x has another number of features, or is no array of real numbers.
        """
        offset, scale = self._fitted("transform")
        return self._each(x, lambda array: (array - offset) / scale)

    def inverse(self, x: Any) -> Any:
        """Undo `transform`: outputs of a model in the units of the data; takes and raises what that does."""
        offset, scale = self._fitted("inverse")
        return self._each(x, lambda array: array * scale + offset)

    def _fitted(self, what: str) -> tuple[Array, Array]:
        if self.offset is None or self.scale is None:
            raise RuntimeError(f"{what}: not fitted; call fit first")
        return self.offset, self.scale

    def _each(self, x: Any, function: Callable[[Array], Array]) -> Any:
        given = _given(x)
        if isinstance(given, list):
            return [self._one(f"x[{i}]", array, function) for i, array in enumerate(given)]
        return self._one("x", given, function)

    def _one(self, name: str, array: Array, function: Callable[[Array], Array]) -> Array:
        features = 0 if self.offset is None else len(self.offset)
        if not array.ndim or (array.shape[-1] != features and (array.ndim, features) != (1, 1)):
            one = " or (n,)" if features == 1 else ""
            raise ValueError(f"{name}: expected (..., {features}){one}, got {array.shape}")
        dtype = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
        return function(array).astype(dtype, copy=False)

    @property
    def config(self) -> dict[str, Any]:
        """Type, offset and scale, as JSON values."""
        offset, scale = self._fitted("config")
        return {"type": type(self).__name__, "offset": offset.tolist(), "scale": scale.tolist()}

    @classmethod
    def from_config(cls: type[Self], config: Mapping[str, Any]) -> Self:
        """The scaler that `config` describes.

        Raises
        ------
        ValueError, TypeError
            If it does not describe one of this class.
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
        scaler.offset, scaler.scale = offset, scale
        return scaler


class StandardScaler(Scaler):
    """Every feature to mean 0 and standard deviation 1.

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

    def _statistics(self, parts: list[Array]) -> tuple[Array, Array]:
        rows = sum(map(len, parts))
        mean = np.sum([part.sum(axis=0) for part in parts], axis=0) / rows
        squares = np.sum([((part - mean) ** 2).sum(axis=0) for part in parts], axis=0)
        return mean, np.sqrt(squares / rows)


class MinMaxScaler(Scaler):
    """Every feature to 0 for its least value and 1 for its largest.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.data import MinMaxScaler
    >>> MinMaxScaler().fit(np.array([2.0, 4.0, 6.0])).transform(np.array([3.0, 8.0]))
    array([0.25, 1.5 ])
    """

    def _statistics(self, parts: list[Array]) -> tuple[Array, Array]:
        least, most = (
            np.array([getattr(part, name)(axis=0) for part in parts if len(part)]) for name in ("min", "max")
        )
        offset: Array = least.min(axis=0)
        return offset, most.max(axis=0) - offset


def _given(x: Any) -> Array | list[Array]:
    """A list of arrays, or one array, also from lists of numbers in each other."""
    if _inputs.is_list(x) and hasattr(x[0], "ndim"):
        return _inputs.arrays_of("x", x)
    return _inputs.array_of("x", x)


def _rows(array: Array) -> Array:
    """(n, I) in float64 from (..., I) or (n,)."""
    features = array.shape[-1] if array.ndim > 1 else 1
    return array.reshape(-1, features).astype(np.float64, copy=False)


def _numbers(name: str, values: Any) -> Array:
    """A vector of finite numbers from JSON values."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"scaler: expected a list of numbers as {name}")
    for value in values:
        if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            raise ValueError(f"scaler: expected finite numbers as {name}, got {value!r:.20}")
    return np.array(values, np.float64)
