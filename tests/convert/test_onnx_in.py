"""Models from ONNX: the specification's own tests, and random nodes against onnxruntime."""

import importlib
import itertools

import numpy as np
import pytest
import tolerances

import cylstm

onnx = pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are read with it")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is the oracle here")
from onnx import helper  # noqa: E402 - after the skip

pytestmark = pytest.mark.peer

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LETTERS = {"LSTM": 3, "GRU": 2, "RNN": 1}
STATES = {"LSTM": ["h", "c"], "GRU": ["h"], "RNN": ["h"]}
# With the numbers of alphas and betas that each takes.
ACTIVATIONS = {
    "Sigmoid": (0, 0), "Tanh": (0, 0), "Relu": (0, 0), "Affine": (1, 1), "LeakyRelu": (1, 0),
    "ThresholdedRelu": (1, 0), "ScaledTanh": (1, 1), "HardSigmoid": (1, 1), "Elu": (1, 0), "Softsign": (0, 0),
    "Softplus": (0, 0),
}  # fmt: skip


for module in ("lstm", "gru", "rnn"):  # their tests are made on import; those of all operators take seconds
    importlib.import_module(f"onnx.backend.test.case.node.{module}")
NODE_TESTS = {
    case.name: case
    for case in importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    if case.model.graph.node[0].op_type in GATES
}


def test_all_node_tests_of_the_specification_are_there():
    assert len(NODE_TESTS) == 18


def spec_states(state, layout):
    """Final states of a recurrent layer as ONNX gives them."""
    parts = state if isinstance(state, tuple) else (state,)
    return [part.swapaxes(0, 1) if layout else part for part in parts]


def spec_y(y, D, layout):
    """Our (T, B, D H), or (B, T, D H), as ONNX' Y."""
    y = y.reshape(*y.shape[:2], D, -1)
    return y if layout else y.transpose(0, 2, 1, 3)


@pytest.mark.parametrize("name", NODE_TESTS)
def test_node_tests_of_the_specification(name, tmp_path):
    """Weights, which these tests have as inputs, are given as constants."""
    case = NODE_TESTS[name]
    (inputs, outputs), *_ = case.data_sets
    node = case.model.graph.node[0]
    feeds = dict(zip([value.name for value in case.model.graph.input], inputs, strict=True))
    wanted = dict(zip([value.name for value in case.model.graph.output], outputs, strict=True))
    onnx.save(case.model, tmp_path / "m.onnx")
    weights = {name: value for name, value in feeds.items() if name in "WRBP"}
    model = cylstm.from_onnx(tmp_path / "m.onnx", constants=weights)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    layout = attributes.get("layout", 0)
    D = len(feeds["W"])
    states = [feeds.get(f"initial_{state}") for state in STATES[node.op_type]]
    state = None if states[0] is None else tuple(states) if len(states) > 1 else states[0]
    given = None if state is None else (state, *[None] * (len(model.layers) - 1))
    y, final = model(feeds["X"], given, lengths=feeds.get("sequence_lens"))
    limits = {"rtol": 1e-3, "atol": 1e-7}  # those of ONNX' own backend tests
    for key, value in wanted.items():
        if key == "Y":
            np.testing.assert_allclose(spec_y(y, D, layout), value, **limits)
        else:
            ours = spec_states(final[0], layout)["hc".index(key[-1])]
            np.testing.assert_allclose(ours, value, **limits)
    if "Y" not in wanted and attributes.get("direction") != b"reverse":
        np.testing.assert_allclose(y, np.concatenate(list(wanted["Y_h"]), axis=-1), **limits)


def random_node(rng, kind, direction):
    """Attributes, weights and inputs of a node with any of everything."""
    D, T, B, I, H = 1 + (direction == "bidirectional"), *rng.permutation([7, 4, 3, 5])
    G, attributes = GATES[kind], {"hidden_size": int(H), "direction": direction}
    if rng.random() < 0.7:
        names = rng.choice(list(ACTIVATIONS), LETTERS[kind] * D)
        # onnxruntime 1.23, the last for Python 3.10, aborts if just one direction of an RNN has a parameter.
        while kind == "RNN" and any(0 < sum(ACTIVATIONS[name][k] for name in names) < D for k in range(2)):
            names = rng.choice(list(ACTIVATIONS), D)
        attributes["activations"] = [str(name) for name in names]
        for k, key in enumerate(["activation_alpha", "activation_beta"]):
            count = sum(ACTIVATIONS[name][k] for name in names)
            if count:
                attributes[key] = [float(value) for value in rng.uniform(0.2, 0.8, count)]
    if rng.random() < 0.4:
        attributes["clip"] = float(rng.uniform(0.2, 1.0))
    if kind == "LSTM" and rng.random() < 0.4:
        attributes["input_forget"] = 1
    if kind == "GRU" and rng.random() < 0.5:
        attributes["linear_before_reset"] = 1
    sizes = {"W": (D, G * H, I), "R": (D, G * H, H)}
    optional = {"B": (D, 2 * G * H)} | ({"P": (D, 3 * H)} if kind == "LSTM" else {})
    sizes |= {name: size for name, size in optional.items() if rng.random() < 0.6}
    arrays = {name: rng.uniform(-0.6, 0.6, size).astype(np.float32) for name, size in sizes.items()}
    arrays["X"] = rng.standard_normal((T, B, I)).astype(np.float32)
    if rng.random() < 0.5:
        arrays["sequence_lens"] = rng.integers(1, T + 1, B).astype(np.int32)
    fixed = rng.random() < 0.4  # initial states that are constants, the same for every sequence
    for state in STATES[kind] if rng.random() < 0.7 else []:
        value = rng.standard_normal((D, 1 if fixed else B, H)).astype(np.float32)
        arrays[f"initial_{state}"] = np.repeat(value, B, axis=1) if fixed else value
    inputs = ["X", "sequence_lens", *([] if fixed else ["initial_h", "initial_c"])]
    return attributes, arrays, [name for name in inputs if name in arrays]


def one_node(kind, attributes, arrays, inputs, layout=0):
    """A model of one node."""
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    used = [name if name in arrays else "" for name in order]
    while not used[-1]:
        used.pop()
    outputs = ["Y", *(f"Y_{state}" for state in STATES[kind])]
    if layout:
        swapped = ("X", "initial_h", "initial_c")
        arrays = {name: a.swapaxes(0, 1) if name in swapped else a for name, a in arrays.items()}
        attributes = {**attributes, "layout": 1}
    node = helper.make_node(kind, used, outputs, **attributes)
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in arrays.items()}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(name, types[name], arrays[name].shape) for name in inputs],
        [helper.make_tensor_value_info(name, types["X"], None) for name in outputs],
        [
            onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in arrays.items()
            if name not in inputs
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model, {name: np.ascontiguousarray(arrays[name]) for name in inputs}


def by_onnxruntime(model, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


DIRECTIONS = ["forward", "reverse", "bidirectional"]


@pytest.mark.slow
@pytest.mark.parametrize("kind, direction, layout", itertools.product(GATES, DIRECTIONS, [0, 1]))
def test_random_nodes_against_onnxruntime(rng, kind, direction, layout, tmp_path):
    """Every attribute, optional input and output; onnxruntime, which has no layout 1, gets the same in 0."""
    compared = 0
    while compared < 40:
        attributes, arrays, inputs = random_node(rng, kind, direction)
        expected = by_onnxruntime(*one_node(kind, attributes, arrays, inputs))
        if not max(np.abs(value).max() for value in expected) < 10:
            continue  # unbounded activations, of which some grow without end, and rounding with them
        compared += 1
        model, feeds = one_node(kind, attributes, arrays, inputs, layout)
        onnx.save(model, tmp_path / "m.onnx")
        ours = cylstm.from_onnx(tmp_path / "m.onnx")
        states = [feeds.get(f"initial_{state}") for state in STATES[kind]]
        if states[0] is not None:
            states = [state.swapaxes(0, 1) if layout else state for state in states]
        state = None if states[0] is None else tuple(states) if len(states) > 1 else states[0]
        y, (final,) = ours(feeds["X"], (state,), lengths=feeds.get("sequence_lens"))
        limits = tolerances.float32(12, 7, 10)
        where = str((attributes, sorted(arrays), inputs))
        y = spec_y(y, len(arrays["W"]), layout)
        y = y.transpose(1, 2, 0, 3) if layout else y
        np.testing.assert_allclose(y, expected[0], **limits, err_msg=where)
        finals = final if isinstance(final, tuple) else (final,)
        for value, other in zip(finals, expected[1:], strict=True):
            np.testing.assert_allclose(value, other, **limits, err_msg=where)


def arithmetic(tmp_path, constants, *nodes):
    """A file of x (T, B, 3) through nodes of a value and a constant, which may be the left one."""
    made, value = [], "x"
    for i, (kind, left, name) in enumerate(nodes):
        inputs = [name, value] if left else [value, name]
        made.append(helper.make_node(kind, inputs, [value := f"v{i}"]))
    made.append(helper.make_node("Identity", [value], ["y"]))
    shape = [helper.make_tensor_value_info(n, 1, ["T", "B", 3]) for n in "xy"]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(made, "g", shape[:1], shape[1:], arrays)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(
    "nodes",
    [
        [("Sub", False, "a"), ("Div", False, "b")],
        [("Sub", True, "a"), ("Mul", True, "b"), ("Add", False, "c")],
        [("MatMul", False, "w"), ("Sub", False, "a"), ("Mul", False, "b"), ("MatMul", False, "w")],
        [("Mul", False, "one"), ("Add", False, "a"), ("Div", False, "one")],
    ],
)
def test_numbers_for_each_feature(rng, nodes, tmp_path):
    a, b, c = (rng.uniform(0.5, 2, shape).astype(np.float32) for shape in [3, (1, 3), (1, 1, 3)])
    w, one = rng.standard_normal((3, 3)).astype(np.float32), np.array(1.7, np.float32)
    path = arithmetic(tmp_path, {"a": a, "b": b, "c": c, "w": w, "one": one}, *nodes)
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    (expected,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(cylstm.from_onnx(path)(x)[0], expected, **tolerances.float32(6, 3, 10.0))


@pytest.mark.parametrize("array", [np.ones((3, 1)), np.ones((2, 3)), np.ones(4), np.array([1.0, 0.0, 1.0])])
def test_other_arrays_are_refused(array, tmp_path):
    path = arithmetic(tmp_path, {"a": array.astype(np.float32)}, ("Div", False, "a"))
    with pytest.raises(cylstm.convert.ConversionError, match=r"expected .*(number|features|divisor)"):
        cylstm.from_onnx(path)
