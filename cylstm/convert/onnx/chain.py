"""The chain of layers that the reader of ONNX builds, and the model made from it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.budget import Budget
from cylstm.convert._common import (
    ACTIVATED,
    RECURRENT,
    Conversion,
    ConversionError,
    Part,
    assembled,
    name_in_errors,
    real_dtype,
)
from cylstm.convert.onnx.values import Atom, Source
from cylstm.layers.activation import Activation
from cylstm.layers.base import Layer
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.pooling import Pooling
from cylstm.layers.residual import Residual

Array = NDArray[Any]
GELU = ("affine", "erf", "affine")


@dataclasses.dataclass
class Record:
    """A layer of the chain: its arguments and weights, and the versions of the chain before and after it."""

    name: str
    kind: str
    before: int
    after: int
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    values: dict[str, Array] = dataclasses.field(default_factory=dict)
    layers: "list[Record]" = dataclasses.field(default_factory=list)
    directions: Atom | None = None  # of a recurrent node: axes of its y, and its last states, h first
    units: Atom | None = None
    states: tuple[Source, ...] = ()


class Chain:
    """Layers in order; `version` counts edits, so a value of an earlier version is known to be a branch."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.records: list[Record] = []
        self.closed = False  # by zeros in padded steps, which a further layer would process
        self.version = 0

    def _edit(self) -> None:
        if self.closed:
            raise ConversionError("expected no layer after zeros in the steps that are not real")
        self.version += 1

    def append(
        self, name: str, kind: str, values: Mapping[str, Array] | None = None, **arguments: Any
    ) -> None:
        """Add a layer."""
        for key, value in (values or {}).items():
            if value.dtype.kind != "f":
                raise ConversionError(f"{key}: expected floating-point numbers, got {value.dtype}")
        self.budget.spend("layers", 1)
        self.budget.spend("parameters", sum(value.size for value in (values or {}).values()))
        record = Record(name, kind, self.version, self.version + 1, arguments, dict(values or {}))
        self.records.append(record)
        self._edit()

    def edited(self) -> Record:
        """The last layer, which the caller changes."""
        self._edit()
        self.records[-1].after = self.version
        return self.records[-1]

    def last(self, kind: str) -> Record | None:
        """The last layer, if it is of this kind."""
        return self.records[-1] if self.records and self.records[-1].kind == kind else None

    def since(self, version: int) -> list[Record] | None:
        """The layers after a version of the chain; None if no layer starts there."""
        for position, record in enumerate(self.records):
            if record.before == version:
                return self.records[position:]
        return None

    def affine(self, name: str, scale: float, shift: float) -> None:
        """y = scale x + shift."""
        last = self.last("affine")
        if last is None:
            self.append(name, "affine", alpha=scale, beta=shift)
            return
        a = last.arguments
        a["alpha"], a["beta"] = scale * a["alpha"], scale * a["beta"] + shift
        self.edited()

    def by_feature(self, name: str, scale: Array, shift: Array) -> None:
        """y = scale x + shift, with a number for each feature: a dense layer, or part of the one below."""
        if self.last("Linear") is None:
            self.append(name, "Linear", {"weight": np.eye(len(scale), dtype=scale.dtype)})
        values = self.edited().values
        dtype = np.result_type(values["weight"], np.float32)
        values["weight"] = (values["weight"] * scale[:, None]).astype(dtype)
        values["bias"] = (values.get("bias", 0.0) * scale + shift).astype(dtype)

    def residual(self, name: str, version: int) -> None:
        """The sum of the chain's end and what it was at an earlier version."""
        layers = self.since(version)
        if layers is None:
            raise ConversionError("expected the sum of what stands before and after some layers")
        self._replace(layers, Record(name, "residual", version, self.version, layers=layers))

    def gated(self, name: str, version: int) -> None:
        """The product of the chain's end and what it was at an earlier version: silu, or gelu's halves."""
        layers = self.since(version) or []
        kinds = tuple(record.kind for record in layers)
        if kinds == ("sigmoid",):
            self._replace(layers, Record(name, "silu", version, self.version))
        elif kinds == GELU and self._is_gelu(layers):
            scale = 2 * layers[-1].arguments["alpha"]
            self._replace(layers, Record(name, "gelu", version, self.version))
            self.affine(name, scale, 0.0)
        else:
            raise ConversionError("expected x sigmoid(x) or gelu(x), as products of two values go")

    @staticmethod
    def _is_gelu(layers: list[Record]) -> bool:
        """Whether they are a multiple of 1 + erf(x / sqrt(2))."""
        inner, _, outer = (record.arguments for record in layers)
        found = inner["alpha"], inner["beta"], outer["alpha"]
        return np.allclose(found, (0.5**0.5, 0, outer["beta"]), rtol=1e-6, atol=0)

    def _replace(self, layers: list[Record], record: Record) -> None:
        del self.records[len(self.records) - len(layers) :]
        self._edit()
        record.after = self.version
        self.records.append(record)

    def finish(self, batch_first: bool) -> Conversion:
        """The model."""
        dtype = real_dtype([value for record in _flat(self.records) for value in record.values.values()])
        return assembled([_part(record, dtype, batch_first) for record in stacked(self.records)])


def _flat(records: list[Record]) -> list[Record]:
    return [inner for record in records for inner in [record, *_flat(record.layers)]]


def stacked(records: list[Record]) -> list[Record]:
    """The records with consecutive recurrent layers of the same kind and options merged into stacks."""
    merged: list[Record] = []
    for record in records:
        if record.kind == "affine" and (record.arguments["alpha"], record.arguments["beta"]) == (1, 0):
            continue
        below = merged[-1] if merged else None
        if below and record.kind in RECURRENT and _fits_on(below, record):
            l = below.arguments.get("num_layers", 1)
            renamed = {name.replace("_l0", f"_l{l}"): value for name, value in record.values.items()}
            name = f"{below.name}, {record.name}"
            arguments = below.arguments | {"num_layers": l + 1}
            values = below.values | renamed
            merged[-1] = Record(name, record.kind, below.before, record.after, arguments, values)
        else:
            merged.append(record)
    return merged


def _fits_on(below: Record, above: Record) -> bool:
    def options(record: Record) -> dict[str, Any]:
        return {k: v for k, v in record.arguments.items() if k not in ("input_size", "num_layers")}

    return (
        below.kind == above.kind
        and options(below) == options(above)
        and "activations" not in above.arguments["options"]
        and below.values.keys() & {"bias_ih_l0"} == above.values.keys() & {"bias_ih_l0"}
    )


def _part(record: Record, dtype: str, batch_first: bool) -> Part:
    """The layer of a record."""
    name, kind, a = f"{record.kind} {record.name}", record.kind, record.arguments
    with name_in_errors(name):
        values = record.values
        layer: Layer
        if kind in RECURRENT:
            cls: Any = ACTIVATED[kind] if "activations" in a["options"] else RECURRENT[kind]
            options = {**a["options"], "num_layers": a.get("num_layers", 1), "batch_first": batch_first}
            bias = "bias_ih_l0" in values
            layer = cls(a["input_size"], a["hidden_size"], bias=bias, dtype=dtype, **options)
        elif kind == "Linear":
            outputs, inputs = values["weight"].shape
            layer = Linear(inputs, outputs, "bias" in values, dtype)
        elif kind == "Embedding":
            layer = Embedding(*values["weight"].shape, dtype=dtype)
        elif kind == "LayerNorm":
            layer = LayerNorm(len(values["weight"]), a["eps"], dtype=dtype)
        elif kind == "Pooling":
            layer = Pooling(a["how"], dtype=dtype)
        elif kind == "residual":
            parts = [_part(part, dtype, batch_first) for part in stacked(record.layers)]
            layer = Residual(*(part.layer for part in parts))
            values = {
                f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.values.items()
            }
        else:
            layer = Activation(kind, a.get("alpha"), a.get("beta"), dtype=dtype)
        return Part(name, layer, values)
