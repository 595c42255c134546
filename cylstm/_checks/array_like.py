"""The one gate for data: numbers from arrays of any library, data frames, columns and lists.

`_checks.real_array` comes here with everything that is not simply a NumPy array of numbers. No library is
imported for it: a value shows by its attributes how it is read. What is marked as missing, by a mask, a null,
NA or None, is never read as a number: it is an error that says where, or NaN for callers that ask for that.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PLAIN = {float, int, bool}  # and NumPy's scalars: what NumPy reads from lists as it is
NUMPY_DTYPES = 24  # those of NumPy's own numbers have smaller numbers than this


def is_number_dtype(dtype: "np.dtype[Any]") -> bool:
    """Whether it is one of NumPy's own, of real numbers, ints or bools."""
    return dtype.kind in "fiub" and dtype.num < NUMPY_DTYPES


def is_sequence(value: Any) -> bool:
    """Whether it has several values: a list, an array or a column, and not one number or text."""
    if isinstance(value, (str, bytes, bytearray)):
        return False
    axes = getattr(value, "ndim", None)
    if isinstance(axes, int):
        return axes > 0
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not hasattr(value, "keys")


def is_frame(value: Any) -> bool:
    """Whether it is a table with named columns: of pandas, polars, PyArrow and libraries like these."""
    if hasattr(value, "collect"):  # a query of polars, to be run first; its columns are not to be asked for
        return False
    return hasattr(value, "columns") and (hasattr(value, "to_numpy") or hasattr(value, "column_names"))


def numbers(name: str, value: Any, gaps: bool = False) -> Array:
    """An array of real numbers; gaps: with NaN for what is missing, instead of an error."""
    if hasattr(value, "__dask_graph__") and value.__dask_graph__() is not None:
        value = value.compute()
    if hasattr(value, "packing"):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}; its rows are one")
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
    """Classes of any type, none of them missing; an array, or a list as it is."""
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
        f"{place}: expected a value, got none: it is masked, null or NA; fill it in or leave it out"
    )


def _place(name: str, marked: Array) -> str:
    """The name of the first place that is marked."""
    if not marked.ndim:
        return name
    place = np.unravel_index(int(np.argmax(marked)), marked.shape)
    return f"{name}[{', '.join(str(int(i)) for i in place)}]"


def _refusal(name: str, got: Any) -> TypeError:
    return TypeError(f"{name}: expected real numbers, got {got}")


def _kind(dtype: Any) -> str:
    """What errors say of a dtype."""
    dates = getattr(dtype, "kind", None) in ("M", "m")
    return f"dtype {dtype}" + "; pass a number instead, such as the hours since a date" * dates


def _mask(array: Any) -> Array | None:
    """Where an array of a subclass is masked; None: nowhere."""
    mask: Array = np.asarray(getattr(array, "mask", False))
    if mask.dtype != bool or not mask.any():
        return None
    return np.broadcast_to(mask, array.shape)


def _nulls(column: Any) -> Array | None:
    """Where a column of pandas, polars or PyArrow marks a gap apart from its numbers; None: nowhere."""
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
    array = np.asarray(value)  # of no subclass
    if array.dtype.names:
        raise _refusal(name, f"fields {list(array.dtype.names)}; pass one array of numbers")
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
    raise _refusal(name, _kind(array.dtype))


def _of_objects(name: str, array: Array, gaps: bool) -> Array:
    """Numbers that are objects of Python: ints of any size, Decimal, Fraction, None."""
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
        raise ValueError(
            f"{name}: expected numbers that a float can hold, got one that is too large"
        ) from None


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # of pandas
        return True
    return isinstance(value, np.ndarray) and not value.ndim and _mask(value) is not None


def _number(place: str, value: Any) -> float:
    """A real number of Python."""
    if type(value) in PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (str, bytes, complex, np.complexfloating, np.datetime64, np.timedelta64)) or (
        not hasattr(value, "__float__") or is_sequence(value)
    ):
        text = f"{value!r:.40}" if isinstance(value, (str, bytes)) else type(value).__name__
        raise _refusal(place, text + f"; pass {place}.toarray()" * hasattr(value, "toarray"))
    if isinstance(value, (np.ndarray, np.generic)):
        kind = np.asarray(value).dtype
        if kind.kind not in "fiub":
            raise _refusal(place, _kind(kind))
        return value.item()  # type: ignore[no-any-return]
    if hasattr(value, "detach"):
        value = value.item()  # of a tensor
    if hasattr(value, "__index__"):
        return int(value.__index__())
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{place}: expected a number that a float can hold, got one that is too large"
        ) from None
    except (TypeError, ValueError) as error:
        raise _refusal(place, f"{type(value).__name__}: {error}") from error


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
    """A vector of just these."""
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def _of_tensor(name: str, tensor: Any, gaps: bool) -> Array:
    """The values of a tensor of PyTorch."""
    tensor = tensor.detach()
    if hasattr(tensor, "get_mask"):  # a MaskedTensor, whose mask is True where there is a value
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
        raise _refusal(name, f"dtype {tensor.dtype}")
    if tensor.is_floating_point() and tensor.element_size() < 4:  # of bfloat16 and float8 NumPy knows nothing
        tensor = tensor.float()
    return _of_ndarray(name, tensor.resolve_neg().numpy(), gaps)


def _of_frame(name: str, frame: Any, gaps: bool) -> Array:
    """The columns of a table side by side, without a copy where the table is one array."""
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
                raise _refusal(f"{name}[{label!r}]", "several in each row")
            found.append(array)
        except TypeError as refusal:
            others[label], error = getattr(column, "dtype", getattr(column, "type", "")), refusal
    if others:
        kinds = ", ".join(str(dtype) for dtype in others.values())
        raise TypeError(
            f"{name}: expected columns of real numbers, got others: {list(others)} ({kinds})"
        ) from error
    return np.stack(found, axis=1) if found else np.empty((len(frame), 0))


def _columns(frame: Any) -> Iterable[tuple[Any, Any]]:
    if hasattr(frame, "iloc"):  # where several columns may have one name
        return ((label, frame.iloc[:, i]) for i, label in enumerate(frame.columns))
    if hasattr(frame, "column_names"):
        return zip(frame.column_names, frame.columns, strict=True)
    return ((label, frame[label]) for label in frame.columns)


def _of_column(name: str, column: Any, gaps: bool) -> Array:
    """A column of a table, or an array that has names."""
    dtype = getattr(column, "dtype", None)
    if str(dtype) == "category":
        raise _refusal(name, "categories; pass their codes or numbers")
    nulls = _nulls(column)
    if nulls is not None and not gaps:
        raise _missing(_place(name, nulls))
    plain = getattr(dtype, "numpy_dtype", None)  # of columns of pandas that mark their gaps elsewhere
    if not isinstance(plain, np.dtype) or not is_number_dtype(plain):
        return _of_other(name, column, gaps)
    if nulls is None:
        return _of_ndarray(name, column.to_numpy(dtype=plain), gaps)
    filled = column.to_numpy(dtype=plain if plain.kind == "f" else np.float64, na_value=np.nan)
    return _of_ndarray(name, filled, gaps)


def _of_other(name: str, value: Any, gaps: bool) -> Array:
    """What NumPy can make an array of."""
    if hasattr(value, "collect"):
        raise _refusal(name, f"a {type(value).__name__}, which is not computed yet; pass {name}.collect()")
    try:
        # Not by numpy.asarray, which drops the mask of what a variable of netCDF4 gives.
        array = value.__array__() if hasattr(value, "__array__") else np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # any of that library's own
        raise _refusal(name, f"a {type(value).__name__}, which NumPy cannot read: {error}") from error
    return _of_ndarray(name, array, gaps)
