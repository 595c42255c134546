"""Scaling of series to the inputs of the forecaster's network, and of its outputs to forecasts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._checks import shown
from cylstm.forecasting import baselines

Array = NDArray[np.float64]
FURTHEST = 1e18  # in standard deviations: squares of larger inputs overflow the network's float32


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Conversion of values (N, C) to inputs and targets of the network, and of its outputs to forecasts.

    Parameters
    ----------
    seasonal : (period, C) means of the seasons; one row without a season.
    scale : (C,) standard deviation of the anomalies, the differences from them.
    step_scale : (C,) standard deviation of their changes in one step, in units of `scale`.
    change_scale : (horizon, C) standard deviation of their changes in h steps, in units of `scale`.
    """

    seasonal: Array
    scale: Array
    step_scale: Array
    change_scale: Array

    @classmethod
    def fitted(cls, values: Array, period: int | None, horizon: int) -> "Scaling":
        """The scaling of training rows."""
        seasonal = np.stack(
            [baselines.seasonal_means(column, len(values), period or 1) for column in values.T], axis=1
        )
        anomalies = values - seasonal[np.arange(len(values)) % len(seasonal)]
        scale = _deviation(anomalies)
        z = anomalies / scale
        changes = [_deviation(z[h:] - z[:-h]) for h in range(1, horizon + 1)]
        return cls(seasonal, scale, changes[0], np.stack(changes))

    @property
    def config(self) -> dict[str, Any]:
        """JSON values to save."""
        return {field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Scaling":
        """The scaling of saved values; a KeyError or ValueError if one is missing or does not fit."""
        scaling = cls(*(_finite(field.name, config[field.name]) for field in dataclasses.fields(cls)))
        if scaling.change_scale.ndim != 2:
            raise ValueError(f"change_scale: expected (horizon, columns), got {scaling.change_scale.shape}")
        C = scaling.change_scale.shape[1]
        shapes = {"seasonal": (*scaling.seasonal.shape[:1], C), "scale": (C,), "step_scale": (C,)}
        for name, shape in shapes.items():
            if getattr(scaling, name).shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {getattr(scaling, name).shape}")
        for name in ("scale", "step_scale", "change_scale"):
            if getattr(scaling, name).min() <= 0:
                raise ValueError(f"{name}: expected values above 0")
        return scaling

    def inputs(self, values: Array, phase: int) -> tuple[Array, Array]:
        """z (N, C), and the network's inputs (N, features); row 0 is in season `phase`."""
        seasons = (np.arange(len(values)) + phase) % len(self.seasonal)
        z = (values - self.seasonal[seasons]) / self.scale
        steps = np.diff(z, axis=0, prepend=z[:1]) / self.step_scale
        angle = 2 * np.pi * seasons / len(self.seasonal)
        circle = [np.sin(angle), np.cos(angle)] if len(self.seasonal) > 1 else []
        inputs = np.column_stack([z, steps, *circle])
        far = ~(np.abs(inputs) < FURTHEST).all(axis=1)
        if far.any():
            raise ValueError(
                f"values: row {int(np.argmax(far)) + 1} is more than {FURTHEST:g} deviations from the mean "
                "of the training rows; expected values of the same kind"
            )
        return z, inputs

    def variance_by_phase(self, values: Array) -> Array:
        """Variance of the scaled anomalies of values (N, C) by the season of row 0, (period,)."""
        period = len(self.seasonal)
        z, means = values / self.scale, self.seasonal / self.scale
        z = z - z.mean(axis=0)
        counts = np.bincount(np.arange(len(z)) % period, minlength=period)
        sums = np.stack([z[season::period].sum(axis=0) for season in range(period)])
        variances = np.empty(period)
        for phase in range(period):
            shifted = np.roll(means, -phase, axis=0)
            shifted = shifted - counts @ shifted / len(z)
            squares = (z**2).sum() - 2 * (sums * shifted).sum() + (counts @ shifted**2).sum()
            variances[phase] = squares / z.size
        return variances

    def targets(self, z: Array) -> Array:
        """The scaled changes, (N - horizon, horizon * C)."""
        horizon, rows = len(self.change_scale), len(z) - len(self.change_scale)
        ahead = np.arange(rows)[:, None] + np.arange(1, horizon + 1)
        targets: Array = ((z[ahead] - z[:rows, None]) / self.change_scale).reshape(rows, -1)
        return targets

    def values(self, z: Array, outputs: Array, phase: int) -> Array:
        """Forecasts (N, horizon, C) from the network's outputs."""
        horizon = len(self.change_scale)
        ahead = z[:, None] + outputs.reshape(len(z), horizon, -1) * self.change_scale
        seasons = np.arange(len(z))[:, None] + np.arange(1, horizon + 1) + phase
        forecasts: Array = ahead * self.scale + self.seasonal[seasons % len(self.seasonal)]
        return forecasts


def _finite(name: str, values: Any) -> Array:
    """An array of saved numbers; a ValueError if there are none, or others."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected numbers, got {shown(values)}") from None
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {shown(values)}")
    return array


def _deviation(values: Array) -> Array:
    """Standard deviation of each column; 1 for a constant column."""
    deviation = values.std(axis=0)
    varies = deviation > 1e-12 * np.abs(values).max(axis=0, initial=0)
    return np.where(varies, deviation, 1.0)
