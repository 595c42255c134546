"""Write models as ONNX graphs, for batches and sequences of any size."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._checks.options import warn_caller
from cylstm.convert._common import (
    ACTIVATIONS,
    GATES,
    PEEPHOLES,
    RECURRENT,
    ConversionError,
    needing,
    reordered,
)
from cylstm.convert.onnx.attention import attention
from cylstm.convert.onnx.graph import Graph
from cylstm.data.scalers import ScalersWarning
from cylstm.files import write_atomically
from cylstm.layers.activation import FUNCTIONS, Activation
from cylstm.layers.attention_base import Attention
from cylstm.layers.base import Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.pooling import Pooling
from cylstm.layers.residual import Residual
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.activated import ActivatedLayer, parsed
from cylstm.recurrent.base import RecurrentLayer
from cylstm.recurrent.parameter_names import parameter_name

Array = NDArray[Any]
TARGETS = ("y", "target")  # names of the scaler of the targets
MAX_BYTES = 2**31 - 2**20  # of weights: the limit of a protobuf message, less its structure


def to_onnx(
    model: Layer, path: str | os.PathLike[str], *, lengths: bool = False, states: bool = False
) -> None:
    """Write a model, in evaluation mode, to an ONNX file atomically.

    Parameters
    ----------
    model : Layer
    path : path
    lengths : bool
        Whether the ONNX model also takes `lengths` (B,), the number of valid steps of each sequence.
    states : bool
        Whether it also takes initial states and outputs final states: `h_0` and `h_n` (L·D, B, H), for an
        LSTM also `c_0` and `c_n`, prefixed with the layer's position if there are several recurrent layers,
        as in `0.h_0`.

    Notes
    -----
    The input is `x`, the output `y`, with the shapes of a call of the model, for any B and T. The file uses
    opset 17; floating-point values have the model's dtype, lengths are int32 and indices int64. ONNX does not
    define the final states of an empty sequence: cylstm returns the initial states, onnxruntime zeros.

    The scalers `model.scalers["x"]` and `model.scalers["y"]`, or `["target"]`, are written to the file in the
    model's dtype: the ONNX model reads x and returns y in the units of the data, as `predict` of an estimator
    does. To write the network alone, use a copy of the model whose `scalers` is an empty dict.

    Warns
    -----
    ScalersWarning
        If scalers are left out: those of other names, and one for y with another number of features than y.

    Raises
    ------
    ConversionError
        If a layer has no equivalent in ONNX (projection, zoneout, layer normalisation inside an LSTM), naming
        it; or if the scaler of x has another number of features than x.
    ImportError
        If onnx is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import cylstm
    >>> path = os.path.join(tempfile.mkdtemp(), "m.onnx")
    >>> to_onnx(cylstm.Sequential(cylstm.LSTM(3, 4), cylstm.Linear(4, 2)), path)
    >>> [type(layer).__name__ for layer in cylstm.from_onnx(path).layers]
    ['LSTM', 'Linear']
    """
    write_atomically(path, onnx_model(model, lengths=lengths, states=states).SerializeToString())


def onnx_model(model: Layer, *, lengths: bool = False, states: bool = False) -> Any:
    """The `onnx.ModelProto` of `to_onnx`, checked."""
    with needing("onnx"):
        import onnx.checker
    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a cylstm layer or Sequential, got {type(model).__name__}")
    if (size := sum(value.nbytes for value in model.parameters.values())) > MAX_BYTES:
        raise ConversionError(f"model: expected at most {MAX_BYTES} bytes of weights in ONNX, got {size}")
    graph = Graph(model.dtype, _recurrent_layers(model) if states else 0)
    outer = ("B", "T") if model.batch_first else ("T", "B")
    alone = model.reads_indices and model.input_size == 1  # an index of a step has no axis of its own
    dtype = np.dtype(np.int64) if model.reads_indices else model.dtype
    x = y = graph.input("x", dtype, outer if alone else (*outer, model.input_size))
    if model.batch_first:
        y = graph.op("Transpose", x, perm=[1, 0] if alone else [1, 0, 2])
    graph.set_sequences(y, lengths)
    y = _scaled(graph, model, y)
    y = write(graph, model, y, "model")
    y = _unscaled(graph, model, y)
    if not graph.pooled:
        if graph.lengths:
            y = graph.masked(y, 0.0)
        if model.batch_first:
            y = graph.op("Transpose", y, perm=[1, 0, 2])
    graph.output("y", y, (*(("B",) if graph.pooled else outer), model.output_size))
    proto = graph.model()
    onnx.checker.check_model(proto)
    return proto


def write(graph: Graph, layer: Layer, x: str, where: str) -> str:
    """Add a layer's nodes; returns the name of its output, (T, B, features) or (B, features)."""
    if isinstance(layer, Sequential) and layer.nests:
        y = x
        for position, part in enumerate(layer.layers):
            inner = f"layer {position}" if where == "model" else f"{where}.{position}"
            y = write(graph, part, y, inner)
        return graph.op("Add", x, y) if isinstance(layer, Residual) else y
    for kind, writer in WRITERS.items():
        if isinstance(layer, kind):
            return writer(graph, layer, x, where)
    raise ConversionError(f"{where}: {type(layer).__name__} has no form in ONNX")


def _scaled(graph: Graph, model: Layer, x: str) -> str:
    """x scaled by the model's scaler of x, if there is one."""
    scaler = model.checked_scalers().get("x")
    if scaler is None:
        return x
    offset, scale = (np.array(scaler.config[name], model.dtype) for name in ("offset", "scale"))
    if model.reads_indices or len(offset) != model.input_size:
        reads = "indices" if model.reads_indices else f"{model.input_size} features"
        raise ConversionError(
            f'model.scalers["x"]: expected to scale what the model reads, {reads}, got {len(offset)} features'
        )
    x = graph.op("Sub", x, graph.constant("offset", offset))
    return graph.op("Div", x, graph.constant("scale", scale))


def _unscaled(graph: Graph, model: Layer, y: str) -> str:
    """y in the units of the targets, by the model's scaler of them, if there is one."""
    written = scalers_written(model)
    for name in model.scalers:
        if name not in written:
            features = len(model.scalers[name].config["offset"])
            reason = (
                f"{features} features, of {model.output_size} of y" if name in TARGETS else 'not "x" or "y"'
            )
            warn_caller(f"model.scalers[{name!r}] is not in the ONNX file ({reason})", ScalersWarning)
    for name in written[1:] if "x" in written else written:
        config = model.scalers[name].config
        offset, scale = (np.array(config[key], model.dtype) for key in ("offset", "scale"))
        y = graph.op("Mul", y, graph.constant("target_scale", scale))
        y = graph.op("Add", y, graph.constant("target_offset", offset))
    return y


def scalers_written(model: Layer) -> list[str]:
    """Names of the model's scalers that are written to its ONNX file: that of x, and one of y."""
    scalers = model.checked_scalers()
    targets = [
        name
        for name in TARGETS
        if name in scalers and len(scalers[name].config["offset"]) == model.output_size
    ]
    return [name for name in ("x", *targets[:1]) if name in scalers]


def _recurrent_layers(layer: Layer) -> int:
    if isinstance(layer, Sequential):
        return sum(map(_recurrent_layers, layer.layers))
    return int(isinstance(layer, RecurrentLayer))


def _embedding(graph: Graph, layer: Embedding, x: str, where: str) -> str:
    y = graph.op("Gather", graph.constant("weight", layer.parameters["weight"]), x, axis=0)
    return y if layer.input_size == 1 else graph.op("Reshape", y, graph.integers(0, 0, layer.output_size))


def _linear(graph: Graph, layer: Linear, x: str, where: str) -> str:
    p = layer.parameters
    y = graph.op("MatMul", x, graph.constant("weight", p["weight"].T))
    return graph.op("Add", y, graph.constant("bias", p["bias"])) if layer.bias else y


def _layer_norm(graph: Graph, layer: LayerNorm, x: str, where: str) -> str:
    values = [graph.constant(name, value) for name, value in layer.parameters.items()]
    return graph.op("LayerNormalization", x, *values, axis=-1, epsilon=layer.eps)


def _activation(graph: Graph, layer: Activation, x: str, where: str) -> str:
    kind, alpha, beta = layer.kind, layer.alpha, layer.beta
    if kind == "gelu":
        tail = graph.op("Erf", graph.op("Mul", x, graph.number(0.5**0.5)))
        product = graph.op("Mul", x, graph.op("Add", tail, graph.number(1)))
        return graph.op("Mul", product, graph.number(0.5))
    if kind == "silu":
        return graph.op("Mul", x, graph.op("Sigmoid", x))
    if kind == "affine":
        return graph.op("Add", graph.op("Mul", x, graph.number(alpha)), graph.number(beta))
    if kind == "scaled_tanh":
        inner = graph.op("Tanh", graph.op("Mul", x, graph.number(beta)))
        return graph.op("Mul", inner, graph.number(alpha))
    if kind in ("softmax", "log_softmax"):
        return graph.op({"softmax": "Softmax", "log_softmax": "LogSoftmax"}[kind], x, axis=-1)
    names = {"alpha": alpha, "gamma" if kind == "selu" else "beta": beta}
    given = {name: value for name, value in names.items() if value is not None}
    return graph.op("Selu" if kind == "selu" else ACTIVATIONS[kind], x, **given)


def _pooling(graph: Graph, layer: Pooling, x: str, where: str) -> str:
    graph.pooled = True
    if layer.how == "ends" and x in graph.last_states:  # of the layer just below, (2, B, H)
        y = graph.op("Transpose", graph.last_states[x], perm=[1, 0, 2])
        return graph.op("Reshape", y, graph.integers(0, layer.input_size))
    if layer.how in ("last", "ends"):
        last = graph.last_step(x)
        if layer.how == "last":
            return last
        half = layer.input_size // 2
        first = graph.op("Gather", graph.masked(x, 0.0) if graph.lengths else x, graph.integer(0), axis=0)
        ends = [graph.slice(last, -1, 0, half), graph.slice(first, -1, half, layer.input_size)]
        return graph.op("Concat", *ends, axis=-1)
    if layer.how == "mean":
        if not graph.lengths:
            return graph.op("ReduceMean", x, axes=[0], keepdims=0)
        total = graph.op("ReduceSum", graph.masked(x, 0.0), graph.integers(0), keepdims=0)
        steps = graph.op("Max", graph.lengths, graph.integer(1))
        return graph.op("Div", total, graph.cast(graph.op("Unsqueeze", steps, graph.integers(1))))
    if not graph.lengths:
        return graph.op("ReduceMax", x, axes=[0], keepdims=0)
    largest = graph.op("ReduceMax", graph.masked(x, -np.inf), axes=[0], keepdims=0)
    none = graph.op("Unsqueeze", graph.op("Equal", graph.lengths, graph.integer(0)), graph.integers(1))
    return graph.op("Where", none, graph.number(0), largest)


def _recurrent(graph: Graph, layer: RecurrentLayer, x: str, where: str) -> str:
    for option in ("proj_size", "layer_norm", "zoneout", "zoneout_cell"):
        if value := getattr(layer, option):
            raise ConversionError(
                f"{where}: {option}={value!r} of {type(layer).__name__} has no form in ONNX"
            )
    kind = next(name for name, base in RECURRENT.items() if isinstance(layer, base))
    D, H, names = layer.num_directions, layer.hidden_size, layer.spec.states
    first = graph.state_inputs(where, names, (layer.num_layers * D, "B", H))
    finals: list[list[str]] = [[] for _ in names]
    for l in range(layer.num_layers):
        inputs = [x, *(graph.constant(*item) for item in weights(layer, kind, l).items())]
        inputs += [""] * (4 - len(inputs)) + ["lengths" if graph.lengths else ""]
        for name in names:
            if first:
                whole = first[name]
                inputs.append(whole if layer.num_layers == 1 else graph.slice(whole, 0, l * D, (l + 1) * D))
            elif layer.learn_state:
                rows = [layer.parameters[parameter_name(f"{name}_0", l, d)] for d in range(D)]
                inputs.append(graph.for_each_sequence(np.stack(rows)[:, None]))
        if getattr(layer, "peephole", False):
            inputs += [""] * (7 - len(inputs)) + [graph.constant("P", _peepholes(layer, l))]
        while not inputs[-1]:
            inputs.pop()
        y, *last = graph.node(kind, inputs, 1 + len(names), **attributes(layer, kind))
        for values, value in zip(finals, last, strict=True):
            values.append(value)
        x = graph.side_by_side(y, D, H)
    if layer.bidirectional:
        graph.last_states[x] = finals[0][-1]
    graph.state_outputs(where, names, finals)
    return x


def weights(layer: RecurrentLayer, kind: str, l: int) -> dict[str, Array]:
    """W, R and, with biases, B of one layer of a stack, as ONNX' nodes take them."""
    have, want = "".join(layer.spec.gates), GATES["onnx"][kind]

    def stacked(*kinds: str) -> Array:
        p = layer.parameters
        return np.stack(
            [
                np.concatenate([reordered(p[parameter_name(name, l, d)], have, want) for name in kinds])
                for d in range(layer.num_directions)
            ]
        )

    values = {"W": stacked("weight_ih"), "R": stacked("weight_hh")}
    return values | ({"B": stacked("bias_ih", "bias_hh")} if layer.bias else {})


def _peepholes(layer: RecurrentLayer, l: int) -> Array:
    """(D, 3H); zeros for a coupled forget gate, which has no peephole."""
    absent = np.zeros(layer.hidden_size, layer.dtype)
    return np.stack(
        [
            np.concatenate([layer.parameters.get(parameter_name(name, l, d), absent) for name in PEEPHOLES])
            for d in range(layer.num_directions)
        ]
    )


def attributes(layer: RecurrentLayer, kind: str) -> dict[str, Any]:
    """The attributes of a recurrent node."""
    found: dict[str, Any] = {"hidden_size": layer.hidden_size}
    found["direction"] = "bidirectional" if layer.bidirectional else "reverse" if layer.reverse else "forward"
    if layer.clip is not None:
        found["clip"] = layer.clip
    if kind == "GRU":
        found["linear_before_reset"] = int(layer.reset_after)
    if kind == "LSTM" and layer.coupled:
        found["input_forget"] = 1
    texts: list[str] = [layer.nonlinearity] * layer.num_directions if kind == "RNN" else []
    if isinstance(layer, ActivatedLayer):
        texts = layer.activations.split(";")
    chosen: dict[str, list[Any]] = {"activations": [], "activation_alpha": [], "activation_beta": []}
    for text in texts:
        name, values = parsed(text)
        if name not in ACTIVATIONS:
            raise ConversionError(f"activations: {name} is none of a recurrent node of ONNX")
        chosen["activations"].append(ACTIVATIONS[name])
        defaults = FUNCTIONS[name].alpha, FUNCTIONS[name].beta
        for key, default, value in zip(
            ("activation_alpha", "activation_beta"),
            defaults,
            [*values, *defaults[len(values) :]],
            strict=True,
        ):
            if default is not None:
                chosen[key].append(value)
    return found | {name: value for name, value in chosen.items() if value}


WRITERS: dict[type[Layer], Callable[..., str]] = {
    Embedding: _embedding,
    Linear: _linear,
    LayerNorm: _layer_norm,
    Dropout: lambda graph, layer, x, where: x,
    Activation: _activation,
    Pooling: _pooling,
    RecurrentLayer: _recurrent,
    Attention: attention,
}
