"""Models of Keras 3, on its PyTorch backend as the oracle, give the same values; the rest is refused."""

import json
import os
import zipfile

import numpy as np
import pytest
import tolerances

import cylstm
from cylstm import convert

pytestmark = pytest.mark.peer

h5py = pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
pytestmark = [  # of Keras
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
]
T, B, I, H, V = 7, 4, 3, 5, 11


@pytest.fixture
def keras(torch):
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = "torch"
    return pytest.importorskip("keras", reason="Keras is not installed; it is the oracle here")


def models(keras):
    """Layers of models by name."""
    L = keras.layers
    return {
        "lstm": [L.LSTM(H, return_sequences=True), L.LSTM(4, name="own", dropout=0.2), L.Dense(2, "softmax")],
        "gru": [L.GRU(H, return_sequences=True), L.GRU(4, reset_after=False, use_bias=False)],
        "gru before": [L.GRU(H, reset_after=False, return_sequences=True), L.Dense(3, use_bias=False)],
        "rnn": [L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(4, activation="relu"), L.ReLU()],
        "both": [L.Bidirectional(L.LSTM(H, return_sequences=True)), L.Bidirectional(L.GRU(4)), L.Dense(2)],
        "others": [
            L.LSTM(H, recurrent_activation="hard_sigmoid", activation="softsign", return_sequences=True),
            L.Bidirectional(L.GRU(4, activation="linear", return_sequences=True)),
            L.SimpleRNN(3, activation="elu"),
        ],
        "around": [
            L.Dropout(0.3), L.LayerNormalization(), L.TimeDistributed(L.Dense(H)),
            L.LayerNormalization(center=False),
            L.Activation("silu"), L.LeakyReLU(0.1), L.GRU(4, return_sequences=True), L.GlobalMaxPooling1D(),
            L.Dense(3, "hard_sigmoid"), L.Softmax(),
        ],
        "mean": [L.Dense(H, "tanh"), L.GRU(4, return_sequences=True), L.GlobalAveragePooling1D()],
    }  # fmt: skip


NAMES = ["lstm", "gru", "gru before", "rnn", "both", "others", "around", "mean"]


def saved(keras, layers, folder, functional=False, inputs=None):
    """A model with random weights, in files."""
    x = keras.Input((None, I)) if inputs is None else inputs
    if functional:
        y = x
        for layer in layers:
            y = layer(y)
        model = keras.Model(x, y)
    else:
        model = keras.Sequential([x, *layers])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.7, 0.7, w.shape).astype("float32") for w in model.get_weights()])
    model.save(folder / "m.keras")
    model.save_weights(folder / "m.weights.h5")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_keras(rng, keras, name, functional, tmp_path):
    theirs = saved(keras, models(keras)[name], tmp_path, functional)
    x = rng.standard_normal((B, T, I)).astype("float32")
    expected = keras.ops.convert_to_numpy(theirs(x))
    model = cylstm.from_keras(tmp_path / "m.keras")
    limits = tolerances.float32(I + 2 * H, T, max(1.0, np.abs(expected).max()))
    y = model(x)[0]
    np.testing.assert_allclose(y, expected, **limits)
    again = cylstm.from_keras(tmp_path / "m.weights.h5", config=theirs.to_json())
    np.testing.assert_array_equal(again(x)[0], y)


def test_words(rng, keras, tmp_path):
    L = keras.layers
    layers = [L.Embedding(V, I), L.LSTM(H)]
    theirs = saved(keras, layers, tmp_path, inputs=keras.Input((None,), dtype="int32"))
    x = rng.integers(0, V, (B, T))
    expected = keras.ops.convert_to_numpy(theirs(x))
    np.testing.assert_allclose(cylstm.from_keras(tmp_path / "m.keras")(x)[0], expected, rtol=0, atol=2e-6)


def masked_models(keras):
    """Layers of models that leave out steps, by name."""
    L, both = keras.layers, keras.layers.Bidirectional
    words, vectors = L.Embedding(V, I, mask_zero=True), L.Masking(-0.3)
    return {
        "last": [words, L.GRU(H), L.Dense(2)],
        "all": [words, L.LSTM(H, return_sequences=True), L.Dense(2, "softplus"), L.LayerNormalization()],
        "zeros": [words, L.GRU(H, return_sequences=True, zero_output_for_mask=True), L.Dense(2)],
        "stack": [words, L.SimpleRNN(H, return_sequences=True), L.Dense(4), L.LSTM(H, return_sequences=True)],
        "both": [words, both(L.LSTM(H, return_sequences=True)), both(L.GRU(4))],
        "both all": [words, both(L.GRU(H, return_sequences=True)), L.Dense(2)],
        "both then one": [words, both(L.GRU(H, return_sequences=True)), L.LSTM(3, return_sequences=True)],
        "mean": [words, L.GRU(H, return_sequences=True), L.GlobalAveragePooling1D(), L.Dense(2)],
        "mean of words": [words, L.GlobalAveragePooling1D(), L.Dense(2)],
        "largest word": [words, L.Dense(4), L.GlobalMaxPooling1D()],
        "words": [words, L.Dense(2)],
        "unmasked mean": [L.Embedding(V, I), L.GlobalAveragePooling1D(), L.Dense(2)],
        "vectors": [vectors, L.LSTM(H), L.Dense(2)],
        "all vectors": [vectors, L.Dense(4), L.LSTM(H, return_sequences=True), L.Dense(2)],
        "vectors alone": [vectors, L.Dense(2)],
        "mean of vectors": [vectors, L.GlobalAveragePooling1D(), L.Dense(2)],
    }  # fmt: skip


MASKED = (
    "last", "all", "zeros", "stack", "both", "both all", "both then one", "mean", "mean of words",
    "largest word", "words", "unmasked mean", "vectors", "all vectors", "vectors alone", "mean of vectors",
)  # fmt: skip


@pytest.mark.parametrize("batch", [T, 4])  # of as many sequences as steps, too: shapes alone show nothing
@pytest.mark.parametrize("name", MASKED)
def test_masked_steps_are_those_of_keras(name, batch, rng, keras, tmp_path):
    layers = masked_models(keras)[name]
    by_vectors = isinstance(layers[0], keras.layers.Masking)
    inputs = keras.Input((None, I)) if by_vectors else keras.Input((None,), dtype="int32")
    theirs = saved(keras, layers, tmp_path, inputs=inputs)
    padding = np.zeros((batch, T), bool)
    padding[0, :3] = padding[1, 5:] = padding[2, [0, 2, 3, 6]] = True
    x = rng.integers(1, V, (batch, T))
    x[padding] = 0
    if by_vectors:
        x = rng.standard_normal((batch, T, I)).astype("f4")
        x[padding], x[3, 2, 0] = -0.3, -0.3
    expected = keras.ops.convert_to_numpy(theirs(x))
    model = cylstm.from_keras(tmp_path / "m.keras")
    y, _ = model(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6)
    cylstm.save(model, tmp_path / "ours.safetensors")
    again = cylstm.load(tmp_path / "ours.safetensors")
    np.testing.assert_array_equal(again(x)[0], y)
    session = cylstm.Session(model)
    for _ in range(3):
        np.testing.assert_array_equal(session.run(x)[0], y)
    np.testing.assert_array_equal(model(x[0])[0], y[0])


def test_masks_without_a_form_are_rejected(keras, tmp_path):
    L = keras.layers
    words = L.Embedding(V, I, mask_zero=True)
    for layers, message in [
        ([words, L.GRU(H, return_sequences=True), L.GlobalMaxPooling1D()], "masked steps in the maximum"),
        (
            [words, L.GRU(H, zero_output_for_mask=True)],
            "zero_output_for_mask=True with return_sequences=False",
        ),
        ([words, L.GRU(T, return_sequences=True), L.Softmax()], "uses the mask over features"),
        ([words, L.Masking()], "expected a Masking layer in front"),
    ]:
        saved(keras, layers, tmp_path, inputs=keras.Input((T,), dtype="int32"))
        with pytest.raises(convert.ConversionError, match=message):
            cylstm.from_keras(tmp_path / "m.keras")


def test_options_of_keras_that_have_no_form_are_warned_of(keras, tmp_path):
    L = keras.layers
    for layer, message in [
        (L.LSTM(H, stateful=True), "LSTM .*: stateful=True has no equivalent in cylstm"),
        (L.Dense(H, kernel_regularizer="l2"), "Dense .*: kernel_regularizer has no equivalent"),
        (
            L.Bidirectional(L.GRU(H, kernel_constraint="non_neg")),
            "Bidirectional .*: kernel_constraint has no",
        ),
        (L.Dense(H, trainable=False), "Dense .*: trainable=False has no equivalent"),
        (
            L.Dense(H, dtype="mixed_bfloat16"),
            "Dense .*: computing in bfloat16, which is float32 here, has no",
        ),
    ]:
        saved(keras, [layer], tmp_path, inputs=keras.Input(batch_shape=(B, T, I)))
        with pytest.warns(UserWarning, match=message):
            cylstm.from_keras(tmp_path / "m.keras")


@pytest.mark.parametrize("policy", ["bfloat16", "float16"])
def test_weights_of_16_bits_are_read_exactly(policy, keras, tmp_path):
    theirs = saved(keras, [keras.layers.Dense(H, dtype=policy)], tmp_path)
    with pytest.warns(UserWarning, match=f"computing in {policy}"):
        model = cylstm.from_keras(tmp_path / "m.keras")
    expected = np.asarray(theirs.get_weights()[0]).astype("f4")
    np.testing.assert_array_equal(model.parameters["0.weight"], expected.T)


def test_unsupported_features_are_rejected(keras, tmp_path):
    L = keras.layers
    for layers, message in [
        ([L.Conv1D(3, 2)], "Conv1D .*: cylstm has no such layer"),
        ([L.Lambda(lambda x: x + 1)], "Lambda .*: cylstm has no such layer"),
        ([L.LSTM(3, go_backwards=True)], "go_backwards=True has no equivalent in cylstm"),
        ([L.Bidirectional(L.LSTM(3), merge_mode="sum")], "Bidirectional .*merge_mode='concat'"),
        ([L.Dense(3, "mish")], "Dense .*: activation: expected one of relu, .*, got 'mish'"),
        ([L.ReLU(max_value=6.0)], "ReLU .*: expected no max_value"),
    ]:
        saved(keras, layers, tmp_path)
        with pytest.raises(convert.ConversionError, match=message):
            cylstm.from_keras(tmp_path / "m.keras")
    x = keras.Input((None, I))
    branched = keras.Model(x, L.Add()([L.Dense(I, name="a")(x), x]))
    branched.save(tmp_path / "m.keras")
    with pytest.raises(convert.ConversionError, match=r"add.*: expected to read a only, got"):
        cylstm.from_keras(tmp_path / "m.keras")


@pytest.mark.filterwarnings("ignore")  # torch's, of the exporter that Keras uses
@pytest.mark.parametrize("name", ["lstm", "gru", "gru before", "rnn", "mean"])
def test_exports_of_keras_to_onnx(rng, keras, name, tmp_path):
    """Keras unrolls layers into their steps; which layers these are is found and checked by their values."""
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are read with it")
    theirs = saved(keras, models(keras)[name], tmp_path, inputs=keras.Input((T, I)))
    x = rng.standard_normal((B, T, I)).astype("float32")
    expected = keras.ops.convert_to_numpy(theirs(x))
    theirs.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    model = cylstm.from_onnx(tmp_path / "m.onnx")
    np.testing.assert_allclose(model(x)[0], expected, **tolerances.float32(I + 2 * H, T, 1.0))
    recurrent = [type(layer).__name__ for layer in model.layers if hasattr(layer, "hidden_size")]
    assert recurrent == {"lstm": ["LSTM"] * 2, "rnn": ["RNN"] * 2}.get(name, ["GRU"] * len(recurrent)) != []


@pytest.mark.filterwarnings("ignore")
def test_exports_of_keras_that_are_refused(keras, tmp_path):
    L = keras.layers
    for layer, message in [
        (L.LSTM(H, recurrent_activation="hard_sigmoid"), "has no place among the steps of an unrolled layer"),
        (L.Bidirectional(L.LSTM(H)), "expected the last step, or rows of states"),
        (L.LSTM(H, activation="relu"), "their values are others"),
    ]:
        theirs = saved(keras, [layer], tmp_path, inputs=keras.Input((T, I)))
        theirs(np.zeros((B, T, I), "float32"))
        theirs.export(tmp_path / "m.onnx", format="onnx", verbose=False)
        with pytest.raises(convert.ConversionError, match=message):
            cylstm.from_onnx(tmp_path / "m.onnx")


def a_file(folder, weights=None, config=None):
    """A `.keras` file of a dense layer, made by hand; returns its path."""
    with h5py.File(folder / "w.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        for number, value in enumerate(weights or [np.ones((I, 2), "float32"), np.zeros(2, "float32")]):
            group[str(number)] = value
    dense = {"class_name": "Dense", "config": {"name": "dense", "activation": "tanh"}}
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        found = {"class_name": "Sequential", "config": {"layers": [dense]}} if config is None else config
        archive.writestr("config.json", json.dumps(found))
        archive.write(folder / "w.h5", "model.weights.h5")
    return folder / "m.keras"


def test_files_made_by_hand(tmp_path):
    y = cylstm.from_keras(a_file(tmp_path))(np.ones((B, T, I)))[0]
    np.testing.assert_allclose(y, np.tanh(I) * np.ones((B, T, 2)), rtol=1e-6)
    with pytest.raises(convert.ConversionError, match=r"has weights only; give the model's to_json\(\)"):
        cylstm.from_keras(tmp_path / "w.h5")
    with pytest.raises(convert.ConversionError, match="Model: expected a Sequential or Functional model"):
        cylstm.from_keras(a_file(tmp_path, config={"class_name": "Model"}))
    with pytest.raises(cylstm.ModelFileError, match="a Keras model that cannot be read"):
        cylstm.from_keras(a_file(tmp_path, config=[]))
    with pytest.raises(cylstm.ModelFileError, match="0: expected a part of the file"):
        cylstm.from_keras(a_file(tmp_path, weights=[h5py.SoftLink("/layers")]))


@pytest.mark.parametrize("config", ["{", "[" * 10**5, "[]", [], 3])
def test_a_configuration_that_is_none_is_the_callers_fault(config, tmp_path):
    a_file(tmp_path)
    with pytest.raises(ValueError, match=r"^config: expected") as caught:
        cylstm.from_keras(tmp_path / "w.h5", config=config)
    assert type(caught.value) is ValueError


def test_a_configuration_is_for_weights_alone(tmp_path):
    with pytest.raises(ValueError, match=r"^config: expected None with a \.keras") as caught:
        cylstm.from_keras(a_file(tmp_path), config={})
    assert type(caught.value) is ValueError


def test_archives_that_unpack_to_too_much_are_refused(tmp_path):
    path = a_file(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(2**25))
    with pytest.raises(cylstm.ModelFileError, match="expected at most 16777216 bytes of a file of"):
        cylstm.from_keras(path)
    with pytest.raises(FileNotFoundError):
        cylstm.from_keras(tmp_path / "missing.keras")
