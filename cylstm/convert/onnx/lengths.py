"""Lengths of sequences in ONNX: what recurrent nodes read, and zeros after the last real step of each."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm.convert._common import ConversionError
from cylstm.convert.onnx import values
from cylstm.convert.onnx.values import Constant, Group, Rows, Source, Value

if TYPE_CHECKING:
    from cylstm.convert.onnx.reader import Reader

REAL = ((Source("valid steps", is_input=False), 0),)  # what is true in valid steps


def check(reader: "Reader", lengths: Value | None, time: Group) -> None:
    """Whether a recurrent node's lengths are an input, the same in all nodes, or those of whole sequences."""
    T = values.shape((time,), reader.sizes)[0]
    if isinstance(lengths, Rows) and len(lengths.rows) == 1 and lengths.rows[0][0].is_input:
        read = lengths.rows
    elif lengths is None or (isinstance(lengths, Constant) and (lengths.array == T).all()):
        read = None
    else:
        raise ConversionError("sequence_lens: expected an input, or the length of all sequences")
    if read and any(before not in (None, read) for before in reader.lengths):
        raise ConversionError("sequence_lens: expected the same input as in the nodes before")
    reader.lengths.append(read)


def less(reader: "Reader", where: str, a: dict[str, Any], steps: Value, lengths: Value) -> list[Any]:
    """Less: the number of a step and the length of a sequence, so whether a step is real."""
    if reader.time is None or reader.batch is None or not isinstance(steps, Constant):
        raise ConversionError("expected the numbers of steps, less than the lengths")
    T = values.shape((reader.time,), reader.sizes)[0]
    if not (steps.shaped and np.array_equal(steps.array, np.arange(T)[:, None])):
        raise ConversionError(f"expected the numbers of all steps, (T, 1), got an array {steps.array.shape}")
    if not isinstance(lengths, Rows) or lengths.groups != (reader.batch,):
        raise ConversionError("expected an input of lengths (B,)")
    if set(reader.lengths) != {lengths.rows}:
        raise ConversionError("expected the lengths that all layers before read")
    return [Rows(REAL, (reader.time, reader.batch))]


def choose(reader: "Reader", where: str, a: dict[str, Any], real: Value, x: Value, other: Value) -> list[Any]:
    """Where: x in real steps, 0 elsewhere; a model gives that by itself, with `lengths`."""
    ready = reader.ready(x)
    if not isinstance(real, Rows) or real != Rows(REAL, (*ready.groups[:-1], ())):
        raise ConversionError("expected to choose by whether steps are real")
    if not isinstance(other, Constant) or other.array.any():
        raise ConversionError("expected zeros in the steps that are not real")
    reader.chain.closed = True
    return [ready]
