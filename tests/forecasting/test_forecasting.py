import json

import numpy as np
import pytest

import cylstm
from cylstm import datasets, files
from cylstm.forecasting import Forecaster, baselines
from cylstm.forecasting import training as forecast_training
from cylstm.forecasting.scaling import Scaling
from cylstm.training import CheckpointError, Checkpoints, checkpoints


def quick(values, patience=None, resume=False, **options):
    forecaster = Forecaster(**{"horizon": 3, "hidden_size": 8, "epochs": 1, **options})
    return forecaster.fit(values, patience=patience, resume=resume)


@pytest.fixture(scope="module")
def waves():
    t = np.arange(240)
    noise = np.random.default_rng(0).standard_normal((240, 2)) / 50
    return np.stack([np.sin(t / 3) + 5, 100 * np.cos(t / 5)], axis=1) + noise * [1, 100]


@pytest.mark.parametrize("period", [None, 12])
def test_scaled_targets_turn_back_into_the_values_to_forecast(waves, period):
    scaling = Scaling.fitted(waves, period, horizon=3)
    z, inputs = scaling.inputs(waves, phase=0)
    assert inputs.shape == (240, 4 if period is None else 6)
    np.testing.assert_allclose(inputs[:, :2].std(axis=0), 1, rtol=0.01)
    forecasts = scaling.values(z[:-3], scaling.targets(z), phase=0)
    for h in (1, 2, 3):
        np.testing.assert_allclose(forecasts[:, h - 1], waves[h : h + 237], rtol=1e-9)


def test_zero_output_is_persistence(waves):
    scaling = Scaling.fitted(waves, None, horizon=3)
    z, _ = scaling.inputs(waves, phase=0)
    np.testing.assert_allclose(scaling.values(z, np.zeros((240, 6)), 0), np.repeat(waves[:, None], 3, axis=1))


@pytest.mark.slow
def test_forecaster_learns_pattern(waves):
    n = 190
    forecaster = quick(waves[:n], epochs=4)
    for column in range(2):
        errors = baselines.rmse(forecaster.forecast(waves)[..., column], waves[:, column], n)
        persistence = baselines.rmse(baselines.persistence(waves[:, column], n, 3), waves[:, column], n)
        assert (errors < 0.5 * persistence).all()


def test_forecasts_depend_on_the_past_only(waves):
    forecaster = quick(waves)
    changed = waves.copy()
    changed[150:] += 7
    np.testing.assert_array_equal(forecaster.forecast(changed)[:150], forecaster.forecast(waves)[:150])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(waves):
    one, two, other = (quick(waves, seed=seed).forecast(waves) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_phase_is_the_season_of_the_first_row():
    values = datasets.elnino()[:240, None]
    forecaster = quick(values, period=12)
    np.testing.assert_allclose(
        forecaster.forecast(values[5:], phase=5)[-1], forecaster.forecast(values)[-1], rtol=0.02
    )
    assert np.abs(forecaster.forecast(values[5:])[-1] - forecaster.forecast(values)[-1]).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("patience", [None, 1])
def test_progress_adds_up_to_all_updates(waves, patience):
    calls = []
    forecaster = Forecaster(3, hidden_size=4, epochs=3).fit(waves, patience=patience, progress=calls.append)
    assert sum(calls) == forecaster.updates


@pytest.mark.slow
def test_patience_ends_training_early():
    noise = np.random.default_rng(0).standard_normal((80, 1))
    patient = quick(noise, epochs=12, patience=2)
    curves = patient.training.notes["finished"]
    assert min(map(len, curves)) < 12
    for curve in curves:
        best = int(np.argmin(curve))
        assert len(curve) == min(12, best + 3)
        assert np.isfinite(curve).all()
    k = list(patient.training.validation).index(patient.training.penalty)
    best = [np.argmin(curve) + 1 for curve in curves[2 * k : 2 * k + 2]]
    assert len(patient.training.history.epochs) == round(np.mean(best))
    lowest = [np.mean([min(curves[i]), min(curves[i + 1])]) for i in range(0, 8, 2)]
    assert np.argmin(lowest) == k


def test_penalty_selection_without_patience_uses_last_error(waves):
    training = quick(waves, epochs=2).training
    assert min(training.validation, key=lambda p: training.validation[p][-1]) == training.penalty
    assert [len(curve) for curve in training.validation.values()] == [2] * 4
    assert len(training.history.steps["loss"]) == 100


class Killed(BaseException):
    """As sudden as a kill: nothing catches it."""


def killed_after(updates):
    """A `progress` that ends the training there."""

    def progress(made):
        nonlocal updates
        updates -= made
        if updates <= 0:
            raise Killed

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("patience", [None, 1])
def test_a_training_that_is_killed_goes_on_to_the_same_bits(waves, tmp_path, patience):
    """Killed in and between networks; checkpoints stand in the middle of epochs."""
    options = {"horizon": 3, "hidden_size": 8, "epochs": 3, "seed": 4}
    whole = Forecaster(**options).fit(waves, patience=patience)
    path = tmp_path / "run.ckpt"
    for updates in (50, 150, 150, 200, 450, 350):
        with pytest.raises(Killed):
            Forecaster(**options).fit(
                waves, patience=patience, checkpoints=Checkpoints(path, steps=7), resume=True,
                progress=killed_after(updates + (resumed_at(path) if path.exists() else 0)),
            )  # fmt: skip
        assert path.exists()
    resumed = Forecaster(**options).fit(waves, patience=patience, checkpoints=path, resume=True)
    np.testing.assert_array_equal(resumed.forecast(waves), whole.forecast(waves))
    assert resumed.training.validation == whole.training.validation
    assert resumed.training.history.steps == whole.training.history.steps
    again = Forecaster(**options).fit(waves, patience=patience, checkpoints=path, resume=True)
    np.testing.assert_array_equal(again.forecast(waves), whole.forecast(waves))


def resumed_at(path):
    """Updates that a training resumed from this checkpoint counts as done: those of whole epochs."""
    notes = checkpoints.read(path)[1]["notes"]
    return 50 * (3 * len(notes["finished"]) + len(notes["errors"]))


def test_a_checkpoint_of_another_training_is_refused(waves, tmp_path):
    path = tmp_path / "run.ckpt"
    fit = {"checkpoints": path, "resume": True}
    Forecaster(3, hidden_size=4, epochs=1).fit(waves, **fit)
    for forecaster, values, name in [
        (Forecaster(3, hidden_size=4, epochs=1, seed=1), waves, "seed: expected 1, got 0"),
        (Forecaster(3, hidden_size=4, epochs=2), waves, "epochs: expected 2, got 1"),
        (Forecaster(3, hidden_size=4, epochs=1), waves * 2, "values: differs from that of the checkpoint$"),
    ]:
        with pytest.raises(CheckpointError, match=f"not of this training: {name}"):
            forecaster.fit(values, **fit)
    with pytest.raises(CheckpointError, match="not of this training: patience: expected 3, got None"):
        Forecaster(3, hidden_size=4, epochs=1).fit(waves, patience=3, **fit)
    cylstm.Trainer(cylstm.LSTM(2, 3), cylstm.losses.MSE()).fit(
        (np.zeros((4, 5, 2)), np.zeros((4, 5, 3))), epochs=1, checkpoints=path, progress=False
    )
    with pytest.raises(CheckpointError, match="not of this training: horizon: expected 3, got None"):
        Forecaster(3, hidden_size=4, epochs=1).fit(waves, **fit)
    with pytest.raises(ValueError, match="resume: expected checkpoints"):
        quick(waves, resume=True)


def test_a_file_holds_all_that_forecasting_needs(waves, tmp_path):
    forecaster = quick(waves, period=6)
    forecaster.columns = ["a", "b"]
    forecaster.save(tmp_path / "f.safetensors")
    loaded = Forecaster.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(loaded.forecast(waves), forecaster.forecast(waves))
    assert (loaded.columns, loaded.horizon, loaded.period, loaded.hidden_size) == (["a", "b"], 3, 6, 8)


@pytest.fixture(scope="module")
def saved(waves, tmp_path_factory):
    """The file of a forecaster with columns."""
    forecaster = quick(waves)
    forecaster.columns = ["a", "b"]
    path = tmp_path_factory.mktemp("saved") / "f.safetensors"
    forecaster.save(path)
    return path


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
def test_load_rejects_a_damaged_scaling(saved, tmp_path, field, value):
    model, extra = files.load_with_extra(saved)
    extra["forecaster"][field] = value
    path = tmp_path / "f.safetensors"
    cylstm.save(model, path, extra=extra)
    message = rf"f\.safetensors: a forecaster, but damaged: (seasonal|{field}): expected .*; save the model"
    with pytest.raises(cylstm.ModelFileError, match=message):
        Forecaster.load(path)


def test_load_rejects_a_network_alone(tmp_path):
    cylstm.save(cylstm.LSTM(2, 3), tmp_path / "m.safetensors")
    with pytest.raises(cylstm.ModelFileError, match=r"expected a forecaster, got a network \(LSTM\) alone"):
        Forecaster.load(tmp_path / "m.safetensors")


def test_a_constant_series_is_forecast_as_it_is(tmp_path):
    values = np.full((100, 1), 7.0)
    forecaster = quick(values)
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
def test_fit_rejects_unusable_values(values, message):
    with pytest.raises(ValueError, match=message):
        quick(values)


def test_least_rows_suffice():
    for horizon, period in [(1, None), (12, 12), (7, 30), (3, 1)]:
        forecaster = Forecaster(horizon, period, hidden_size=2, epochs=1)
        values = np.random.default_rng(0).standard_normal((forecaster.min_rows, 1))
        assert np.isfinite(forecaster.fit(values).forecast(values)).all()


def test_order_of_calls_is_checked(waves, tmp_path):
    with pytest.raises(RuntimeError, match="not fitted"):
        Forecaster().forecast(waves)
    with pytest.raises(RuntimeError, match="not fitted"):
        Forecaster().save(tmp_path / "f")
    with pytest.raises(ValueError, match="expected 2 columns, got 1"):
        quick(waves).forecast(waves[:, :1])


def test_forecast_rejects_values_far_from_the_training_rows(waves):
    forecaster = quick(waves)
    values = waves.copy()
    values[7, 0] = 1e60
    with pytest.raises(ValueError, match=r"row 8 is more than 1e\+18 deviations from the mean"):
        forecaster.forecast(values)


def test_likely_phase_minimizes_the_variance_of_anomalies():
    """Against the definition, with two series, a shift of all rows and no whole number of seasons."""
    rng = np.random.default_rng(0)
    season = rng.standard_normal((7, 2)) * [1, 5]
    rows = season[np.arange(140) % 7] + rng.normal(0, 0.1, (140, 2))
    forecaster = Forecaster(2, period=7, hidden_size=4, epochs=1).fit(rows)
    scaling = Scaling.fitted(rows, 7, 2)
    later = rows[3:28] + np.array([2, -3])
    expected = []
    for phase in range(7):
        z = (later - scaling.seasonal[(np.arange(25) + phase) % 7]) / scaling.scale
        expected.append(z.var(axis=0).mean())
    np.testing.assert_allclose(scaling.variance_by_phase(later), expected, rtol=1e-9)
    assert [forecaster.likely_phase(later, phase) for phase in (0, 3, 10, -1)] == [3, 3, 3, 3]
    assert forecaster.likely_phase(later[:6], 9) == 2  # too few rows to say
    assert forecaster.likely_phase(rng.standard_normal((25, 2)), 5) == 5


def test_a_training_that_fails_leaves_the_best_network_so_far(waves, monkeypatch):
    """In its third network: the first two were trained on other parts of the rows."""
    build, made = forecast_training._network, []

    def failing(*arguments):
        made.append(build(*arguments))
        if len(made) == 3:
            raise MemoryError
        return made[-1]

    monkeypatch.setattr(forecast_training, "_network", failing)
    forecaster = Forecaster(3, hidden_size=4, epochs=1)
    with pytest.raises(MemoryError):
        forecaster.fit(waves)
    assert forecaster.is_fitted
    expected, _ = made[1](forecaster._fitted[1].inputs(waves, 0)[1])
    found, _ = forecaster._fitted[0](forecaster._fitted[1].inputs(waves, 0)[1])
    np.testing.assert_array_equal(found, expected)  # the network of more rows


@pytest.mark.slow
def test_resume_after_failed_validation_is_bit_identical(waves, tmp_path, monkeypatch):
    whole = Forecaster(3, hidden_size=4, epochs=3).fit(waves)
    error, calls = forecast_training.error, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 5:  # the second epoch of the second network
            raise MemoryError
        return error(*arguments)

    monkeypatch.setattr(forecast_training, "error", failing)
    resumed = Forecaster(3, hidden_size=4, epochs=3)
    with pytest.raises(MemoryError) as caught:
        resumed.fit(waves, checkpoints=tmp_path / "run.ckpt")
    assert len(caught.value.history.epochs) == 2
    resumed.fit(waves, checkpoints=tmp_path / "run.ckpt", resume=True)
    np.testing.assert_array_equal(resumed.forecast(waves), whole.forecast(waves))
    assert resumed.training.validation == whole.training.validation


def test_a_training_of_other_patience_is_refused(waves, tmp_path):
    saved = {"checkpoints": tmp_path / "run.ckpt", "resume": True}
    Forecaster(3, hidden_size=4, epochs=2).fit(waves, patience=1, **saved)
    with pytest.raises(CheckpointError, match="patience: expected 2, got 1"):
        Forecaster(3, hidden_size=4, epochs=2).fit(waves, patience=2, **saved)
    with pytest.raises(CheckpointError, match="epochs: expected 3, got 2"):
        Forecaster(3, hidden_size=4, epochs=3).fit(waves, patience=1, **saved)
