"""Models to ONNX: the checker accepts them, and onnxruntime computes the same values."""

import numpy as np
import pytest
import tolerances
from problems import DIRECTIONS, GRID, make, options_of

import cylstm
from cylstm import convert
from cylstm.data import StandardScaler
from cylstm.recurrent.activated import ActivatedGRU, ActivatedLSTM, ActivatedRNN

pytestmark = pytest.mark.peer

onnx = pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; it is the oracle here")

I, H, V = 3, 8, 11
BATCHES = [(6, 4, None), (6, 4, [5, 3, 1, 4]), (1, 2, None), (5, 1, [4])]


def session(path):
    onnx.checker.check_model(str(path), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def flat(state):
    """All arrays of a state."""
    if state is None:
        return []
    return [state] if isinstance(state, np.ndarray) else [array for part in state for array in flat(part)]


def check(model, rng, tmp_path, batches=BATCHES, stateful=True):
    """What onnxruntime makes of the model's file is what the model gives, states too."""
    sessions = {}
    for T, B, lengths in batches:
        ragged = lengths is not None
        if ragged not in sessions:
            convert.to_onnx(model, tmp_path / "m.onnx", lengths=ragged, states=stateful)
            sessions[ragged] = session(tmp_path / "m.onnx")
        outer = (B, T) if model.batch_first else (T, B)
        if model.reads_indices:
            fields = model.input_size
            x = rng.integers(0, V, outer if fields == 1 else (*outer, fields))
        else:
            x = rng.standard_normal((*outer, model.input_size)).astype(np.float32)
        _, state = model(x)
        arrays = flat(state) if stateful else []
        feeds = {"x": x} | ({"lengths": np.array(lengths, np.int32)} if ragged else {})
        names = [value.name for value in sessions[ragged].get_inputs() if value.name not in feeds]
        assert len(names) == len(arrays)
        initial = [rng.standard_normal(array.shape).astype(np.float32) for array in arrays]
        theirs = sessions[ragged].run(None, feeds | dict(zip(names, initial, strict=True)))
        replaced = iter(initial)

        def rebuilt(part, replaced=replaced):
            if isinstance(part, tuple):
                return tuple(map(rebuilt, part))
            return None if part is None else next(replaced)

        y, final = model(x, rebuilt(state) if stateful else None, lengths=lengths)
        limits = tolerances.float32(model.input_size + H, T, max(1.0, np.abs(y).max()))
        assert len(theirs) == 1 + len(arrays)
        for ours, other in zip([y, *(flat(final) if stateful else [])], theirs, strict=True):
            np.testing.assert_allclose(other, ours, **limits)


CASES = [case for case in GRID if case[0] != "lstm_norm" and case[1] in ("none", "clip", "learn_state")]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell, option", CASES)
def test_recurrent_layers(rng, cell, option, direction, tmp_path):
    layer = make(cell, I, H, 2, seed=0, **options_of(option), **DIRECTIONS[direction])
    check(layer, rng, tmp_path, BATCHES[:2])
    if option == "learn_state":
        check(layer, rng, tmp_path, BATCHES[:2], stateful=False)


def test_batch_first_without_biases_or_dropout(rng, tmp_path):
    layer = cylstm.LSTM(
        I, H, 2, bias=False, batch_first=True, dropout=0.5, input_dropout=0.2, recurrent_dropout=0.1, seed=0
    )
    check(layer, rng, tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        ActivatedLSTM(
            I, H, "hard_sigmoid(0.3, 0.4); softsign; scaled_tanh(0.7, 0.9)", clip=0.8, peephole=True
        ),
        ActivatedLSTM(I, H, "sigmoid;tanh;relu;hard_sigmoid;leaky_relu(0.2);elu(0.5)", bidirectional=True),
        ActivatedGRU(I, H, "hard_sigmoid; affine(0.5, 0.1)", reset_after=False, reverse=True),
        # With one parameter for two directions of an RNN onnxruntime 1.23, the last for Python 3.10, aborts.
        ActivatedRNN(I, H, "thresholded_relu(0.1); leaky_relu(0.2)", bidirectional=True),
        ActivatedRNN(I, H, "softplus; softsign", bidirectional=True),
    ],
    ids=lambda layer: layer.activations,
)
def test_layers_of_other_activations(rng, layer, tmp_path):
    check(layer, rng, tmp_path, BATCHES[:2])


@pytest.mark.parametrize("kind", sorted(set(cylstm.layers.activation.FUNCTIONS)))
def test_activations(rng, kind, tmp_path):
    check(cylstm.Sequential(cylstm.Linear(I, H, seed=0), cylstm.Activation(kind)), rng, tmp_path)


@pytest.mark.parametrize("how", ["last", "mean", "max", "ends"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pooling(rng, how, batch_first, tmp_path):
    model = cylstm.Sequential(
        cylstm.Embedding(V, I, seed=0),
        cylstm.GRU(I, H // 2, bidirectional=True, batch_first=batch_first, seed=1),
        cylstm.Linear(H, H, seed=2),
        cylstm.Pooling(how),
        cylstm.Linear(H, 2, seed=3),
    )
    check(model, rng, tmp_path)
    # onnxruntime's last states of a sequence without steps are zeros, ours the initial ones
    check(model, rng, tmp_path, [(4, 3, [4, 0, 2])], stateful=False)


@pytest.mark.parametrize("query, causal", [("steps", False), ("steps", True), ("last", False)])
@pytest.mark.parametrize("kind, size", [("Multiplicative", ()), ("Additive", (5,)), ("MultiHead", (2,))])
def test_attention(rng, kind, size, query, causal, tmp_path):
    attention = getattr(cylstm, f"{kind}Attention")(H, *size, query=query, causal=causal, seed=2)
    model = cylstm.Sequential(cylstm.RNN(I, H, seed=0), cylstm.Linear(H, H, seed=1), attention)
    check(model, rng, tmp_path)
    check(model, rng, tmp_path, [(4, 3, [4, 0, 2])], stateful=False)


def test_a_model_of_everything(rng, tmp_path):
    model = cylstm.Sequential(
        cylstm.Embedding(V, H, seed=0),
        cylstm.Dropout(0.2),
        cylstm.Residual(cylstm.LayerNorm(H, 1e-3), cylstm.LSTM(H, H, 2, batch_first=True, seed=1)),
        cylstm.Sequential(
            cylstm.GRU(H, 5, batch_first=True, seed=2), cylstm.Linear(5, H, bias=False, seed=3)
        ),
        cylstm.Activation("relu"),
        cylstm.Linear(H, 4, seed=4),
        cylstm.Activation("log_softmax"),
    )
    check(model, rng, tmp_path)
    names = [value.name for value in session(tmp_path / "m.onnx").get_inputs()]
    assert names == ["x", "lengths", "2.1.h_0", "2.1.c_0", "3.0.h_0"]


@pytest.mark.parametrize("batch_first", [False, True])
def test_indices_of_several_fields(rng, batch_first, tmp_path):
    embedding = cylstm.Embedding(V, 2, fields=4, seed=0)
    check(cylstm.Sequential(embedding, cylstm.GRU(8, H, batch_first=batch_first, seed=1)), rng, tmp_path)
    with pytest.raises(convert.ConversionError, match=r"x: expected indices \(T, B\) or \(T,\), got 3 axes"):
        cylstm.from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_a_model_with_lengths_is_read_back(rng, batch_first, states, tmp_path):
    lengths, x = [4, 1, 5, 0], rng.standard_normal((4, 6, I) if batch_first else (6, 4, I)).astype(np.float32)
    model = cylstm.Sequential(
        cylstm.LSTM(I, H, 2, bidirectional=True, batch_first=batch_first, seed=0),
        cylstm.Linear(2 * H, 5, seed=1),
        cylstm.GRU(5, H, batch_first=batch_first, seed=2),
        cylstm.Linear(H, 3, seed=3),
    )
    convert.to_onnx(model, tmp_path / "m.onnx", lengths=True, states=states)
    read = cylstm.from_onnx(tmp_path / "m.onnx")
    np.testing.assert_array_equal(read(x, lengths=lengths)[0], model(x, lengths=lengths)[0])


def zeros_then(path, *nodes, change=lambda graph: None):
    """A file of an LSTM and a dense layer with lengths, in which nodes follow."""
    model = cylstm.Sequential(cylstm.LSTM(I, H, bidirectional=True, seed=0), cylstm.Linear(2 * H, 3, seed=1))
    convert.to_onnx(model, path, lengths=True)
    proto = onnx.load(path)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 3), np.float32), "w"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(-1), "last"))
    (end,) = [node for node in proto.graph.node if "y" in node.output]
    if nodes:
        end.output[0] = "before"
    proto.graph.node.extend(nodes)
    change(proto.graph)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    "node",
    [
        onnx.helper.make_node("MatMul", ["before", "w"], ["y"]),
        onnx.helper.make_node("Relu", ["before"], ["y"]),
        onnx.helper.make_node("ReduceMean", ["before"], ["y"], axes=[0], keepdims=0),
        onnx.helper.make_node("Gather", ["before", "last"], ["y"], axis=0),
    ],
    ids=lambda node: node.op_type,
)
def test_layer_that_would_read_padding_is_rejected(node, tmp_path):
    with pytest.raises(convert.ConversionError, match=f"{node.op_type} y: .*no layer after zeros"):
        cylstm.from_onnx(zeros_then(tmp_path / "m.onnx", node))


def test_zeroing_with_other_lengths_is_rejected(tmp_path):
    def without(graph):
        (lstm,) = [node for node in graph.node if node.op_type == "LSTM"]
        lstm.input[4] = ""

    def others(graph):
        graph.input.append(onnx.helper.make_tensor_value_info("others", onnx.TensorProto.INT64, ["B"]))
        (less,) = [node for node in graph.node if node.op_type == "Less"]
        less.input[1] = "others"

    for change in (without, others):
        with pytest.raises(convert.ConversionError, match=r"Less .*: expected the lengths that all layers"):
            cylstm.from_onnx(zeros_then(tmp_path / "m.onnx", change=change))


def scaled_model(features, dtype="float32"):
    model = cylstm.Sequential(
        cylstm.LSTM(features, H, batch_first=True, dtype=dtype, seed=0),
        cylstm.Linear(H, 2, dtype=dtype, seed=1),
    )
    spread = np.arange(1, 1 + features) * 3.0
    model.scalers["x"] = StandardScaler().fit(np.stack([spread - 1, 2 * spread]))
    return model


@pytest.mark.parametrize("features, dtype", [(1, "float32"), (I, "float32"), (I, "float64")])
def test_the_scaler_of_x_is_part_of_the_graph(rng, features, dtype, tmp_path):
    model, x = scaled_model(features, dtype), rng.standard_normal((4, 6, features)).astype(dtype) * 5
    z, lengths = model.scalers["x"].transform(x), [3, 2, 1, 5]
    limits = tolerances.float32(features + H, 6, 10.0)
    if dtype == "float32":  # onnxruntime has no LSTM of float64
        convert.to_onnx(model, tmp_path / "m.onnx", lengths=True)
        (y,) = session(tmp_path / "m.onnx").run(None, {"x": x, "lengths": np.array(lengths, np.int32)})
        np.testing.assert_allclose(y, model(z, lengths=lengths)[0], **limits)
    convert.to_onnx(model, tmp_path / "m.onnx")
    read = cylstm.from_onnx(tmp_path / "m.onnx")
    assert read.dtype == dtype
    np.testing.assert_allclose(read(x)[0], model(z)[0], **limits)


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("name", ["y", "target"])
@pytest.mark.parametrize("pooled", [False, True])
def test_the_scaler_of_y_is_part_of_the_graph(rng, features, name, pooled, tmp_path):
    layers = [cylstm.LSTM(I, H, seed=0), cylstm.Linear(H, features, seed=1)]
    model = cylstm.Sequential(*([layers[0], cylstm.Pooling("mean"), layers[1]] if pooled else layers))
    model.scalers["x"] = StandardScaler().fit(rng.normal(50, 20, (30, I)))
    model.scalers[name] = StandardScaler().fit(rng.normal(900, 70, (30, features)))
    x, lengths = rng.normal(50, 20, (4, 3, I)).astype("f4"), [4, 2, 1]
    z, scaler = model.scalers["x"].transform(x), model.scalers[name]
    convert.to_onnx(model, tmp_path / "m.onnx")
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, scaler.inverse(model(z)[0]), rtol=1e-5)
    np.testing.assert_allclose(cylstm.from_onnx(tmp_path / "m.onnx")(x)[0], y, rtol=1e-5)
    convert.to_onnx(model, tmp_path / "m.onnx", lengths=True)
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": x, "lengths": np.array(lengths, np.int32)})
    expected = scaler.inverse(model(z, lengths=lengths)[0])
    if not pooled:
        expected[np.arange(4)[:, None] >= lengths] = 0
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    model.scalers = {}
    convert.to_onnx(model, tmp_path / "m.onnx")
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, model(x)[0], **tolerances.float32(I + H, 4, 10.0))


def test_scalers_that_are_left_out_are_warned_of(tmp_path):
    model = cylstm.Sequential(cylstm.LSTM(I, H, seed=0), cylstm.Linear(H, 2, seed=1))
    model.scalers["y"] = StandardScaler().fit(np.eye(3))
    with pytest.warns(UserWarning, match=r"scalers\['y'\] is not in the ONNX file \(3 features, of 2 of y\)"):
        convert.to_onnx(model, tmp_path / "m.onnx")
    model.scalers = {"weather": StandardScaler().fit(np.eye(2))}
    with pytest.warns(
        UserWarning, match=r"scalers\['weather'\] is not in the ONNX file \(not \"x\" or \"y\"\)"
    ):
        convert.to_onnx(model, tmp_path / "m.onnx")
    with pytest.warns(UserWarning, match="to_safetensors: .*weather"):
        convert.to_safetensors(model, tmp_path / "m.safetensors")


def test_a_scaler_of_something_else_is_refused(tmp_path):
    model = scaled_model(I)
    model.scalers["x"].fit(np.eye(I + 1))
    with pytest.raises(convert.ConversionError, match=r'scalers\["x"\]: .*, 3 features, got 4 features'):
        convert.to_onnx(model, tmp_path / "m.onnx")
    words = cylstm.Sequential(cylstm.Embedding(V, I))
    words.scalers["x"] = StandardScaler().fit([1.0, 2.0])
    with pytest.raises(convert.ConversionError, match=r'scalers\["x"\]: .*, indices, got 1 features'):
        convert.to_onnx(words, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "layer, message",
    [
        (cylstm.LSTM(I, H, proj_size=2), "model: proj_size=2 of LSTM has no form in ONNX"),
        (
            cylstm.Sequential(cylstm.GRU(I, H, zoneout=0.1)),
            r"layer 0: zoneout=0\.1 of GRU has no form in ONNX",
        ),
        (cylstm.LSTM(I, H, layer_norm=True), "model: layer_norm=True of LSTM has no form in ONNX"),
        (ActivatedRNN(I, H, "gelu"), "activations: gelu is none of a recurrent node of ONNX"),
    ],
)
def test_layers_without_onnx_equivalent_are_rejected(layer, message, tmp_path):
    with pytest.raises(convert.ConversionError, match=message):
        convert.to_onnx(layer, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
