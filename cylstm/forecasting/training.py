"""Training of a forecaster: networks that choose the penalty on parts of the rows, then one on all rows."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.data import Minibatch, Source
from cylstm.forecasting import baselines
from cylstm.forecasting.scaling import Scaling
from cylstm.layers.linear import Linear
from cylstm.layers.sequential import Sequential
from cylstm.losses import MSE
from cylstm.optim import Adam, CosineDecay
from cylstm.recurrent.lstm import LSTM
from cylstm.training import Checkpoints, History, Trainer
from cylstm.training.checkpoints import digest_of
from cylstm.training.history import attach

Array = NDArray[np.float64]
PENALTIES = (1e-4, 1e-3, 1e-2, 5e-2)
BLOCKS = ((0.6, 0.8), (0.8, 1.0))  # train on the rows before the first, validate up to the second
WINDOW, BATCH, LEARNING_RATE, CLIP_NORM = 120, 16, 3e-3, 1.0
UPDATES = 50  # in an epoch


class RandomWindows(Source):
    """Windows at random rows: 16 for each update of an epoch.

    Parameters
    ----------
    x : array
        (N, features), of which only rows with a target are used.
    target : array
        (n, outputs), n <= N.
    """

    def __init__(self, x: NDArray[Any], target: NDArray[Any]) -> None:
        self.x, self.target = x, target
        self.length = min(WINDOW, len(target))

    def __len__(self) -> int:
        """Number of minibatches in an epoch."""
        return UPDATES

    @property
    def targets(self) -> NDArray[Any]:
        """Targets of all rows."""
        return self.target

    def check(self) -> None:
        """Does nothing: `Scaling.inputs` has checked the rows."""

    def _plan(self, rng: "np.random.Generator | None") -> Sequence[NDArray[Any]]:
        places = len(self.target) - self.length + 1
        if rng is None:
            return list(np.resize(np.arange(places), (UPDATES, BATCH)))
        return list(rng.integers(0, places, (UPDATES, BATCH)))

    def _batch(self, first: NDArray[Any]) -> Minibatch:
        window = first + np.arange(self.length)[:, None]  # (T, B) rows
        return Minibatch(self.x[window], self.target[window])


class ForecastTraining:
    """The training in `Forecaster.fit`, and its results.

    Every penalty is tried on every block: a network is trained on the rows before the block, and its
    forecasts of the block are measured after each epoch. The penalty with the lowest error is then used to
    train the final network on all rows: for all epochs, or, with patience, for the best number of epochs on
    the blocks.

    Parameters
    ----------
    settings : dict
        `horizon`, `period`, `hidden_size`, `epochs`, `seed` of the forecaster, and `patience`.
    values : array
        (N, C).
    saved : Checkpoints, optional
        Its notes hold the errors of the networks that were finished before.
    resume : bool
        Resume from the checkpoint if it exists.
    progress : callable
        Called with the number of updates made or skipped since the last call.

    Attributes
    ----------
    network : tuple (Sequential, Scaling) or None
        The best so far. The final network from its first epoch on; before, of the finished networks the one
        trained on the most rows, and among these the one with the lowest error.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        values: Array,
        saved: Checkpoints | None,
        resume: bool,
        progress: Callable[[int], Any],
    ) -> None:
        self.settings, self.values, self.saved, self.progress = settings, values, saved, progress
        identity = {**settings, "penalties": list(PENALTIES), "values": digest_of([values])}
        self.resume = saved is not None and saved.identify(identity, resume)
        self.notes: dict[str, Any] = {} if saved is None else saved.notes
        self.notes.setdefault("finished", [])  # errors by epoch of each network on its block
        self.notes.setdefault("errors", [])  # those of the current network
        self.network: tuple[Sequential, Scaling] | None = None
        self._rank = (0, -math.inf)  # its rows and -error

    def run(self) -> tuple[Sequential, Scaling]:
        """Run all remaining trainings; sets `penalty`, `validation` and `history`.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C, after the checkpoint, if any, has been written.
        """
        finished = self.notes["finished"]
        self.progress(UPDATES * (len(finished) * self.settings["epochs"] + len(self.notes["errors"])))
        trials = list(itertools.product(PENALTIES, BLOCKS))
        for penalty, block in trials[len(finished) :]:
            begin, end = (int(fraction * len(self.values)) for fraction in block)
            self._train(begin, penalty, self.settings["epochs"], end)
            finished.append(self.notes["errors"])
            self.notes["errors"] = []
        curves = {p: [c for c, (q, _) in zip(finished, trials, strict=True) if q == p] for p in PENALTIES}
        self.validation = {
            penalty: np.mean([c[: min(map(len, by_block))] for c in by_block], axis=0).tolist()
            for penalty, by_block in curves.items()
        }
        final_error = (lambda curve: curve[-1]) if self.settings["patience"] is None else min
        self.penalty = min(PENALTIES, key=lambda penalty: np.mean([final_error(c) for c in curves[penalty]]))
        epochs = self.settings["epochs"]
        if self.settings["patience"] is not None:
            epochs = round(float(np.mean([np.argmin(curve) + 1 for curve in curves[self.penalty]])))
        model, scaling, self.history = self._train(len(self.values), self.penalty, epochs)
        return model, scaling

    def _train(
        self, n: int, penalty: float, epochs: int, end: int | None = None
    ) -> tuple[Sequential, Scaling, History]:
        """Train a network on the first n rows; with `end`, validate after each epoch on the rows up to it.

        Adam on random windows, with cosine decay to zero over all epochs of the settings.
        """
        horizon, seed = self.settings["horizon"], self.settings["seed"]
        scaling = Scaling.fitted(self.values[:n], self.settings["period"], horizon)
        z, inputs = scaling.inputs(self.values[:n], 0)
        x, target = inputs.astype(np.float32), scaling.targets(z).astype(np.float32)
        model = _network(x.shape[1], self.settings["hidden_size"], target.shape[1], seed)

        def after_epoch(trainer: Trainer, record: dict[str, float]) -> bool:
            self.progress(UPDATES)
            if end is None:
                self.network = model, scaling
                return False
            return self._is_exhausted(int(record["epoch"]), error(model, scaling, self.values[:end], n))

        trainer = Trainer(
            model,
            MSE(),
            Adam(LEARNING_RATE, weight_decay=penalty),
            schedule=CosineDecay(total=UPDATES * self.settings["epochs"]),
            clip_norm=CLIP_NORM,
            seed=seed,
        )
        resume, self.resume = self.resume, False  # the checkpoint belongs to the first remaining network
        history = trainer.fit(
            RandomWindows(x, target), None, epochs, callbacks=[after_epoch], checkpoints=self.saved,
            resume=resume, progress=False,
        )  # fmt: skip
        if history.stopped == "interrupted":
            interrupt = KeyboardInterrupt()
            attach(interrupt, history)
            raise interrupt
        if end is not None and self._rank < (rank := (n, -self.notes["errors"][-1])):
            self._rank, self.network = rank, (model, scaling)
        self.progress(UPDATES * (self.settings["epochs"] - len(history.epochs)))
        return model, scaling, history

    def _is_exhausted(self, epoch: int, error: float) -> bool:
        """Record the error after an epoch; returns whether patience is exhausted."""
        errors, patience = self.notes["errors"], self.settings["patience"]
        errors[epoch - 1 :] = [error]
        return patience is not None and len(errors) - 1 - int(np.argmin(errors)) >= patience


def _network(features: int, hidden_size: int, outputs: int, seed: int) -> Sequential:
    """A new network, whose forecasts are those of persistence until it is trained."""
    model = Sequential(LSTM(features, hidden_size, seed=seed), Linear(hidden_size, outputs, seed=seed))
    start = model.state_dict()
    start["1.weight"][...], start["1.bias"][...] = 0, 0
    model.load_state_dict(start)
    return model


def forecasts(model: Sequential, scaling: Scaling, values: Array, phase: int) -> Array:
    """Forecasts (N, horizon, C) from every row, using that row and all earlier ones."""
    z, inputs = scaling.inputs(values, phase)
    outputs, _ = model(inputs)
    return scaling.values(z, outputs.astype(np.float64), phase)


def error(model: Sequential, scaling: Scaling, values: Array, n: int) -> float:
    """RMSE after the first n rows in units of each series' deviation, averaged over horizons and series."""
    made = forecasts(model, scaling, values, 0)
    return float(
        np.mean([
            baselines.rmse(made[..., column], values[:, column], n) / scale
            for column, scale in enumerate(scaling.scale)
        ])
    )  # fmt: skip
