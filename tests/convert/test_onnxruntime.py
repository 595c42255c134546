"""Against onnxruntime, an independent implementation of what PyTorch lacks: peepholes, coupled gates, clip,
the reset gate before the product, reverse only."""

import numpy as np
import pytest
import tolerances
from problems import DIRECTIONS, LAYERS, make, problem

pytestmark = pytest.mark.peer

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is the oracle here")
helper = pytest.importorskip(
    "onnx.helper", reason="onnx is not installed; onnxruntime's models are made by it"
)

# Blocks of ours in ONNX' order; a coupled forget gate has weights there, which are not read.
GATES = {"lstm": "iofg", "gru": "zrn", "rnn": "h"}
PEEPHOLES = ("weight_ci", "weight_co", "weight_cf")


def reordered(layer, name, junk):
    """One parameter's blocks of H rows in ONNX' order."""
    value, spec = layer.parameters[name], layer.spec
    blocks = dict(zip(spec.gates, value.reshape(len(spec.gates), layer.hidden_size, -1), strict=True))
    parts = [blocks.get(gate, np.full_like(value[: layer.hidden_size].reshape(layer.hidden_size, -1), junk))
             for gate in GATES[spec.name.split("_")[0]]]  # fmt: skip
    return np.concatenate(parts).reshape(-1, *value.shape[1:])


def session(layer, inputs):
    """onnxruntime's session of one node with the options of a layer."""
    kind = type(layer).__name__
    attributes = {"hidden_size": layer.hidden_size}
    attributes["direction"] = (
        "bidirectional" if layer.bidirectional else "reverse" if layer.reverse else "forward"
    )
    if layer.clip is not None:
        attributes["clip"] = layer.clip
    if kind == "GRU":
        attributes["linear_before_reset"] = int(layer.reset_after)
    if kind == "RNN":
        attributes["activations"] = [layer.nonlinearity.capitalize()] * layer.num_directions
    if kind == "LSTM":
        attributes["input_forget"] = int(layer.coupled)
    outputs = ["Y", "Y_h", *(["Y_c"] if kind == "LSTM" else [])]
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    used = [name if name in inputs else "" for name in names]
    while not used[-1]:
        used.pop()
    node = helper.make_node(kind, used, outputs, **attributes)
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inputs.items()}
    graph = helper.make_graph(
        [node], "layer",
        [helper.make_tensor_value_info(name, types[name], value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, types["X"], None) for name in outputs],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("cell", [cell for cell in LAYERS if cell != "lstm_norm"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("lengths", [None, [6, 3, 1, 4], [5, 3, 1, 2]])
def test_agrees_with_onnxruntime(rng, cell, direction, clip, lengths):
    layer = make(cell, 3, 9, clip=clip, seed=0, **DIRECTIONS[direction])
    x, state, *_ = problem(rng, layer, 6, 4)
    ends = ["_l0", *(["_l0_reverse"] if layer.bidirectional else [])]

    def stacked(*kinds):
        rows = [np.concatenate([reordered(layer, kind + end, 1e3) for kind in kinds]) for end in ends]
        return np.stack(rows)

    inputs = {
        "X": x,
        "W": stacked("weight_ih"),
        "R": stacked("weight_hh"),
        "B": stacked("bias_ih", "bias_hh"),
    }
    inputs |= {f"initial_{name}": value for name, value in zip(layer.spec.states, state, strict=True)}
    if layer.peephole:
        absent = np.full(9, 1e3, np.float32)  # of the forget gate that a coupled one has not
        peepholes = [[layer.parameters.get(kind + end, absent) for kind in PEEPHOLES] for end in ends]
        inputs["P"] = np.stack([np.concatenate(parts) for parts in peepholes])
    if lengths is not None:
        inputs["sequence_lens"] = np.array(lengths, np.int32)
    theirs = session(layer, inputs).run(None, inputs)
    y, final = layer(x, tuple(state) if len(state) > 1 else state[0], lengths=lengths)
    final = final if isinstance(final, tuple) else (final,)
    limits = tolerances.float32(12, 6, 2.0)
    expected = theirs[0].transpose(0, 2, 1, 3).reshape(y.shape)
    np.testing.assert_allclose(y, expected, **limits)
    for ours, other in zip(final, theirs[1:], strict=True):
        np.testing.assert_allclose(ours, other, **limits)
