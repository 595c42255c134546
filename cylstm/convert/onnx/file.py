"""Load ONNX files within a budget for functions and external weights; arrays of tensors and attributes."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.budget import Budget
from cylstm.convert._common import ConversionError
from cylstm.convert.onnx.fold import Attributes, as_numbers

Array = NDArray[Any]
MAX_DEPTH = 100  # of calls of functions
Key = tuple[str, str, str]  # domain, name and overload of a function


def load(path: Path) -> tuple[Any, Budget]:
    """The `onnx.ModelProto` of a file, its functions expanded, its external weights read; and its budget."""
    import onnx
    import onnx.external_data_helper
    import onnx.inliner

    model = onnx.load(path, load_external_data=False)
    size = path.stat().st_size
    outside = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    budget = Budget(size + _external_bytes(path.parent, outside))
    for tensor in outside:
        budget.spend("bytes", max(0, _length(path.parent, tensor)))
    if outside:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    if model.functions:
        _spend_on_functions(model, budget)
        model = onnx.inliner.inline_local_functions(model)
    return model, budget


def _graphs(nodes: Any) -> Iterator[Any]:
    """The graphs in attributes of nodes."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors of a model."""
    places: list[Any] = [model.graph, *model.functions]
    while places:
        place = places.pop()
        yield from getattr(place, "initializer", ())
        places += _graphs(place.node)
        for node in place.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _entry(tensor: Any, key: str) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == key), "")


def _file_of(folder: Path, tensor: Any) -> Path:
    """The file that a tensor's numbers are in: a regular one, in the folder of the model."""
    location = _entry(tensor, "location")
    file, root = Path(os.path.realpath(folder / location)), Path(os.path.realpath(folder))
    if not location or root not in file.parents:
        raise ConversionError(
            f"{tensor.name}: expected external data in the folder of the model, got location {location!r}"
        )
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise ConversionError(f"{tensor.name}: expected a regular file, got {location}")
    return file


def _length(folder: Path, tensor: Any) -> int:
    """The number of bytes of a tensor; by default all from its offset on."""
    given = _entry(tensor, "length")
    offset = int(_entry(tensor, "offset") or 0)
    return int(given) if given else os.stat(_file_of(folder, tensor)).st_size - offset


def _external_bytes(folder: Path, tensors: list[Any]) -> int:
    return sum(os.stat(file).st_size for file in {_file_of(folder, tensor) for tensor in tensors})


def _spend_on_functions(model: Any, budget: Budget) -> None:
    """Count what functions expand to, before they are: calls of calls can double at every level."""
    functions: dict[Key, Any] = {}
    for function in model.functions:
        key = (function.domain, function.name, getattr(function, "overload", ""))
        functions[key] = function
    sizes: dict[Key, tuple[int, int]] = {}  # nodes and bytes, when expanded

    def expanded(nodes: Any, open_: tuple[Key, ...]) -> tuple[int, int]:
        count = size = 0
        for node in nodes:
            count, size = count + 1, size + node.ByteSize()
            for graph in _graphs([node]):
                inner = expanded(graph.node, open_)
                count, size = count + inner[0], size + inner[1]
            key = (node.domain, node.op_type, getattr(node, "overload", ""))
            if key not in functions:
                continue
            if key in open_ or len(open_) >= MAX_DEPTH:
                raise ConversionError(
                    f"function {node.op_type}: expected calls of other functions, {MAX_DEPTH} deep at most"
                )
            if key not in sizes:
                sizes[key] = expanded(functions[key].node, (*open_, key))
            count, size = count + sizes[key][0], size + sizes[key][1]
        return count, size

    count, size = expanded(model.graph.node, ())
    budget.spend("nodes", count)
    budget.spend("bytes", size)


def array_of(name: str, tensor: Any) -> Array:
    """The numbers of a tensor."""
    from onnx import numpy_helper

    if any(size < 0 for size in tensor.dims):
        raise ConversionError(f"{name}: expected sizes of at least 0, got {list(tensor.dims)}")
    return as_numbers(name, numpy_helper.to_array(tensor))


def plain(name: str, value: Any) -> Any:
    """An attribute as text, number, list or array."""
    from onnx import TensorProto

    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, TensorProto):
        return array_of(name, value)
    if isinstance(value, (int, float, str)):
        return value
    if hasattr(value, "__iter__"):
        return [plain(name, part) for part in value]
    return None  # graphs and the like, of which no operator here has any


def constant(attributes: Attributes) -> Array:
    """Value of a Constant node."""
    for name, dtype in (
        ("value", None), ("value_int", np.int64), ("value_ints", np.int64),
        ("value_float", np.float32), ("value_floats", np.float32),
    ):  # fmt: skip
        if name in attributes:
            return np.asarray(attributes[name], dtype)
    raise ConversionError(f"expected a tensor or numbers, got {sorted(attributes)}")
