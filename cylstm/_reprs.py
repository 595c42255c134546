"""Representations of objects: constructor arguments, and the table of a model's layers."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class _Layer(Protocol):
    """The attributes of a layer that the table shows."""

    output_size: int
    batch_first: bool | None
    pools: bool

    @property
    def parameters(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


def as_constructed(thing: Any) -> str:
    """`Class(name=value, …)` with the constructor's arguments that differ from their defaults.

    An argument is shown if the object has an attribute of its name; models and functions by their names only.
    """
    shown = []
    for name, argument in inspect.signature(type(thing)).parameters.items():
        value = getattr(thing, name, argument.default)
        if value is not argument.default and not _equal(value, argument.default):
            shown.append(f"{name}={_short(value)}")
    return f"{type(thing).__name__}({', '.join(shown)})"


def _equal(value: Any, default: Any) -> bool:
    """Whether an argument equals its default; an empty container may stand for None."""
    if default is None:
        return isinstance(value, (dict, list, tuple)) and not value
    return type(value) is type(default) and isinstance(value, (int, float, str, tuple)) and value == default


def _short(value: Any) -> str:
    if hasattr(type(value), "parameter_shapes"):  # a layer
        return f"{type(value).__name__}(...)"
    return value.__name__ if inspect.isroutine(value) else repr(value)


def table(model: _Layer) -> str:
    """The layers of a model, the shape of each one's output, and its number of parameters.

    T steps, B sequences; a layer inside another one is indented.
    """
    rows = [("layer", "output", "parameters"), *_rows(model, "", 0, model, False)]
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    size = sum(view.nbytes for view in model.parameters.values())
    rule = "-" * len(lines[0])
    total = f"{_count(model):,} parameters, {_bytes(size)} in {model.dtype}"
    return "\n".join([lines[0], rule, *lines[1:], rule, total])


def _rows(layer: _Layer, name: str, depth: int, model: _Layer, pooled: bool) -> list[tuple[str, str, str]]:
    parts = getattr(layer, "layers", ())
    pooled_after = pooled or layer.pools
    label = "  " * depth + " ".join(filter(None, [name, type(layer).__name__, _options(layer)]))
    rows = [(label, _shape(layer, model, pooled_after), f"{_count(layer):,}")]
    for position, part in enumerate(parts):
        rows += _rows(part, str(position), depth + 1, model, pooled)
        pooled = pooled or part.pools
    return rows


def _options(layer: _Layer) -> str:
    """Options that distinguish layers of the same class, apart from their sizes."""
    options = []
    if getattr(layer, "num_layers", 1) > 1:
        options.append(f"{layer.num_layers} layers")  # type: ignore[attr-defined]
    if getattr(layer, "bidirectional", False):
        options.append("both directions")
    if getattr(layer, "reverse", False):
        options.append("reversed")
    for name in ("kind", "how"):  # of an activation, and of pooling
        if isinstance(value := getattr(layer, name, None), str):
            options.append(value)
    return f"({', '.join(options)})" if options else ""


def _shape(layer: _Layer, model: _Layer, pooled: bool) -> str:
    width = str(layer.output_size or "?")
    if pooled:
        return f"(B, {width})"
    return f"(B, T, {width})" if model.batch_first else f"(T, B, {width})"


def _count(layer: _Layer) -> int:
    return sum(view.size for view in layer.parameters.values())


def _bytes(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.3g} GiB"
