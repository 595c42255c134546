"""Lengths of sequences in ONNX: what recurrent nodes read, and zeros after the last valid step of each."""

from typing import Any

import numpy as np

from cylstm.convert._common import ConversionError
from cylstm.convert.onnx import values
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.values import Constant, Group, Rows, Source, Value

VALID = ((Source("valid steps", is_input=False), 0),)  # the rows of a mask that is true in valid steps


def add_lengths(context: Context, lengths: Value | None, time: Group) -> None:
    """Note a recurrent node's lengths: an input, the same in all nodes, or those of whole sequences."""
    T = values.shape((time,), context.sizes)[0]
    if isinstance(lengths, Rows) and len(lengths.rows) == 1 and lengths.rows[0][0].is_input:
        read = lengths.rows
    elif lengths is None or (isinstance(lengths, Constant) and (lengths.array == T).all()):
        read = None
    else:
        raise ConversionError("sequence_lens: expected an input, or the length of all sequences")
    if read and any(before not in (None, read) for before in context.lengths):
        raise ConversionError("sequence_lens: expected the same input as in the nodes before")
    context.lengths.append(read)


def mask_of_lengths(
    context: Context, where: str, a: dict[str, Any], steps: Value, lengths: Value
) -> list[Any]:
    """Less, of the numbers of steps and the lengths: the mask of valid steps."""
    if context.time is None or context.batch is None or not isinstance(steps, Constant):
        raise ConversionError("expected the numbers of steps, less than the lengths")
    T = values.shape((context.time,), context.sizes)[0]
    if not (steps.shaped and np.array_equal(steps.array, np.arange(T)[:, None])):
        raise ConversionError(f"expected the numbers of all steps, (T, 1), got an array {steps.array.shape}")
    if not isinstance(lengths, Rows) or lengths.groups != (context.batch,):
        raise ConversionError("expected an input of lengths (B,)")
    if set(context.lengths) != {lengths.rows}:
        raise ConversionError("expected the lengths that all layers before read")
    return [Rows(VALID, (context.time, context.batch))]


def zero_padding(
    context: Context, where: str, a: dict[str, Any], valid: Value, x: Value, other: Value
) -> list[Any]:
    """Where, of the mask, x and zeros: what a model outputs when it is called with `lengths`."""
    ready = context.layer_input(x)
    if not isinstance(valid, Rows) or valid != Rows(VALID, (*ready.groups[:-1], ())):
        raise ConversionError("expected to choose by whether steps are real")
    if not isinstance(other, Constant) or other.array.any():
        raise ConversionError("expected zeros in the steps that are not real")
    context.chain.closed = True
    return [ready]
