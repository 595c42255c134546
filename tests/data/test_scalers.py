"""Scalers: what they do to numbers, and that they stay with their model."""

import contextlib
import copy
import hashlib
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from model_files import description_of, with_metadata

import cylstm
from cylstm import files
from cylstm.data import MinMaxScaler, Scaler, StandardScaler

BOTH = [StandardScaler, MinMaxScaler]
values = arrays.arrays(
    np.float64,
    arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False),
)


def fitted():
    return StandardScaler().fit(np.array([[1.0, 5.0, 7.0], [4.0, 5.0, 8.5]]))


@settings(deadline=None)
@given(x=values, kind=st.sampled_from(BOTH))
def test_inverse_undoes_transform(x, kind):
    scaler = kind().fit(x)
    limit = 1e-12 * np.abs(x).max(initial=1)
    np.testing.assert_allclose(scaler.inverse(scaler.transform(x)), x, rtol=1e-12, atol=limit)


def test_the_statistics_are_those_of_each_feature(rng):
    x = rng.normal([3, -500, 0], [0.1, 20, 1e-3], (50, 7, 3))
    z = StandardScaler().fit(x).transform(x)
    np.testing.assert_allclose(z.mean(axis=(0, 1)), 0, atol=1e-11)
    np.testing.assert_allclose(z.std(axis=(0, 1)), 1, rtol=1e-12)
    z = MinMaxScaler().fit(x).transform(x)
    np.testing.assert_array_equal(z.min(axis=(0, 1)), 0)
    np.testing.assert_allclose(z.max(axis=(0, 1)), 1, rtol=1e-15)


@pytest.mark.parametrize("kind", BOTH)
def test_a_ragged_list_counts_as_its_rows(rng, kind):
    parts = [rng.standard_normal((n, 3)) for n in (4, 0, 7)]
    whole = np.concatenate(parts)
    ours, theirs = kind().fit(parts), kind().fit(whole)
    np.testing.assert_allclose(ours.offset, theirs.offset, rtol=1e-14)
    np.testing.assert_allclose(ours.scale, theirs.scale, rtol=1e-14)
    scaled = ours.transform(parts)
    assert [part.shape for part in scaled] == [(4, 3), (0, 3), (7, 3)]
    np.testing.assert_allclose(np.concatenate(scaled), theirs.transform(whole), rtol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_a_constant_feature_becomes_0(kind):
    x = np.full((10, 2), 0.1)
    x[:, 1] = np.arange(10)
    scaler = kind().fit(x)
    assert scaler.scale[0] == 1
    np.testing.assert_allclose(scaler.transform(x)[:, 0], 0, atol=1e-16)


@pytest.mark.parametrize(
    "dtype, result",
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("i4", "float64")],
)
def test_results_are_in_the_precision_of_x(dtype, result):
    x = np.arange(6).reshape(3, 2).astype(dtype)
    scaler = StandardScaler().fit(x)
    assert (scaler.transform(x).dtype, scaler.inverse(x).dtype) == (result, result)


def test_scaler_is_accurate_for_float32_with_large_mean():
    x = (1e6 + np.arange(1000) % 7).astype(np.float32)
    np.testing.assert_allclose(StandardScaler().fit(x).transform(x).std(), 1, rtol=1e-6)


def test_one_feature_needs_no_axis():
    scaler = MinMaxScaler().fit(np.array([2.0, 6.0]))
    np.testing.assert_array_equal(scaler.transform([4.0, 6.0, 8.0]), [0.5, 1, 1.5])
    np.testing.assert_array_equal(scaler.transform([[4.0]]), [[0.5]])
    np.testing.assert_array_equal(MinMaxScaler().fit([[2, 0], [6, 1]]).transform([[4, 1]]), [[0.5, 1]])


def test_transform_leaves_x_alone_and_keeps_nan():
    x = np.array([[1.0, np.nan, 7.0]])
    result = fitted().transform(x)
    assert np.isnan(result[0, 1])
    assert x[0, 0] == 1


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "x, error, message",
    [
        ([[1.0, np.nan], [2.0, np.nan]], ValueError, "x: expected at least one value, got none in column 1"),
        (
            [np.ones((1, 1)), np.full((1, 1), np.inf)],
            ValueError,
            r"x\[1\]\[0, 0\]: expected a finite number, got inf",
        ),
        (np.zeros((3, 0)), ValueError, "x: expected at least one value, got none"),
        (np.zeros((0, 3)), ValueError, "x: expected at least one value, got none"),
        ([], ValueError, "x: expected at least one value, got none"),
        (
            [[1e308], [-1e308]],
            ValueError,
            r"x: expected values whose squares do not overflow, got up to 1e\+308",
        ),
        ([["a"]], TypeError, r"x\[0\]\[0\]: expected real numbers, got 'a'"),
        ([[1.0], [1.0, 2.0]], ValueError, "x: expected a rectangular array"),
    ],
)
def test_unusable_training_data_are_rejected(kind, x, error, message):
    scaler = kind()
    with pytest.raises(error, match=message):
        scaler.fit(x)
    with pytest.raises(RuntimeError, match="transform: not fitted; call fit first"):
        scaler.transform([1.0])
    with pytest.raises(RuntimeError, match="config: not fitted"):
        _ = scaler.config


def test_other_numbers_of_features_are_refused():
    for x, got in ((np.zeros((4, 2)), r"\(4, 2\)"), (1.0, r"\(\)"), (np.zeros(1), r"\(1,\)")):
        with pytest.raises(ValueError, match=rf"x: expected \(\.\.\., 3\), got {got}"):
            fitted().transform(x)
    with pytest.raises(ValueError, match=r"x\[0\]: expected \(\.\.\., 1\) or \(n,\), got \(2, 2\)"):
        StandardScaler().fit([1.0, 2.0]).inverse([np.zeros((2, 2))] * 2)


# With a model


def model():
    made = cylstm.Sequential(cylstm.LSTM(3, 2, seed=0), cylstm.Linear(2, 1, seed=1))
    made.scalers = {"x": fitted(), "target": MinMaxScaler().fit([0.5, 2.0])}
    return made


def configs(layer):
    return {name: scaler.config for name, scaler in layer.scalers.items()}


def test_a_file_gives_the_scalers_back(tmp_path):
    cylstm.save(model(), tmp_path / "m")
    loaded = cylstm.load(tmp_path / "m")
    assert configs(loaded) == configs(model())
    assert isinstance(loaded.scalers["target"], MinMaxScaler)
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(loaded.scalers["x"].transform(x), fitted().transform(x))
    cylstm.save(cylstm.GRU(1, 1), tmp_path / "m")
    assert cylstm.load(tmp_path / "m").scalers == {}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_scalers_of_their_own(copied):
    ours = model()
    theirs = copied(ours)
    assert configs(theirs) == configs(ours)
    before = configs(ours)
    theirs.scalers["x"].fit([[1.0], [2.0]])
    del theirs.scalers["target"]
    assert configs(ours) == before


def test_scalers_of_a_layer_in_a_model_are_not_lost_in_silence(tmp_path):
    ours = model()
    ours.layers[1].scalers["y"] = fitted()
    for keep in (copy.copy, lambda m: cylstm.save(m, tmp_path / "m")):
        with pytest.raises(ValueError, match=r"layer 1: expected no scalers .* \['y'\]; set the scalers"):
            keep(ours)


def test_only_fitted_scalers_with_names_are_saved(tmp_path):
    for scalers, error in (
        ({"x": 3}, TypeError),
        ({3: fitted()}, TypeError),
        ({"x": MinMaxScaler()}, RuntimeError),
    ):
        ours = model()
        ours.scalers = scalers
        with pytest.raises(error):
            cylstm.save(ours, tmp_path / "m")
        assert not (tmp_path / "m").exists()


def test_files_of_format_1_are_read(tmp_path):
    path, ours = tmp_path / "m", model()
    cylstm.save(ours, path, extra={"note": 1})
    description = description_of(path)
    digest = hashlib.sha256(json.dumps([description["model"], {"note": 1}], sort_keys=True).encode())
    for tensor in ours.state_dict().values():
        digest.update(tensor.tobytes())
    old = {"format": 1, "model": description["model"], "extra": {"note": 1}, "sha256": digest.hexdigest()}
    with_metadata(path, old)
    loaded, extra = files.load_with_extra(path)
    assert (repr(loaded), extra, loaded.scalers) == (repr(ours), {"note": 1}, {})
    with_metadata(
        path, old | {"scalers": description["scalers"]}
    )  # not in that format: not covered by its digest
    assert cylstm.load(path).scalers == {}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "Scaler"},
        {"type": "os.system"},
        {"type": ["StandardScaler"]},
        {"type": None},
        {"offset": [0.0, 0.0]},
        {"offset": []},
        {"offset": 3},
        {"offset": "123"},
        {"offset": [[0.0], [0.0], [0.0]]},
        {"offset": [0.0, None, 0.0]},
        {"offset": [0.0, float("nan"), 0.0]},
        {"offset": [0.0, 10**400, 0.0]},
        {"scale": [1.0, float("inf"), 1.0]},
        {"scale": [1.0, 0.0, 1.0]},
        {"scale": [1.0, -1.0, 1.0]},
        {"surprise": 1},
    ],
)
def test_hostile_scalers_are_refused(tmp_path, change):
    path = tmp_path / "m"
    cylstm.save(model(), path)
    description = description_of(path)
    description["scalers"]["x"].update(change)
    description["sha256"] = files._digest(description, model().state_dict())
    with_metadata(path, description)
    with pytest.raises(cylstm.ModelFileError, match="scaler: expected"):
        cylstm.load(path)
    for scalers in (3, {"x": 3}, {"x": None}):
        description["scalers"] = scalers
        with_metadata(path, description)
        with pytest.raises(cylstm.ModelFileError):
            cylstm.load(path)


def test_the_digest_covers_the_scalers(tmp_path, rng):
    path, ours = tmp_path / "m", model()
    cylstm.save(ours, path)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(cylstm.ModelFileError):
            assert configs(cylstm.load(path)) == configs(ours)


def test_a_config_makes_only_its_own_class():
    assert Scaler.from_config(fitted().config).config == fitted().config
    assert StandardScaler.from_config(json.loads(json.dumps(fitted().config))).config == fitted().config
    with pytest.raises(ValueError, match="scaler: expected a MinMaxScaler, got type 'StandardScaler'"):
        MinMaxScaler.from_config(fitted().config)


def peak(function):
    """Bytes of NumPy's arrays that a call has at once."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("shape", [(400_000, 5), (2, 200_000, 5), (2_000_000,), (5, 100, 4_000)])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_scaler_needs_little_memory_beside_its_data(kind, shape, layout):
    x = np.full(shape, 0.5, np.float32, order=layout)
    scaler = kind()
    assert peak(lambda: scaler.fit(x)) < x.nbytes / 2
    assert peak(lambda: scaler.transform(x)) < 1.5 * x.nbytes
    assert peak(lambda: scaler.inverse(x)) < 1.5 * x.nbytes


@pytest.mark.parametrize("shape", [(70_000, 3), (3, 40_000, 2), (40, 3, 3_000), (150_000,), (7, 5)])
def test_data_in_blocks_are_scaled_as_a_whole(rng, shape):
    x = rng.normal(5, 2, shape)
    x[rng.random(shape) < 0.1] = np.nan
    axes = tuple(range(len(shape) - 1)) or None
    mean, deviation = np.nanmean(x, axis=axes), np.nanstd(x, axis=axes)
    scaler = StandardScaler().fit(x)
    np.testing.assert_allclose(scaler.offset, np.atleast_1d(mean), rtol=1e-12)
    np.testing.assert_allclose(scaler.scale, np.atleast_1d(deviation), rtol=1e-12)
    np.testing.assert_allclose(scaler.transform(x), (x - mean) / deviation, rtol=1e-10, atol=1e-12)
    scaler = MinMaxScaler().fit(x)
    np.testing.assert_array_equal(scaler.offset, np.atleast_1d(np.nanmin(x, axis=axes)))


def test_copies_of_a_scaler_cannot_change_each_other():
    scaler = fitted()
    other = copy.copy(scaler)
    with pytest.raises(ValueError, match="read-only"):
        other.offset += 1
    other.fit(np.ones((2, 1)))
    np.testing.assert_array_equal(scaler.offset, fitted().offset)


def scaled_model():
    ours = cylstm.Sequential(cylstm.LSTM(2, 3, seed=0), cylstm.Linear(3, 1, seed=1))
    ours.scalers["x"] = StandardScaler().fit([[860.0, 1.0], [900.0, 5.0]])
    ours.scalers["y"] = StandardScaler().fit([3.0, 8.0])
    return ours


NOT_APPLIED = "the model's scalers, x, y, are not applied: x and y are in scaled units"


@pytest.mark.parametrize("exit_", ["Session", "Stream", "serve", "to_safetensors"])
def test_exits_that_leave_scalers_out_say_so_at_the_callers_line(exit_, tmp_path):
    if exit_ == "serve":
        pytest.importorskip("starlette", reason="starlette is not installed; the server is built on it")
    cylstm.save(scaled_model(), tmp_path / "m")
    loaded = cylstm.load(tmp_path / "m")
    calls = {
        "Session": lambda: cylstm.Session(loaded),
        "Stream": lambda: cylstm.Stream(loaded),
        "serve": lambda: cylstm.serve.application(loaded),
        "to_safetensors": lambda: cylstm.convert.to_safetensors(loaded, tmp_path / "w"),
    }
    with pytest.warns(cylstm.data.ScalersWarning, match=f"^{exit_}: {NOT_APPLIED}") as caught:
        calls[exit_]()
    assert [warning.filename for warning in caught] == [__file__]
    loaded.scalers.clear()
    calls[exit_]()  # without a warning, which would be an error here


def test_networks_compute_alike_in_the_units_of_the_training(rng):
    ours, x = scaled_model(), rng.standard_normal((4, 2, 2)).astype("f4")
    expected = ours(x)[0]
    with pytest.warns(cylstm.data.ScalersWarning):
        session, stream = cylstm.Session(ours), cylstm.Stream(ours, 2)
    np.testing.assert_array_equal(session.run(x)[0], expected)
    np.testing.assert_array_equal(stream.run(x), expected)
    assert sorted(session.scalers) == ["x", "y"]
    np.testing.assert_array_equal(session.scalers["x"].transform([[860.0, 1.0]]), [[-1, -1]])
    for made in (copy.copy(session), pickle.loads(pickle.dumps(session))):  # which have warned before
        np.testing.assert_array_equal(made.run(x)[0], expected)
    over = cylstm.Stream(session, 4)
    assert over.step(x[0, [0, 1, 1]], rows=[0, 2, 3]).shape == (3, 1)


def test_tasks_apply_the_scalers_and_do_not_warn(rng, tmp_path):
    from cylstm.classification import Classifier

    x = rng.normal(500, 20, (30, 6, 2))
    labels = np.where(x[:, :, 0].mean(1) > 500, "up", "down").tolist()
    classifier = Classifier(4)
    classifier.fit((x, labels), epochs=2, progress=False)
    classifier.save(tmp_path / "c")
    assert Classifier.load(tmp_path / "c").predict(x) == classifier.predict(x)
    model = classifier.model
    y, _ = model(model.scalers["x"].transform(x))
    assert [classifier.classes[k] for k in y.argmax(1)] == classifier.predict(x)


def test_an_array_of_objects_is_an_array():
    x = np.array([[1, 2.0], [3, None]], object)
    scaler = StandardScaler().fit(x)
    np.testing.assert_array_equal(scaler.offset, [2, 2])
    np.testing.assert_array_equal(scaler.transform(x), [[-1, 0], [1, np.nan]])
