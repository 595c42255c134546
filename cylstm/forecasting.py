"""Forecasting of time series: an LSTM that predicts the next values at every step.

The inputs of a step are, for each series, its departure from the mean of the season and
the last change of it, and the season itself as a point on a circle. The outputs are
the changes from now to 1, 2, … `horizon` steps ahead, so that a network which says nothing
is the persistence forecast. All scales come from the rows that may be learnt from, and go with
the model into its file.

Overfitting is the difficulty with a few hundred rows. The strength of the L2 penalty is
therefore chosen on the end of those rows, in two blocks of which each is forecast by a network trained on the
rows before it; then one network is trained on all of them.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks, baselines, files
from cylstm.layers.linear import Linear
from cylstm.layers.sequential import Sequential
from cylstm.losses import MSE
from cylstm.optim import Adam, clip_grad_norm
from cylstm.rnn import LSTM

Array = NDArray[np.float64]
PENALTIES = (1e-4, 1e-3, 1e-2, 5e-2)
BLOCKS = ((0.6, 0.8), (0.8, 1.0))  # learn from the rows before the first, be judged up to the second
WINDOW, BATCH, LEARNING_RATE, CLIP_NORM = 120, 16, 3e-3, 1.0
LARGEST = 1e100  # squares of larger values overflow
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


class Forecaster:
    """Forecasts of one or several series, at every step for the next `horizon` steps.

    Parameters
    ----------
    horizon : int
        Steps ahead.
    period : int, optional
        Rows in a season, 12 for months of a year. None: no season.
    hidden_size : int
        Units of the LSTM.
    updates : int
        Optimiser steps for each network, of 16 windows of up to 120 rows.
    seed : int
        Of the initial weights and the choice of windows.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.forecasting import Forecaster
    >>> values = np.sin(np.arange(200) / 3)[:, None]
    >>> forecaster = Forecaster(horizon=2, hidden_size=8, updates=50).fit(values)
    >>> forecaster.forecast(values).shape
    (200, 2, 1)
    """

    def __init__(
        self,
        horizon: int = 12,
        period: int | None = None,
        hidden_size: int = 32,
        updates: int = 400,
        seed: int = 0,
    ) -> None:
        self.horizon = _checks.positive("horizon", horizon)
        self.period = None if period is None else _checks.positive("period", period)
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.updates = _checks.positive("updates", updates)
        _checks.generator(seed)
        self.seed = seed
        self.columns: list[str] = []
        self.penalty: float | None = None
        self._fitted: tuple[Sequential, Scaling] | None = None

    @property
    def fits(self) -> int:
        """How many updates `fit` makes, for a progress bar."""
        return self.updates * (len(PENALTIES) * len(BLOCKS) + 1)

    @property
    def least_rows(self) -> int:
        """How many rows `fit` needs."""
        shortest = self.horizon + max(self.period or 0, 8)
        return math.ceil(max(shortest / BLOCKS[0][0], 5 * self.horizon)) + 1

    def fit(self, values: Any, progress: Callable[[], Any] = lambda: None) -> "Forecaster":
        """Learn from all rows.

        Parameters
        ----------
        values : array
            (N, C): C series in columns, in order of time.
        progress : callable
            Called after every optimiser step; there are `fits` of them.

        Raises
        ------
        ValueError
            If there are fewer than `least_rows` rows, or values that are not finite.
        """
        values = self._checked(values)
        if len(values) < self.least_rows:
            raise ValueError(
                f"values: expected at least {self.least_rows} rows for horizon {self.horizon} and "
                f"period {self.period}, got {len(values)}; choose a smaller horizon or period"
            )
        self.penalty = min(PENALTIES, key=lambda penalty: self._validation_error(values, penalty, progress))
        self._fitted = self._train(values, self.penalty, progress)
        return self

    def _validation_error(self, values: Array, penalty: float, progress: Callable[[], Any]) -> float:
        """RMSE in units of each series' deviation, averaged over horizons, series and blocks."""
        errors = []
        for begin, end in ((int(a * len(values)), int(b * len(values))) for a, b in BLOCKS):
            model, scaling = self._train(values[:begin], penalty, progress)
            forecasts = _forecast(model, scaling, values[:end], 0)
            for column, scale in enumerate(scaling.scale):
                errors.append(baselines.rmse(forecasts[..., column], values[:end, column], begin) / scale)
        return float(np.mean(errors))

    def _train(
        self, values: Array, penalty: float, progress: Callable[[], Any]
    ) -> tuple[Sequential, Scaling]:
        """One network for these rows: Adam on random windows, the rate falling to zero as a cosine."""
        scaling = Scaling.learnt(values, self.period, self.horizon)
        z, inputs = scaling.inputs(values, 0)
        x, target = inputs.astype(np.float32), scaling.targets(z).astype(np.float32)
        model = Sequential(
            LSTM(x.shape[1], self.hidden_size, seed=self.seed),
            Linear(self.hidden_size, target.shape[1], seed=self.seed),
        )
        start = model.state_dict()
        start["1.weight"][...], start["1.bias"][...] = 0, 0  # begin as the persistence forecast
        model.load_state_dict(start)
        model.train()
        loss, adam = MSE(), Adam(weight_decay=penalty)
        rng = _checks.generator(self.seed)
        length = min(WINDOW, len(target))
        for update in range(self.updates):
            first = rng.integers(0, len(target) - length + 1, BATCH)
            window = first + np.arange(length)[:, None]  # (T, B) rows
            y, _ = model(x[window])
            _, dy = loss(y, target[window])
            model.zero_grad()
            model.backward(dy, need_dx=False)
            clip_grad_norm(model, CLIP_NORM)
            adam.lr = LEARNING_RATE * (1 + math.cos(math.pi * update / self.updates)) / 2
            adam.step(model)
            progress()
        model.eval()
        return model, scaling

    def forecast(self, values: Any, phase: int = 0) -> Array:
        """Forecasts made at every row, from that row and all before it.

        Parameters
        ----------
        values : array
            (N, C), from the first row on.
        phase : int
            Season of the first row, counted from that of the first row of the training data.

        Returns
        -------
        ndarray
            (N, horizon, C); element [t, h-1] is for row t+h.
        """
        if self._fitted is None:
            raise RuntimeError("forecast: not fitted; call fit first, or load a model file")
        model, scaling = self._fitted
        values = self._checked(values)
        if values.shape[1] != len(scaling.scale):
            raise ValueError(f"values: expected {len(scaling.scale)} columns, got {values.shape[1]}")
        return _forecast(model, scaling, values, phase)

    def _checked(self, values: Any) -> Array:
        array = _checks.real_array("values", values).astype(np.float64)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"values: expected (rows, columns), got {array.shape}")
        if not (np.abs(array) < LARGEST).all():
            raise ValueError(f"values: expected finite numbers below {LARGEST:g} in size")
        return array

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network and scaling to one file, atomically."""
        if self._fitted is None:
            raise RuntimeError("save: not fitted; call fit first")
        model, scaling = self._fitted
        arrays = {field.name: getattr(scaling, field.name).tolist() for field in dataclasses.fields(scaling)}
        files.save(model, path, extra={"forecaster": {"columns": self.columns, **arrays}})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Forecaster":
        """Read what `save` wrote.

        Raises
        ------
        ModelFileError
            If the file is damaged, or holds no forecaster.
        """
        model, extra = files.load_with_extra(path)
        try:
            stored = extra["forecaster"]
            scaling = Scaling(
                *(np.array(stored[field.name], np.float64) for field in dataclasses.fields(Scaling))
            )
            columns = stored["columns"]
            horizon, C = scaling.change_scale.shape
            features = 2 * C + (2 if len(scaling.seasonal) > 1 else 0)
            fits = (
                isinstance(model, Sequential)
                and isinstance(model.layers[0], LSTM)
                and (model.input_size, model.output_size) == (features, horizon * C)
                and scaling.seasonal.ndim == 2
                and scaling.seasonal.shape[1:] == scaling.scale.shape == scaling.step_scale.shape == (C,)
                and isinstance(columns, list)
                and all(getattr(scaling, name).min() > 0 for name in ("scale", "step_scale", "change_scale"))
                and len(columns) in (0, C)
                and all(isinstance(name, str) for name in columns)
                and all(
                    np.isfinite(getattr(scaling, field.name)).all() for field in dataclasses.fields(scaling)
                )
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            fits = False
        if not fits or not isinstance(model, Sequential):
            raise files.ModelFileError(f"{path}: holds a model, but none that `cylstm train` made")
        period = len(scaling.seasonal) if len(scaling.seasonal) > 1 else None
        forecaster = cls(horizon, period, model.layers[0].output_size)
        forecaster.columns, forecaster._fitted = columns, (model, scaling)
        return forecaster


def _forecast(model: Sequential, scaling: Scaling, values: Array, phase: int) -> Array:
    z, inputs = scaling.inputs(values, phase)
    outputs, _ = model(inputs)
    return scaling.values(z, outputs.astype(np.float64), phase)


def _deviation(values: Array) -> Array:
    """Standard deviation of each column; 1 for one that does not vary."""
    deviation = values.std(axis=0)
    varies = deviation > 1e-12 * np.abs(values).max(axis=0, initial=0)
    return np.where(varies, deviation, 1.0)
