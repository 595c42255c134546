"""`Forecaster`: forecasts of time series."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm.data.series import LARGEST
from cylstm.files import SavedModel
from cylstm.forecasting.scaling import Scaling
from cylstm.forecasting.training import BLOCKS, PENALTIES, UPDATES, ForecastTraining, forecasts
from cylstm.layers.base import Layer
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.lstm import LSTM
from cylstm.training import Checkpoints

Array = NDArray[np.float64]


class Forecaster(SavedModel):
    """Forecast one or several series: at every step, the next `horizon` steps.

    Parameters
    ----------
    horizon : int
        Steps ahead.
    period : int, optional
        Rows in a season, 12 for months of a year. None: no season.
    hidden_size : int
        Units of the LSTM.
    epochs : int
        For each network: 50 optimiser steps on 16 windows of up to 120 rows.
    seed : int
        For the initial weights and the choice of windows.

    Attributes
    ----------
    columns : list of str
        Names of the series, which are saved with the model; empty by default.
    training : ForecastTraining
        Set by `fit`: the chosen `penalty`; `validation`, the errors of each penalty by epoch; `history`, of
        the final network.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.forecasting import Forecaster
    >>> values = np.sin(np.arange(200) / 3)[:, None]
    >>> forecaster = Forecaster(horizon=2, hidden_size=8, epochs=1).fit(values)
    >>> forecaster.forecast(values).shape
    (200, 2, 1)
    """

    entry = "forecaster"
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
        """Whether the forecaster has a trained network."""
        return self._fitted is not None

    @property
    def updates(self) -> int:
        """Maximum number of updates in `fit`, for a progress bar."""
        return UPDATES * self.epochs * (len(PENALTIES) * len(BLOCKS) + 1)

    @property
    def min_rows(self) -> int:
        """Minimum number of rows for `fit`."""
        shortest = self.horizon + max(self.period or 0, 8)
        return math.ceil(max(shortest / BLOCKS[0][0], 5 * self.horizon)) + 1

    def fit(
        self,
        values: Any,
        *,
        patience: int | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: Callable[[int], Any] = lambda updates: None,
    ) -> "Forecaster":
        """Train on all rows.

        Parameters
        ----------
        values : array
            (N, C): C series in columns, in order of time.
        patience : int, optional
            End each training that serves the choice of the penalty after this many epochs without a lower
            error on its block, and train the final network for the best number of epochs found there.
        checkpoints : Checkpoints or path, optional
            When to write checkpoints; for a path, every 10 minutes. They are also written after each network
            and at Ctrl-C.
        resume : bool
            Resume from the checkpoint if it exists; results are bit-identical to an uninterrupted training.
        progress : callable
            Called with the number of updates since the last call; they add up to `updates`.

        Raises
        ------
        ValueError
            If there are fewer than `min_rows` rows, or values that are not finite.
        CheckpointError
            If the checkpoint is damaged, or belongs to another training.
        KeyboardInterrupt
            At Ctrl-C.

        Notes
        -----
        If the training ends with an exception after its first network is finished, the forecaster keeps the
        best network so far, which may have been trained on fewer rows.
        """
        values = self._checked(values)
        if len(values) < self.min_rows:
            raise ValueError(
                f"values: expected at least {self.min_rows} rows for horizon {self.horizon} and "
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
        """Forecast from every row, using that row and all earlier ones.

        Parameters
        ----------
        values : array
            (N, C).
        phase : int
            Season of the first row, relative to the first row of the training data.

        Returns
        -------
        ndarray
            (N, horizon, C); element [t, h-1] is for row t+h.
        """
        model, scaling = self._checked_fitted("forecast")
        values = self._checked(values)
        if values.shape[1] != len(scaling.scale):
            raise ValueError(f"values: expected {len(scaling.scale)} columns, got {values.shape[1]}")
        return forecasts(model, scaling, values, phase % len(scaling.seasonal))

    def likely_phase(self, values: Any, phase: int = 0) -> int:
        """The phase that fits the values (N, C) clearly better than the given one, if any.

        A phase fits clearly better if it halves the variance of the anomalies. If there is none, or if there
        are fewer rows than one season has, the result is `phase` modulo the period.
        """
        _, scaling = self._checked_fitted("likely_phase")
        values = self._checked(values)
        phase %= len(scaling.seasonal)
        if len(values) < len(scaling.seasonal):
            return phase
        variances = scaling.variance_by_phase(values)
        best = int(variances.argmin())
        return best if variances[best] < variances[phase] / 2 else phase

    def _checked_fitted(
        self, method: str, fix: str = "call fit first, or load a model file"
    ) -> tuple[Sequential, Scaling]:
        if self._fitted is None:
            raise RuntimeError(f"{method}: not fitted; {fix}")
        return self._fitted

    def _checked(self, values: Any) -> Array:
        array = _checks.real_array("values", values).astype(np.float64)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"values: expected (rows, columns), got {array.shape}")
        if not (np.abs(array) < LARGEST).all():
            raise ValueError(f"values: expected finite numbers below {LARGEST:g} in size")
        return array

    def _to_saved(self) -> tuple[Layer, dict[str, Any]]:
        model, scaling = self._checked_fitted("save", "call fit first")
        return model, {"columns": self.columns, **scaling.config}

    @classmethod
    def _from_saved(cls, network: Layer, values: dict[str, Any]) -> "Forecaster":
        scaling, columns = Scaling.from_config(values), values["columns"]
        horizon, C = scaling.change_scale.shape
        period = len(scaling.seasonal) if len(scaling.seasonal) > 1 else None
        if not isinstance(network, Sequential) or not isinstance(network.layers[0], LSTM):
            raise ValueError(f"network: expected a Sequential that starts with an LSTM, got {shown(network)}")
        sizes, expected = (network.input_size, network.output_size), (2 * C + 2 * bool(period), horizon * C)
        if sizes != expected:
            raise ValueError(f"network: expected input and output sizes {expected}, got {sizes}")
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ValueError(f"columns: expected a list of names, got {shown(columns)}")
        if len(columns) not in (0, C):
            raise ValueError(f"columns: expected {C} names or none, got {len(columns)}")
        forecaster = cls(horizon, period, network.layers[0].output_size)
        forecaster.columns, forecaster._fitted = columns, (network, scaling)
        return forecaster
