"""`Forecaster`: series in, forecasts out."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks, files
from cylstm.data.series import LARGEST
from cylstm.forecasting.scaling import Scaling
from cylstm.forecasting.training import BLOCKS, PENALTIES, UPDATES, ForecastTraining, forecasts
from cylstm.layers.base import Layer
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.lstm import LSTM
from cylstm.training import Checkpoints

Array = NDArray[np.float64]


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
    epochs : int
        Of each network: 50 optimiser steps on 16 windows of up to 120 rows.
    seed : int
        Of the initial weights and the choice of windows.

    Attributes
    ----------
    columns : list of str
        Names of the series, for the file; none by default.
    training : ForecastTraining
        Set by `fit`: `penalty`, the chosen one; `validation`, the errors by epoch of each; `history`, of the
        network that was kept.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.forecasting import Forecaster
    >>> values = np.sin(np.arange(200) / 3)[:, None]
    >>> forecaster = Forecaster(horizon=2, hidden_size=8, epochs=1).fit(values)
    >>> forecaster.forecast(values).shape
    (200, 2, 1)
    """

    training: ForecastTraining

    def __init__(
        self,
        horizon: int = 12,
        period: int | None = None,
        hidden_size: int = 32,
        epochs: int = 8,
        seed: int = 0,
    ) -> None:
        self.horizon = _checks.positive("horizon", horizon)
        self.period = None if period is None else _checks.positive("period", period)
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.epochs = _checks.positive("epochs", epochs)
        _checks.generator(seed)
        self.seed = seed
        self.columns: list[str] = []
        self._fitted: tuple[Sequential, Scaling] | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether it can forecast."""
        return self._fitted is not None

    @property
    def updates(self) -> int:
        """How many updates `fit` makes at most, for a progress bar."""
        return UPDATES * self.epochs * (len(PENALTIES) * len(BLOCKS) + 1)

    @property
    def least_rows(self) -> int:
        """How many rows `fit` needs."""
        shortest = self.horizon + max(self.period or 0, 8)
        return math.ceil(max(shortest / BLOCKS[0][0], 5 * self.horizon)) + 1

    def __repr__(self) -> str:
        """As it was constructed."""
        from cylstm._reprs import as_constructed

        return as_constructed(self)

    def fit(
        self,
        values: Any,
        *,
        patience: int | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: Callable[[int], Any] = lambda updates: None,
    ) -> "Forecaster":
        """Learn from all rows.

        Parameters
        ----------
        values : array
            (N, C): C series in columns, in order of time.
        patience : int, optional
            End the training of each network that chooses the penalty after so many epochs without a lower
            error on its block, and train the last one for as many epochs as were best there.
        checkpoints : Checkpoints or path, optional
            A path alone: every 10 minutes; always after each network, and at Ctrl-C.
        resume : bool
            Go on from the checkpoint if there is one, to the same bits as if there had been no break.
        progress : callable
            Called with the number of updates since the last call; they add up to `updates`.

        Raises
        ------
        ValueError
            If there are fewer than `least_rows` rows, or values that are not finite.
        CheckpointError
            If the checkpoint to go on from is damaged, or of another training.
        KeyboardInterrupt
            At Ctrl-C.

        Notes
        -----
        If the training ends with an exception after its first network is finished, the forecaster has the
        best network so far, which may have learned from fewer rows.
        """
        values = self._checked(values)
        if len(values) < self.least_rows:
            raise ValueError(
                f"values: expected at least {self.least_rows} rows for horizon {self.horizon} and "
                f"period {self.period}, got {len(values)}; choose a smaller horizon or period"
            )
        settings = {
            name: getattr(self, name) for name in ("horizon", "period", "hidden_size", "epochs", "seed")
        }
        settings["patience"] = None if patience is None else _checks.positive("patience", patience)
        saved = Checkpoints.of(checkpoints, resume)
        training = ForecastTraining(settings, values, saved, resume, progress)
        try:
            self._fitted = training.run()
        except BaseException:
            self._fitted = training.network or self._fitted
            raise
        self.training = training
        return self

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
        return forecasts(model, scaling, values, phase % len(scaling.seasonal))

    def likely_phase(self, values: Any, phase: int = 0) -> int:
        """The phase for which values (N, C) are clearly nearer to the means of the seasons than for this one.

        Clearly: with half of the mean squared departure, without what all rows depart by. If there is none,
        or less than one season of rows, `phase` itself, in [0, period).
        """
        if self._fitted is None:
            raise RuntimeError("likely_phase: not fitted; call fit first, or load a model file")
        scaling, values = self._fitted[1], self._checked(values)
        phase %= len(scaling.seasonal)
        if len(values) < len(scaling.seasonal):
            return phase
        departures = scaling.departures_by_phase(values)
        best = int(departures.argmin())
        return best if departures[best] < departures[phase] / 2 else phase

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
        return cls.of(path, *files.load_with_extra(path))

    @classmethod
    def of(cls, path: str | os.PathLike[str], model: Layer, extra: Mapping[str, Any]) -> "Forecaster":
        """That of a file whose content has been read (`files.load_with_extra`).

        Raises
        ------
        ModelFileError
            If the file, which it names, holds no forecaster.
        """
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
            raise files.ModelFileError(f"{path}: holds a model, but no forecaster")
        period = len(scaling.seasonal) if len(scaling.seasonal) > 1 else None
        forecaster = cls(horizon, period, model.layers[0].output_size)
        forecaster.columns, forecaster._fitted = columns, (model, scaling)
        return forecaster
