"""Conversion of input data to NumPy arrays: arrays of any library, data frames, columns and lists.

`_checks.real_array` calls this module for everything other than a plain NumPy array of numbers. No library is
imported: types are recognised by their attributes. A missing value (masked, null, NA or None) raises an error
that names its place, or becomes NaN if the caller allows gaps.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PLAIN = {float, int, bool}  # types that NumPy converts from lists directly, besides its scalars
NUMPY_DTYPES = 24  # built-in numeric dtypes of NumPy have a smaller `num`


def is_number_dtype(dtype: "np.dtype[Any]") -> bool:
    """Whether a dtype is built-in and holds real numbers, integers or bools."""
    return dtype.kind in "fiub" and dtype.num < NUMPY_DTYPES


def is_sequence(value: Any) -> bool:
    """Whether a value is a list, an array or a column, as opposed to a number or a string."""
    if isinstance(value, (str, bytes, bytearray)):
        return False
    axes = getattr(value, "ndim", None)
    if isinstance(axes, int):
        return axes > 0
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not hasattr(value, "keys")


def is_frame(value: Any) -> bool:
    """Whether a value is a table with named columns, as of pandas, polars or PyArrow."""
    if hasattr(value, "collect"):  # a LazyFrame of polars, whose columns are expensive to access
        return False
    return hasattr(value, "columns") and (hasattr(value, "to_numpy") or hasattr(value, "column_names"))


def numbers(name: str, value: Any, gaps: bool = False) -> Array:
    """Convert a value to an array of real numbers; with `gaps`, missing values become NaN."""
    if hasattr(value, "__dask_graph__") and value.__dask_graph__() is not None:
        value = value.compute()
    if hasattr(value, "packing"):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}; pass its rows")
    if isinstance(value, (list, tuple)):
        return _of_list(name, value, gaps)
    if isinstance(value, np.ndarray):
        return _of_ndarray(name, value, gaps)
    if isinstance(value, bytearray):
        value = bytes(value)
    if hasattr(value, "detach") and hasattr(value, "layout"):
        return _of_tensor(name, value, gaps)
    if is_frame(value):
        return _of_frame(name, value.to_native() if hasattr(value, "to_native") else value, gaps)
    if hasattr(value, "to_numpy"):
        return _of_column(name, value, gaps)
    return _of_other(name, value, gaps)


def labels(name: str, value: Any) -> Any:
    """Check class labels of any type for missing values; return an array, or a list unchanged."""
    if is_frame(value):
        return value
    if hasattr(value, "detach"):
        return numbers(name, value)
    if not isinstance(value, (list, tuple)):
        marked = _mask(value) if isinstance(value, np.ndarray) else _nulls(value)
        if marked is not None:
            raise _missing(_place(name, marked))
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or (value.dtype == object and value.ndim):
        for i, label in enumerate(value):
            if _is_missing(label) or (isinstance(label, float) and label != label):
                raise _missing(f"{name}[{i}]")
    return value


def _missing(place: str) -> ValueError:
    return ValueError(
        f"{place}: expected a value, got a missing one (masked, null or NA); impute it or drop it"
    )


def _place(name: str, marked: Array) -> str:
    """Format the index of the first marked element."""
    if not marked.ndim:
        return name
    place = np.unravel_index(int(np.argmax(marked)), marked.shape)
    return f"{name}[{', '.join(str(int(i)) for i in place)}]"


def _not_real(name: str, got: Any) -> TypeError:
    return TypeError(f"{name}: expected real numbers, got {got}")


def _kind(dtype: Any) -> str:
    """Describe a dtype for an error message."""
    dates = getattr(dtype, "kind", None) in ("M", "m")
    return f"dtype {dtype}" + "; pass a number instead, such as the hours since a date" * dates


def _mask(array: Any) -> Array | None:
    """Return the mask of an array; None if nothing is masked."""
    mask: Array = np.asarray(getattr(array, "mask", False))
    if mask.dtype != bool or not mask.any():
        return None
    return np.broadcast_to(mask, array.shape)


def _nulls(column: Any) -> Array | None:
    """Return the null mask of a pandas, polars or PyArrow column; None if it has no nulls."""
    count = getattr(column, "null_count", None)
    if count is not None:
        found = column.is_null() if (count() if callable(count) else count) else None
    else:
        extended = not isinstance(getattr(column, "dtype", np.dtype(float)), np.dtype)
        found = column.isna() if extended and hasattr(column, "isna") else None
    if found is None:
        return None
    marked: Array = np.asarray(found, bool)
    return marked if marked.any() else None


def _of_ndarray(name: str, value: Array, gaps: bool) -> Array:
    array = np.asarray(value)  # drops subclasses
    if array.dtype.names:
        raise _not_real(name, f"fields {list(array.dtype.names)}; pass one array of numbers")
    mask = None if type(value) is np.ndarray else _mask(value)
    if mask is not None:
        if not gaps:
            raise _missing(_place(name, mask))
        hidden = np.where(mask, array.dtype.type(0), array)
        values = _of_ndarray(name, hidden, gaps)
        return np.where(mask, np.array(np.nan, np.result_type(values.dtype, np.float16)), values)
    if is_number_dtype(array.dtype):
        return array
    if array.dtype == object:
        return _of_objects(name, array, gaps)
    if array.dtype.type.__module__.startswith("ml_dtypes") and "complex" not in array.dtype.name:
        return array.astype(np.float32 if "float" in array.dtype.name else np.int8)
    raise _not_real(name, _kind(array.dtype))


def _of_objects(name: str, array: Array, gaps: bool) -> Array:
    """Convert Python objects: ints of any size, Decimal, Fraction, None."""
    values = []
    for place, value in zip(np.ndindex(array.shape), array.ravel().tolist(), strict=True):
        where = f"{name}[{', '.join(map(str, place))}]" if place else name
        if is_sequence(value) and array.ndim:
            raise ValueError(f"{name}: expected a rectangular array, got rows of different lengths or kinds")
        if array.ndim and _is_missing(value):
            if not gaps:
                raise _missing(where)
            value = np.nan
        values.append(_number(where, value))
    kinds = set(map(type, values))
    if kinds <= {bool} or (kinds <= {int, bool} and all(-(2**63) <= value < 2**63 for value in values)):
        return np.array(values, bool if kinds == {bool} else np.int64).reshape(array.shape)
    try:
        return np.array(list(map(float, values)), np.float64).reshape(array.shape)
    except OverflowError:
        raise ValueError(f"{name}: expected numbers in the range of a float, got a larger one") from None


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # pandas.NA
        return True
    return isinstance(value, np.ndarray) and not value.ndim and _mask(value) is not None


def _number(place: str, value: Any) -> float:
    """Convert a value to a Python number."""
    if type(value) in PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (str, bytes, complex, np.complexfloating, np.datetime64, np.timedelta64)) or (
        not hasattr(value, "__float__") or is_sequence(value)
    ):
        text = f"{value!r:.40}" if isinstance(value, (str, bytes)) else type(value).__name__
        raise _not_real(place, text + f"; pass {place}.toarray()" * hasattr(value, "toarray"))
    if isinstance(value, (np.ndarray, np.generic)):
        kind = np.asarray(value).dtype
        if kind.kind not in "fiub":
            raise _not_real(place, _kind(kind))
        return value.item()  # type: ignore[no-any-return]
    if hasattr(value, "detach"):
        value = value.item()  # a tensor
    if hasattr(value, "__index__"):
        return int(value.__index__())
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{place}: expected a number in the range of a float, got a larger one") from None
    except (TypeError, ValueError) as error:
        raise _not_real(place, f"{type(value).__name__}: {error}") from error


def _of_list(name: str, value: Any, gaps: bool) -> Array:
    leaves: Iterable[Any] = value
    kinds = set(map(type, leaves))
    while kinds and kinds <= {list, tuple}:
        leaves = list(chain.from_iterable(leaves))
        kinds = set(map(type, leaves))
    if all(kind in PLAIN or (issubclass(kind, np.generic) and kind is not np.void) for kind in kinds):
        return _of_ndarray(name, _rectangular(name, value), gaps)
    if not any(map(is_sequence, value)):
        return _of_objects(name, _objects(value), gaps)
    if not all(map(is_sequence, value)):
        raise ValueError(f"{name}: expected a rectangular array, got rows and single values")
    parts = [numbers(f"{name}[{i}]", part, gaps) for i, part in enumerate(value)]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"{name}: expected a rectangular array, got rows of different lengths")
    return np.stack(parts)


def _rectangular(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected a rectangular array, got rows of different lengths") from None


def _objects(values: Any) -> Array:
    """Build a vector of objects."""
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def _of_tensor(name: str, tensor: Any, gaps: bool) -> Array:
    """Convert a PyTorch tensor."""
    tensor = tensor.detach()
    if hasattr(tensor, "get_mask"):  # a MaskedTensor, whose mask is True for valid values
        marked = ~numbers(name, tensor.get_mask())
        masked = np.ma.MaskedArray(numbers(name, tensor.get_data()), marked)
        return _of_ndarray(name, masked, gaps)
    if tensor.device.type != "cpu":
        raise TypeError(
            f"{name}: expected a tensor on the CPU, got one on {tensor.device}; pass {name}.cpu()"
        )
    if tensor.is_nested:
        raise TypeError(f"{name}: expected a rectangular tensor, got a nested one; pass a list of its parts")
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"{name}: expected a dense tensor, got {tensor.layout}; pass {name}.to_dense()")
    if tensor.is_quantized:
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}; pass {name}.dequantize()")
    if tensor.is_complex():
        raise _not_real(name, f"dtype {tensor.dtype}")
    if tensor.is_floating_point() and tensor.element_size() < 4:  # NumPy lacks bfloat16 and float8
        tensor = tensor.float()
    return _of_ndarray(name, tensor.resolve_neg().numpy(), gaps)


def _of_frame(name: str, frame: Any, gaps: bool) -> Array:
    """Convert the columns of a table, without a copy if the table is backed by one array."""
    if hasattr(frame, "iloc") and all(isinstance(dtype, np.dtype) for dtype in frame.dtypes):
        array = frame.to_numpy()
        if is_number_dtype(array.dtype):
            return array  # type: ignore[no-any-return]
    found: list[Array] = []
    others, error = {}, None
    for label, column in _columns(frame):
        try:
            array = numbers(f"{name}[{label!r}]", column, gaps)
            if array.ndim != 1:
                raise _not_real(f"{name}[{label!r}]", "several in each row")
            found.append(array)
        except TypeError as caught:
            others[label], error = getattr(column, "dtype", getattr(column, "type", "")), caught
    if others:
        kinds = ", ".join(str(dtype) for dtype in others.values())
        raise TypeError(
            f"{name}: expected columns of real numbers, got others: {list(others)} ({kinds})"
        ) from error
    return np.stack(found, axis=1) if found else np.empty((len(frame), 0))


def _columns(frame: Any) -> Iterable[tuple[Any, Any]]:
    if hasattr(frame, "iloc"):  # pandas, where column names may repeat
        return ((label, frame.iloc[:, i]) for i, label in enumerate(frame.columns))
    if hasattr(frame, "column_names"):
        return zip(frame.column_names, frame.columns, strict=True)
    return ((label, frame[label]) for label in frame.columns)


def _of_column(name: str, column: Any, gaps: bool) -> Array:
    """Convert a column of a table, or a labelled array."""
    dtype = getattr(column, "dtype", None)
    if str(dtype) == "category":
        raise _not_real(name, "categories; pass their codes or numbers")
    nulls = _nulls(column)
    if nulls is not None and not gaps:
        raise _missing(_place(name, nulls))
    plain = getattr(dtype, "numpy_dtype", None)  # nullable dtypes of pandas
    if not isinstance(plain, np.dtype) or not is_number_dtype(plain):
        return _of_other(name, column, gaps)
    if nulls is None:
        return _of_ndarray(name, column.to_numpy(dtype=plain), gaps)
    filled = column.to_numpy(dtype=plain if plain.kind == "f" else np.float64, na_value=np.nan)
    return _of_ndarray(name, filled, gaps)


def _of_other(name: str, value: Any, gaps: bool) -> Array:
    """Convert anything else that NumPy can convert."""
    if hasattr(value, "collect"):
        raise _not_real(name, f"a {type(value).__name__}, which is not computed yet; pass {name}.collect()")
    try:
        # numpy.asarray would drop the mask that a netCDF4 variable returns.
        array = value.__array__() if hasattr(value, "__array__") else np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # any error of that library
        raise _not_real(name, f"a {type(value).__name__}, which NumPy cannot read: {error}") from error
    return _of_ndarray(name, array, gaps)
