import numpy as np
import pytest

from cylstm import baselines, datasets

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
    """Changing what comes after a row changes no forecast made at it, nor learnt from before it."""
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
