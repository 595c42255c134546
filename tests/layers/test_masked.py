"""Models that leave out steps by their values: wherever these stand, results are those of the other steps."""

import json
import warnings
import zipfile

import numpy as np
import pytest

import cylstm
from cylstm import convert

V, I, H, T, B = 9, 3, 4, 7, 5


def model(*pooling, bidirectional=False, batch_first=True, **options):
    """A masked model, and one of the same weights without a mask."""

    def layers():
        return (
            cylstm.Embedding(V, I, dtype="float64", seed=0),
            cylstm.GRU(I, H, batch_first=batch_first, bidirectional=bidirectional, dtype="float64", seed=1),
            *(cylstm.Pooling(how, dtype="float64") for how in pooling),
            cylstm.Linear(H * (1 + bidirectional), 2, dtype="float64", seed=2),
        )

    return cylstm.Masked(*layers(), **options), cylstm.Sequential(*layers())


def ids(rng):
    x = rng.integers(1, V, (B, T))
    x[0, :3] = x[1, 4:] = x[2, [0, 2, 6]] = x[3] = 0
    return x


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_valid_steps_are_those_of_sequences_without_the_others(bidirectional, batch_first, rng):
    masked, plain = model(bidirectional=bidirectional, batch_first=batch_first)
    x = ids(rng)
    y, state = masked(x if batch_first else x.T)
    y = y if batch_first else y.swapaxes(0, 1)
    for b in range(B):
        expected, last = plain(x[b][x[b] > 0])
        np.testing.assert_array_equal(y[b][x[b] > 0], expected)
        np.testing.assert_array_equal(state[1][:, b], last[1])


@pytest.mark.parametrize("how", ["last", "mean", "max", "ends"])
def test_pooling_is_over_valid_steps(how, rng):
    masked, plain = model(how)
    x = ids(rng)
    y, _ = masked(x)
    for b in range(3):
        np.testing.assert_array_equal(y[b], plain(x[b][x[b] > 0])[0])
    np.testing.assert_array_equal(y[3], plain.layers[-1].parameters["bias"])


@pytest.mark.parametrize("repeats", [False, True])
def test_masked_steps_repeat_the_one_before_or_are_constant(repeats, rng):
    masked, plain = model(repeats=repeats)
    x, bias = ids(rng), plain.layers[-1].parameters["bias"]
    y, _ = masked(x)
    np.testing.assert_array_equal(y[0, :3], np.broadcast_to(bias, (3, 2)))
    np.testing.assert_array_equal(y[1, 4:], np.broadcast_to(y[1, 3] if repeats else bias, (3, 2)))
    np.testing.assert_array_equal(y[2, 2], y[2, 1] if repeats else bias)
    lengths = np.array([7, 6, 7, 7, 5])
    cut, _ = masked(x, lengths=lengths)
    assert not cut[1, 6:].any()
    assert not cut[4, 5:].any()
    np.testing.assert_array_equal(cut[1, 4:6], y[1, 4:6])


def test_gradients_are_those_of_sequences_without_the_others(rng):
    masked, _ = model()
    x = ids(rng)
    masked.train()
    y, _ = masked(x)
    dy = rng.standard_normal(y.shape)
    masked.backward(dy)
    total = {name: value.copy() for name, value in masked.gradients.items()}
    masked.zero_grad()
    for b in range(B):
        valid = x[b] > 0
        masked(x[b][valid])
        masked.backward(dy[b][valid])
    for name, value in masked.gradients.items():
        np.testing.assert_allclose(total[name], value, rtol=1e-12, atol=1e-14)


def test_gradients_of_masked_vectors_are_0(rng):
    lstm = cylstm.LSTM(I, H, batch_first=True, dtype="float64", seed=0)
    masked = cylstm.Masked(lstm, value=-1.5).train()
    x = rng.standard_normal((B, T, I))
    x[0, :3], x[1, 2], x[2, 0, 0] = -1.5, -1.5, -1.5
    y, _ = masked(x)
    dx, _ = masked.backward(np.ones_like(y))
    assert not dx[0, :3].any()
    assert not dx[1, 2].any()
    assert dx[2, 0].all()


@pytest.mark.parametrize("pooling", [(), ("mean",)])
def test_sessions_queues_packed_sequences_and_copies_agree(pooling, rng, tmp_path):
    import copy

    masked, _ = model(*pooling)
    x = ids(rng)
    y, _ = masked(x)
    cylstm.save(masked, tmp_path / "m.safetensors")
    for again in (cylstm.load(tmp_path / "m.safetensors"), copy.deepcopy(masked)):
        assert repr(again) == repr(masked)
        np.testing.assert_array_equal(again(x)[0], y)
    session = cylstm.Session(masked)
    for _ in range(3):
        np.testing.assert_array_equal(session.run(x)[0], y)
    rows, _ = masked(cylstm.data.pack(list(x[..., None])))
    np.testing.assert_array_equal(rows if pooling else np.stack(cylstm.data.unpack(rows)), y)
    with session.micro_batch(max_delay=0.05) as queue:
        results = [queue.submit(part) for part in x]
        for b, result in enumerate(results):
            np.testing.assert_array_equal(result.result()[0], y[b])


def test_layers_without_equivalent_are_rejected(rng, tmp_path):
    masked, _ = model()
    with pytest.raises(ValueError, match="attention or masked steps"):
        cylstm.Stream(masked)
    with pytest.raises(TypeError, match="layer 0: expected a layer that can be nested, got Masked"):
        cylstm.Sequential(masked)
    with pytest.raises(TypeError, match="layer 1: expected a layer that supports masking, got Resid"):
        cylstm.Masked(cylstm.Linear(I, I), cylstm.Residual(cylstm.GRU(I, I)))
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
    with pytest.raises(convert.ConversionError, match="model: Masked has no form in ONNX"):
        convert.to_onnx(masked, tmp_path / "m.onnx")
    with pytest.raises(convert.ConversionError, match="model: Masked has no equivalent in a state dict"):
        convert.to_safetensors(masked, tmp_path / "m.safetensors")


def waves(shape, k):
    return np.sin(np.arange(np.prod(shape)) * (k + 1.0)).reshape(shape).astype("f4")


def keras_file(h5py, path, both):
    """Embedding(5, 2, mask_zero=True) and GRU(2, return_sequences=True), as Keras 3 saves them."""
    gru = {
        "name": "gru", "units": 2, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True,
        "reset_after": True, "return_sequences": True, "dropout": 0.0, "recurrent_dropout": 0.0,
    }  # fmt: skip
    embedding = {"class_name": "Embedding", "config": {"name": "embedding", "mask_zero": True}}
    layer = {"class_name": "GRU", "config": gru}
    if both:
        layer = {
            "class_name": "Bidirectional",
            "config": {"name": "bidirectional", "layer": layer, "merge_mode": "concat"},
        }
    ends = ["bidirectional/forward_layer/cell", "bidirectional/backward_layer/cell"] if both else ["gru/cell"]
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["layers/embedding/vars/0"] = waves((5, 2), 0)
        for k, end in enumerate(ends):
            for n in range(3):
                file[f"layers/{end}/vars/{n}"] = waves((2, 6), 1 + 3 * k + n)
    with zipfile.ZipFile(path, "w") as archive:
        config = {"class_name": "Sequential", "config": {"layers": [embedding, layer]}}
        archive.writestr("config.json", json.dumps(config))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    return path


FORWARD = [
    [[0.0, 0.0], [0.0, 0.0], [0.44595, 0.4106], [0.61627, 0.44103]],
    [[-0.50255, 0.77847], [-0.50255, 0.77847], [0.62836, 0.7083], [0.62836, 0.7083]],
]
BOTH = [
    [[0, 0, 0, 0], [0, 0, 0, 0], [0.44595, 0.4106, 0.04633, -0.39234], [0.61627, 0.44103, 0.66689, 0.12086]],
    [[-0.50255, 0.77847, 0.32859, 0.15527], [0, 0, 0, 0], [0.62836, 0.7083, 0.71471, -0.07309], [0, 0, 0, 0]],
]


@pytest.mark.parametrize(("both", "expected"), [(False, FORWARD), (True, BOTH)])
def test_numbers_of_keras(both, expected, tmp_path):
    """Computed by Keras 3.15 for ids that are padded on the left and in between."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = cylstm.from_keras(keras_file(h5py, tmp_path / "m.keras", both))
    y, _ = read(np.array([[0, 0, 3, 1], [2, 0, 4, 0]]))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_layout_of_keras_without_recurrent_layers(rng, tmp_path):
    """Pooling is over steps, not over the batch, also for as many sequences as steps."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
    table = rng.standard_normal((V, I)).astype("f4")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/embedding/vars/0"] = table
    layers = [
        {"class_name": "Embedding", "config": {"name": "embedding"}},
        {"class_name": "GlobalAveragePooling1D", "config": {"name": "mean"}},
    ]
    config = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    read = cylstm.from_keras(tmp_path / "w.h5", config=config)
    for batch in (T, B):
        x = rng.integers(0, V, (batch, T))
        np.testing.assert_allclose(read(x)[0], table[x].mean(axis=1), rtol=0, atol=1e-6)
    cylstm.save(read, tmp_path / "m.safetensors")
    assert cylstm.load(tmp_path / "m.safetensors").batch_first is True
    assert repr(read).endswith("batch_first=True)")


def test_a_layout_that_no_layer_has_is_the_models():
    with pytest.raises(ValueError, match="batch_first: expected False, as in the layers, got True"):
        cylstm.Sequential(cylstm.LSTM(3, 4), batch_first=True)
    with pytest.raises(TypeError, match="batch_first: expected True, False or None, got 1"):
        cylstm.Sequential(cylstm.Linear(3, 4), batch_first=1)
    assert cylstm.Sequential(cylstm.LSTM(3, 4, batch_first=True), batch_first=True).batch_first is True


def test_groups_without_names_are_taken_by_number(tmp_path):
    """Layers that are called as a group of another one is."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = np.full((2, 2), 2, "f4")
        file["layers/dense_1/vars/0"] = np.full((2, 2), 3, "f4")
    dense = [{"name": "dense_1", "activation": "linear"}, {"name": "dense_2", "activation": "linear"}]
    layers = [{"class_name": "Dense", "config": options} for options in dense]
    config = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
    read = cylstm.from_keras(tmp_path / "w.h5", config=config)
    assert read.parameters["0.weight"].max() == 2
    assert read.parameters["1.weight"].max() == 3
