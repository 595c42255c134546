"""Read models from ONNX: a graph that is a chain of layers, as exporters of PyTorch and Keras write it."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cylstm._formats.budget import Budget
from cylstm._formats.file_kinds import ONNX
from cylstm.convert._common import Conversion, ConversionError, check_kind, name_in_errors, needing, reading
from cylstm.convert.onnx import file as onnx_file
from cylstm.convert.onnx import unrolled
from cylstm.convert.onnx.chain import Chain
from cylstm.convert.onnx.context import Context, GraphFacts
from cylstm.convert.onnx.fold import Attributes, fold
from cylstm.convert.onnx.inputs import add_inputs
from cylstm.convert.onnx.ops import OPERATORS
from cylstm.convert.onnx.outputs import check_outputs, is_batch_first
from cylstm.convert.onnx.values import Constant, UnrolledStep, Value
from cylstm.layers.parameters import without_initial_values
from cylstm.layers.sequential import Sequential

QUANTISED = re.compile("Quantize|QLinear|MatMulInteger|QGemm|QAttention|ConvInteger|QuantizeLSTM|MatMulNBits")


def from_onnx(path: str | os.PathLike[str], *, constants: Mapping[str, Any] | None = None) -> Sequential:
    """Read a model from an ONNX file.

    The graph has to be a chain of layers: LSTM, GRU and RNN with every attribute of the specification, and
    around them embeddings (Gather), dense layers (Gemm, MatMul and Add), LayerNormalization, activations,
    residual sums, the last step, means and maxima over time, and at the end zeros in padded steps. Any
    layout is read (Transpose, Reshape, Squeeze, Slice, Concat and similar), as `torch.onnx.export` and Keras
    write it.

    Parameters
    ----------
    path : path
        An ONNX file; external weights are read from the files that it names.
    constants : mapping of str to array, optional
        Values of inputs that are weights of the model.

    Returns
    -------
    Sequential
        In evaluation mode. x has the layout of the file's first input, y that of cylstm: (T, B, features),
        (B, T, features) if x has the batch first, or (B, features). Inputs and outputs that are states or
        lengths become `state` and `lengths` of a call. Recurrent layers with other activations than those of
        the compiled cells run in NumPy and cannot be trained (`cylstm.recurrent.activated.ActivatedLayer`).

    Raises
    ------
    ConversionError
        If a node has no equivalent in cylstm; the message names it.
    ModelFileError
        If the file is damaged.
    ImportError
        If onnx is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.GRU(3, 4, bidirectional=True, seed=0), cylstm.Linear(8, 2, seed=1))
    >>> path = os.path.join(tempfile.mkdtemp(), "m.onnx")
    >>> cylstm.convert.to_onnx(model, path)
    >>> x = np.ones((5, 2, 3))
    >>> bool((from_onnx(path)(x)[0] == model(x)[0]).all())
    True
    """
    return read(path, constants=constants).model


@without_initial_values()
def read(path: str | os.PathLike[str], *, constants: Mapping[str, Any] | None = None) -> Conversion:
    """As `from_onnx`, with the names of the nodes of each layer."""
    with needing("onnx"):
        import onnx  # noqa: F401 - if missing, raise before a file is opened
    with reading(path, ONNX) as file:
        check_kind(file, ONNX)
        model, budget = onnx_file.load(file)
        return _read_model(model, dict(constants or {}), budget)


def _read_model(model: Any, constants: dict[str, Any], budget: Budget) -> Conversion:
    """Read the nodes of a graph in order, each with the context that those before it left."""
    graph = model.graph
    context = Context(GraphFacts.of(model, constants), Chain(budget))
    if graph.sparse_initializer:
        raise ConversionError("sparse_initializer: expected none")
    for tensor in graph.initializer:
        context.values[tensor.name] = Constant(onnx_file.array_of(f"initializer {tensor.name}", tensor))
    for name, value in constants.items():
        context.values[name] = Constant(np.asarray(value))
    add_inputs(context, graph)
    for node in graph.node:
        where = f"{node.op_type} {node.name or next(iter(node.output), '')}".strip()
        with name_in_errors(where):
            for name, result in zip(node.output, _read_node(context, node, where), strict=False):
                if name and name in context.values:
                    raise ConversionError(f"expected outputs of new names, got {name!r} again")
                context.values[name] = result
    if context.unrolled is not None:  # whose last h is the output
        (name,) = [value.name for value in graph.output]
        context.values[name] = unrolled.complete(context, name, pooled=True)
    check_outputs(context, graph)
    found = context.chain.finish(is_batch_first(context))
    if context.has_unrolled:
        unrolled.verify(model, context, found)
    return found


def _read_node(context: Context, node: Any, where: str) -> list[Value | UnrolledStep | None]:
    """The values of a node's outputs."""
    attributes = _attributes(context, node)
    if node.op_type == "Constant":
        return [Constant(onnx_file.constant(attributes))]
    inputs = _inputs(context, node)
    if any(isinstance(value, UnrolledStep) for value in inputs):
        if not unrolled.reads_last_state(context, node, inputs):
            return unrolled.read_step_node(context, where, node, attributes, inputs)
        inputs[0] = unrolled.complete(context, where, pooled=True)
    elif all(value is None or isinstance(value, Constant) for value in inputs):
        arrays = [value.array if isinstance(value, Constant) else None for value in inputs]
        shaped = any(isinstance(value, Constant) and value.shaped for value in inputs)
        return [Constant(array, shaped) for array in fold(node.op_type, arrays, attributes)]
    if node.op_type not in OPERATORS:
        raise ConversionError("cylstm has no such layer")
    return OPERATORS[node.op_type](context, where, attributes, *inputs)


def _attributes(context: Context, node: Any) -> Attributes:
    """The attributes of a node that is not quantised and of ONNX itself."""
    from onnx import helper

    found = {a.name: onnx_file.plain(a.name, helper.get_attribute_value(a)) for a in node.attribute}
    if QUANTISED.search(node.op_type):
        raise ConversionError("a node of a quantised model; convert the model as it was before quantisation")
    if node.domain not in ("", "ai.onnx"):
        raise ConversionError(f"cylstm has no such layer, of the domain {node.domain}")
    return Attributes(found, len(node.output), context.chain.budget)


def _inputs(context: Context, node: Any) -> list[Any]:
    """The values of a node's inputs; None for those that are left out."""
    unknown = [name for name in node.input if name and name not in context.values]
    if unknown:
        raise ConversionError(f"expected inputs that there are, got {unknown}")
    inputs = [context.values[name] if name else None for name in node.input]
    if any(name and value is None for name, value in zip(node.input, inputs, strict=True)):
        raise ConversionError("reads an output that cylstm does not compute")
    return inputs
