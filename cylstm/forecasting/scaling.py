"""Departures of series from their seasons: what the forecaster's network reads, and what it says."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cylstm.forecasting import baselines

Array = NDArray[np.float64]
FURTHEST = 1e18  # in standard deviations: squares of larger inputs overflow the network's float32


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What turns values (N, C) into inputs and outputs of the network, and back.

    Parameters
    ----------
    seasonal : (period, C) means of the seasons; one row without a season.
    scale : (C,) standard deviation of the departures from them.
    step_scale : (C,) standard deviation of their changes in one step, in units of `scale`.
    change_scale : (horizon, C) standard deviation of their changes in h steps, likewise.
    """

    seasonal: Array
    scale: Array
    step_scale: Array
    change_scale: Array

    @classmethod
    def learnt(cls, values: Array, period: int | None, horizon: int) -> "Scaling":
        """From rows that may be learnt from."""
        seasonal = np.stack(
            [baselines.seasonal_means(column, len(values), period or 1) for column in values.T], axis=1
        )
        departures = values - seasonal[np.arange(len(values)) % len(seasonal)]
        scale = _deviation(departures)
        z = departures / scale
        changes = [_deviation(z[h:] - z[:-h]) for h in range(1, horizon + 1)]
        return cls(seasonal, scale, changes[0], np.stack(changes))

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
                "of the rows learnt from; expected values of the same kind"
            )
        return z, inputs

    def departures_by_phase(self, values: Array) -> Array:
        """Variance of the scaled departures of values (N, C) by the season of row 0, (period,)."""
        period = len(self.seasonal)
        z, means = values / self.scale, self.seasonal / self.scale
        z = z - z.mean(axis=0)
        counts = np.bincount(np.arange(len(z)) % period, minlength=period)
        sums = np.stack([z[season::period].sum(axis=0) for season in range(period)])
        variances = np.empty(period)
        for phase in range(period):
            moved = np.roll(means, -phase, axis=0)
            moved = moved - counts @ moved / len(z)
            squares = (z**2).sum() - 2 * (sums * moved).sum() + (counts @ moved**2).sum()
            variances[phase] = squares / z.size
        return variances

    def targets(self, z: Array) -> Array:
        """(N - horizon, horizon * C), the scaled changes."""
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


def _deviation(values: Array) -> Array:
    """Standard deviation of each column; 1 for one that does not vary."""
    deviation = values.std(axis=0)
    varies = deviation > 1e-12 * np.abs(values).max(axis=0, initial=0)
    return np.where(varies, deviation, 1.0)
