import numpy as np
import pytest

from cylstm import datasets
from cylstm.forecasting import baselines

VALUES = datasets.elnino()
N_TRAIN = 585


@pytest.mark.parametrize(
    ("forecasts", "expected"),
    [
        (baselines.persistence(VALUES, N_TRAIN, 12), [1.164, 2.979, 4.081, 1.145]),
        (baselines.seasonal_naive(VALUES, N_TRAIN, 12, 12), [1.438, 1.378, 1.279, 1.145]),
        (baselines.autoregression(VALUES, N_TRAIN, 12, 24), [0.501, 0.918, 0.983, 0.914]),
    ],
)
def test_errors_on_elnino_are_the_known_ones(forecasts, expected):
    errors = baselines.rmse(forecasts, VALUES, N_TRAIN)[[0, 2, 5, 11]]
    np.testing.assert_allclose(errors, expected, atol=5e-4)


def test_forecasts_do_not_look_ahead():
    """Later rows change neither the forecasts of a row nor the training before it."""
    t, changed = 600, VALUES.copy()
    changed[t + 1 :] += 100
    for function, arguments in [
        (baselines.persistence, ()),
        (baselines.seasonal_naive, (12,)),
        (baselines.autoregression, (24,)),
        (baselines.climatology, (12,)),
        (baselines.autoregression_of_anomalies, (24, 12)),
    ]:
        before = function(VALUES, N_TRAIN, 30, *arguments)[: t + 1]
        np.testing.assert_array_equal(function(changed, N_TRAIN, 30, *arguments)[: t + 1], before)
        assert np.isfinite(before[30:]).all()


def test_a_perfect_season_is_forecast_without_error():
    values = np.tile([3.0, 1.0, 2.0], 20)
    for forecasts in (baselines.seasonal_naive(values, 30, 7, 3), baselines.climatology(values, 30, 7, 3)):
        np.testing.assert_allclose(baselines.rmse(forecasts, values, 30), 0, atol=1e-12)


def test_an_autoregression_recovers_its_own_process():
    values = np.zeros(60)
    values[:2] = [1.0, 0.5]
    for t in range(2, 60):
        values[t] = 1.2 * values[t - 1] - 0.8 * values[t - 2] + 0.1
    errors = baselines.rmse(baselines.autoregression(values, 40, 3, 2), values, 40)
    np.testing.assert_allclose(errors, 0, atol=1e-10)
    assert np.isnan(baselines.autoregression(values, 4, 3, 2)).all()  # too few rows to learn from


def test_mean_absolute_errors_are_of_the_same_forecasts():
    forecasts = np.arange(12.0).reshape(6, 2)
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(baselines.mae(forecasts, values, 4), [(2 + 3) / 2, 2])
    np.testing.assert_allclose(baselines.rmse(forecasts, values, 4), [np.sqrt((4 + 9) / 2), 2])
    assert np.isnan(baselines.mae(forecasts, values, 6)).all()


def test_an_autoregression_is_least_squares_for_each_horizon(rng):
    values, n, lags = rng.standard_normal(60).cumsum(), 45, 5
    forecasts = baselines.autoregression(values, n, 7, lags)
    for h in range(1, 8):
        made = np.arange(lags - 1, n - h)
        x = np.column_stack([np.ones(len(made)), *(values[made - k] for k in range(lags))])
        weights = np.linalg.lstsq(x, values[made + h], rcond=None)[0]
        expected = weights[0] + values[59 : 59 - lags : -1] @ weights[1:]
        assert forecasts[59, h - 1] == pytest.approx(expected, rel=1e-9)


def test_seasonal_baseline_needs_a_full_season():
    assert np.isnan(baselines.seasonal_naive(np.arange(5.0), 4, 3, 12)).all()
