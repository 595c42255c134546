import json

import numpy as np
import pytest

import cylstm
from cylstm import baselines, datasets, files
from cylstm.forecasting import Forecaster, Scaling


def quick(values, **options):
    return Forecaster(**{"horizon": 3, "hidden_size": 8, "updates": 30, **options}).fit(values)


@pytest.fixture(scope="module")
def waves():
    t = np.arange(240)
    noise = np.random.default_rng(0).standard_normal((240, 2)) / 50
    return np.stack([np.sin(t / 3) + 5, 100 * np.cos(t / 5)], axis=1) + noise * [1, 100]


@pytest.mark.parametrize("period", [None, 12])
def test_scaled_targets_turn_back_into_the_values_to_forecast(waves, period):
    scaling = Scaling.learnt(waves, period, horizon=3)
    z, inputs = scaling.inputs(waves, phase=0)
    assert inputs.shape == (240, 4 if period is None else 6)
    np.testing.assert_allclose(inputs[:, :2].std(axis=0), 1, rtol=0.01)
    forecasts = scaling.values(z[:-3], scaling.targets(z), phase=0)
    for h in (1, 2, 3):
        np.testing.assert_allclose(forecasts[:, h - 1], waves[h : h + 237], rtol=1e-9)


def test_nothing_said_by_the_network_is_persistence(waves):
    scaling = Scaling.learnt(waves, None, horizon=3)
    z, _ = scaling.inputs(waves, phase=0)
    np.testing.assert_allclose(scaling.values(z, np.zeros((240, 6)), 0), np.repeat(waves[:, None], 3, axis=1))


def test_it_learns_what_is_there_to_learn(waves):
    n = 190
    forecaster = quick(waves[:n], updates=200)
    for column in range(2):
        errors = baselines.rmse(forecaster.forecast(waves)[..., column], waves[:, column], n)
        persistence = baselines.rmse(baselines.persistence(waves[:, column], n, 3), waves[:, column], n)
        assert (errors < 0.5 * persistence).all()


def test_forecasts_depend_on_the_past_only(waves):
    forecaster = quick(waves)
    changed = waves.copy()
    changed[150:] += 7
    np.testing.assert_array_equal(forecaster.forecast(changed)[:150], forecaster.forecast(waves)[:150])


def test_the_same_seed_gives_the_same_bits(waves):
    one, two, other = (quick(waves, seed=seed).forecast(waves) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_phase_says_in_which_season_the_rows_begin():
    values = datasets.elnino()[:240, None]
    forecaster = quick(values, period=12)
    np.testing.assert_allclose(
        forecaster.forecast(values[5:], phase=5)[-1], forecaster.forecast(values)[-1], rtol=0.02
    )
    assert np.abs(forecaster.forecast(values[5:])[-1] - forecaster.forecast(values)[-1]).max() > 1


def test_progress_is_told_once_for_every_update(waves):
    calls = []
    forecaster = Forecaster(3, hidden_size=4, updates=5).fit(waves, lambda: calls.append(1))
    assert len(calls) == forecaster.fits


def test_a_file_holds_all_that_forecasting_needs(waves, tmp_path):
    forecaster = quick(waves, period=6)
    forecaster.columns = ["a", "b"]
    forecaster.save(tmp_path / "f.safetensors")
    loaded = Forecaster.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(loaded.forecast(waves), forecaster.forecast(waves))
    assert (loaded.columns, loaded.horizon, loaded.period, loaded.hidden_size) == (["a", "b"], 3, 6, 8)


@pytest.mark.parametrize("field", ["seasonal", "scale", "step_scale", "change_scale", "columns"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        [[1.0]],
        "x",
        [2],
        [1e-400, None],
        [0.0, 1.0],
        [-1.0, 1.0],
        [10**400, 1],
        {"a": 1},
        [[1.0], [2.0, 3.0]],
    ],
)
def test_a_damaged_scaling_is_refused(waves, tmp_path, field, value):
    forecaster = quick(waves, updates=1)
    forecaster.columns = ["a", "b"]
    path = tmp_path / "f.safetensors"
    forecaster.save(path)
    model, extra = files.load_with_extra(path)
    extra["forecaster"][field] = value
    cylstm.save(model, path, extra=extra)
    with pytest.raises(cylstm.ModelFileError, match="none that `cylstm train` made"):
        Forecaster.load(path)


def test_a_model_without_scaling_is_no_forecaster(tmp_path):
    cylstm.save(cylstm.LSTM(2, 3), tmp_path / "m.safetensors")
    with pytest.raises(cylstm.ModelFileError, match="none that `cylstm train` made"):
        Forecaster.load(tmp_path / "m.safetensors")


def test_a_constant_series_is_forecast_as_it_is(tmp_path):
    values = np.full((100, 1), 7.0)
    forecaster = quick(values, updates=5)
    np.testing.assert_allclose(forecaster.forecast(values), 7.0, atol=0.5)
    forecaster.save(tmp_path / "f.safetensors")
    json.dumps(files.load_with_extra(tmp_path / "f.safetensors")[1], allow_nan=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((19, 1)), "expected at least 20 rows for horizon 3 and period None, got 19"),
        (np.zeros(100), r"expected \(rows, columns\), got \(100,\)"),
        (np.full((100, 1), np.nan), "expected finite numbers"),
        (np.full((100, 1), 1e200), "expected finite numbers below 1e\\+100"),
    ],
)
def test_values_that_cannot_be_learnt_from_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        quick(values)


def test_the_least_rows_are_enough():
    for horizon, period in [(1, None), (12, 12), (7, 30), (3, 1)]:
        forecaster = Forecaster(horizon, period, hidden_size=2, updates=2)
        values = np.random.default_rng(0).standard_normal((forecaster.least_rows, 1))
        assert np.isfinite(forecaster.fit(values).forecast(values)).all()


def test_order_of_calls_is_checked(waves, tmp_path):
    with pytest.raises(RuntimeError, match="not fitted"):
        Forecaster().forecast(waves)
    with pytest.raises(RuntimeError, match="not fitted"):
        Forecaster().save(tmp_path / "f")
    with pytest.raises(ValueError, match="expected 2 columns, got 1"):
        quick(waves, updates=1).forecast(waves[:, :1])


def test_values_far_from_those_learnt_from_are_refused(waves):
    forecaster = quick(waves, updates=1)
    values = waves.copy()
    values[7, 0] = 1e60
    with pytest.raises(ValueError, match=r"row 8 is more than 1e\+18 deviations from the mean"):
        forecaster.forecast(values)
