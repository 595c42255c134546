"""What ONNX files hold other than layers: names, dtypes, sizes, who wrote them."""

import numpy as np
import pytest

import cylstm
from cylstm import convert

onnx = pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are read with it")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

T, B, I, H = 6, 2, 3, 5
FLOAT = TensorProto.FLOAT


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def weights(rng, gates=4, prefix=""):
    shapes = {"W": (1, gates * H, I), "R": (1, gates * H, H), "B": (1, 2 * gates * H)}
    return {prefix + name: rng.uniform(-0.5, 0.5, shape).astype("f4") for name, shape in shapes.items()}


def saved(path, nodes, initial, inputs, outputs=("y",), producer=""):
    tensors = [
        array if isinstance(array, TensorProto) else numpy_helper.from_array(np.asarray(array), name)
        for name, array in initial.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, [value(name, None) for name in outputs], tensors)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name=producer, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def by_onnxruntime(path, **inputs):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is the oracle")
    return onnxruntime.InferenceSession(str(path)).run(None, inputs)


NAMES = [
    ("x", "h", "c", "lstm"),
    ("x", "LSTM lstm h", "LSTM lstm c", "lstm"),
    ("lstm D", "LSTM lstm H", "5 units", "lstm"),
]


@pytest.mark.parametrize("names", NAMES)
def test_names_of_inputs_are_free(names, rng, tmp_path):
    x, h, c, node = names
    nodes = [
        helper.make_node("LSTM", [x, "W", "R", "B", "", h, c], ["Y", "hn", "cn"], name=node, hidden_size=H),
        helper.make_node("Squeeze", ["Y", "axis"], ["y"]),
    ]
    inputs = [value(x, ["T", "B", I]), value(h, [1, "B", H]), value(c, [1, "B", H])]
    initial = {**weights(rng), "axis": np.array([1])}
    path = saved(tmp_path / "m.onnx", nodes, initial, inputs, ("y", "hn", "cn"))
    data = rng.standard_normal((T, B, I)).astype("f4")
    states = {name: rng.standard_normal((1, B, H)).astype("f4") for name in (h, c)}
    expected = by_onnxruntime(path, **{x: data}, **states)
    y, ((h_n, c_n),) = cylstm.from_onnx(path)(data, ((states[h], states[c]),))
    for ours, theirs in zip((y, h_n, c_n), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_layers_of_one_name_are_two(rng, tmp_path):
    """The output is the last state of the first of two nodes, which have the same name: no chain."""
    both = {**weights(rng, 1), **weights(rng, 1, "V")}
    both["VW"] = rng.uniform(-0.5, 0.5, (1, H, H)).astype("f4")
    nodes = [
        helper.make_node("RNN", ["x", "W", "R", "B"], ["Y", "h"], name="rnn", hidden_size=H),
        helper.make_node("Squeeze", ["Y", "axis"], ["x2"]),
        helper.make_node("RNN", ["x2", "VW", "VR", "VB"], ["", "other"], name="rnn", hidden_size=H),
        helper.make_node("Squeeze", ["h", "first"], ["y"]),
    ]
    initial = {**both, "axis": np.array([1]), "first": np.array([0])}
    path = saved(tmp_path / "m.onnx", nodes, initial, [value("x", ["T", "B", I])])
    with pytest.raises(
        convert.ConversionError, match="outputs: expected one of the last layer, got states of others"
    ):
        cylstm.from_onnx(path)


def test_the_state_of_another_node_is_no_input(rng, tmp_path):
    nodes = [
        helper.make_node("RNN", ["x", "W", "R", "B"], ["Y", "h"], name="a", hidden_size=H),
        helper.make_node("Squeeze", ["Y", "axis"], ["x2"]),
        helper.make_node("RNN", ["x2", "VW", "VR", "VB", "", "h"], ["y"], name="b", hidden_size=H),
    ]
    initial = {**weights(rng, 1), **weights(rng, 1, "V"), "axis": np.array([1])}
    initial["VW"] = rng.uniform(-0.5, 0.5, (1, H, H)).astype("f4")
    path = saved(tmp_path / "m.onnx", nodes, initial, [value("x", ["T", "B", I])])
    with pytest.raises(convert.ConversionError, match="initial_h: expected an input or a constant, got the"):
        cylstm.from_onnx(path)


def test_a_name_twice_is_rejected(rng, tmp_path):
    nodes = [helper.make_node("Tanh", ["x"], ["y"]), helper.make_node("Relu", ["y"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, {}, [value("x", ["T", "B", I])])
    with pytest.raises(convert.ConversionError, match="expected outputs of new names, got 'y' again"):
        cylstm.from_onnx(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ([I], FLOAT, r"x: expected \(T, B, features\) or \(T, features\), got 1 axis"),
        ([], FLOAT, "got 0 axes"),
        (["T", "B", 2, I], FLOAT, "got 4 axes"),
        (["T", "B", I], TensorProto.BOOL, "x: expected an input of real numbers, int32 or int64"),
        (["T", "B", I], TensorProto.STRING, "x: expected an input of real numbers, int32 or int64"),
    ],
)
def test_inputs_of_other_shapes_are_rejected(shape, dtype, message, tmp_path):
    nodes = [helper.make_node("Tanh", ["x"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, {}, [value("x", shape, dtype)])
    with pytest.raises(convert.ConversionError, match=message):
        cylstm.from_onnx(path)


@pytest.mark.parametrize("place", ["initializer", "Constant", "raw"])
def test_sizes_below_0_are_rejected(place, tmp_path):
    tensor = numpy_helper.from_array(np.ones((I, 4), "f4"), "w")
    if place != "raw":
        tensor = helper.make_tensor("w", FLOAT, [I, 4], [1.0] * 12)
    tensor.dims[:] = [-1, 4]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    initial = {"w": tensor}
    if place == "Constant":
        nodes, initial = [helper.make_node("Constant", [], ["w"], value=tensor), *nodes], {}
    path = saved(tmp_path / "m.onnx", nodes, initial, [value("x", ["T", "B", I])])
    with pytest.raises(convert.ConversionError, match=r"expected sizes of at least 0, got \[-1, 4\]"):
        cylstm.from_onnx(path)


@pytest.mark.parametrize("dtype", ["BFLOAT16", "FLOAT16", "DOUBLE"])
def test_weights_of_other_precisions_are_read_exactly(dtype, rng, tmp_path):
    wide = rng.standard_normal((I, 4)).astype("f4").view("u4") & 0xFFFF0000  # exact in bfloat16
    exact = wide.view("f4") if dtype == "BFLOAT16" else rng.standard_normal((I, 4)).astype("f2").astype("f4")
    tensor = helper.make_tensor("w", getattr(TensorProto, dtype), [I, 4], exact.ravel())
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, {"w": tensor}, [value("x", ["T", "B", I])])
    model = cylstm.from_onnx(path)
    np.testing.assert_array_equal(model.parameters["0.weight"], exact.T)


def test_weights_of_8_bits_are_rejected_by_name(tmp_path):
    tensor = helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [I, 4], [1.0] * 12)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, {"w": tensor}, [value("x", ["T", "B", I])])
    with pytest.raises(
        convert.ConversionError, match=r"initializer w: expected float16, .*, got float8_e4m3fn"
    ):
        cylstm.from_onnx(path)


def test_nodes_of_quantised_models_name_the_way_out(tmp_path):
    nodes = [helper.make_node("DynamicQuantizeLSTM", ["x"], ["y"], domain="com.microsoft")]
    path = saved(tmp_path / "m.onnx", nodes, {}, [value("x", ["T", "B", I])])
    with pytest.raises(
        convert.ConversionError, match="a node of a quantised model; convert the model as it was"
    ):
        cylstm.from_onnx(path)


@pytest.mark.parametrize(("producer", "linear_before_reset", "warned"), [
    ("pytorch", 0, True), ("pytorch", 1, False), ("keras", 0, False),
])  # fmt: skip
def test_grus_of_torchs_new_exporter_are_warned_of(producer, linear_before_reset, warned, rng, tmp_path):
    node = helper.make_node(
        "GRU", ["x", "W", "R", "B"], ["Y"], hidden_size=H, linear_before_reset=linear_before_reset
    )
    nodes = [node, helper.make_node("Squeeze", ["Y", "axis"], ["y"])]
    initial = {**weights(rng, 3), "axis": np.array([1])}
    path = saved(tmp_path / "m.onnx", nodes, initial, [value("x", ["T", "B", I])], producer=producer)
    data = rng.standard_normal((T, B, I)).astype("f4")
    if warned:
        with pytest.warns(UserWarning, match="PyTorch's exporter wrote linear_before_reset=0.*dynamo=False"):
            model = cylstm.from_onnx(path)
    else:
        model = cylstm.from_onnx(path)  # warnings are errors here
    np.testing.assert_allclose(model(data)[0], by_onnxruntime(path, x=data)[0], rtol=0, atol=1e-6)
