"""Forecasting: El Niño, sunspots, electricity transformers."""

import csv
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from recipe import Figure, Outputs, Recipe, Task

import cylstm
from cylstm import datasets, losses
from cylstm.data import Arrays, Minibatch, StandardScaler
from cylstm.data.series import read_csv
from cylstm.forecasting import baselines
from cylstm.forecasting.scaling import Scaling

SHARE = 0.8  # of the rows, to learn from
HORIZON = 12


def monthly(values: np.ndarray, period: int | None, weight_decay: float, epochs: int, seed: int) -> Recipe:
    """An LSTM that says at every month how the next twelve differ from it (`cylstm.forecasting`).

    The strength of L2, of 1e-4, 1e-3, 1e-2 and 5e-2, is the one whose errors 1 and 12 months ahead are lowest
    when the last fifth of the training months is forecast from the rest.
    """
    n, length = int(SHARE * len(values)), 120
    scaling = Scaling.fitted(values[:n], period, HORIZON)
    z, inputs = scaling.inputs(values, 0)
    target = scaling.targets(z[:n])
    x, y = (
        sliding_window_view(array[: len(target)].astype(np.float32), length, axis=0).swapaxes(1, 2)
        for array in (inputs, target)
    )
    model = with_silent_end(
        cylstm.LSTM(inputs.shape[1], 32, seed=seed), cylstm.Linear(32, target.shape[1], seed=seed)
    )

    def score(outputs: Outputs) -> dict[str, float]:
        y, _ = outputs(Minibatch(inputs[:, None].astype(np.float32), target), None)
        forecasts = scaling.values(z, y[:, 0].astype(float), 0)[..., 0]
        errors = baselines.rmse(forecasts, values[:, 0], n)
        return {"1 month": float(errors[0]), "12 months": float(errors[-1])}

    return Recipe(
        model, losses.MSE(), Arrays(x, y, 16, target_per="step"), score, epochs,
        weight_decay=weight_decay, decoupled=False,
    )  # fmt: skip


def with_silent_end(*layers: cylstm.layers.base.Layer) -> cylstm.Sequential:
    """A model whose outputs are 0 until it is trained."""
    last = layers[-1]
    last.load_state_dict({name: np.zeros_like(value) for name, value in last.state_dict().items()})
    return cylstm.Sequential(*layers)


def elnino(folder: Path, seed: int) -> Recipe:
    """Sea-surface temperature off Peru."""
    return monthly(datasets.elnino()[:, None], 12, 0.05, 14, seed)


def sunspots(folder: Path, seed: int) -> Recipe:
    """Their number; the cycle of about eleven years is no season."""
    values, _ = read_csv(folder / "sunspots.csv", columns=["sunspots"])
    return monthly(values, None, 1e-2, 5, seed)


DAY, WINDOW = 24, 96
TRAIN, VALIDATION, TEST = 12 * 30 * DAY, 16 * 30 * DAY, 20 * 30 * DAY  # where each part ends


def etth1(folder: Path, seed: int) -> Recipe:
    """Seven channels, 24 hours ahead, as differences from the mean of the last days at the same hour.

    One network reads every channel by itself, around its mean over the window, and is told which it is.
    """
    with open(folder / "ETTh1.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    raw = np.array([row[1:] for row in rows], float)[:TEST]
    z = StandardScaler().fit(raw[:TRAIN]).transform(raw).astype(np.float32)
    hours, channels = np.arange(TEST), z.shape[1]
    circle = np.stack([f(2 * np.pi * hours / p) for p in (DAY, 7 * DAY) for f in (np.sin, np.cos)], axis=1)

    def windows(first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """x and target of all forecasts of hours [first, end), channel by channel."""
        starts = np.arange(first, end - DAY + 1)[:, None]
        past, ahead = starts - WINDOW + np.arange(WINDOW), starts + np.arange(DAY)
        mean_day = z[past].reshape(len(starts), -1, DAY, channels).mean(axis=1)
        around = (z[past] - mean_day.mean(axis=1, keepdims=True)).swapaxes(1, 2)
        x = np.empty((*around.shape, 1 + 4 + channels), np.float32)  # (windows, channels, hours, features)
        x[..., 0], x[..., 1:5], x[..., 5:] = around, circle[past][:, None], np.eye(channels)[:, None]
        y = (z[ahead] - mean_day).swapaxes(1, 2)
        return x.reshape(-1, WINDOW, x.shape[3]), y.reshape(-1, DAY)

    x, y = windows(WINDOW, TRAIN)
    test = Arrays(*windows(VALIDATION, TEST), 512)
    hidden = 32
    model = with_silent_end(
        cylstm.LSTM(x.shape[2], hidden, seed=seed),
        cylstm.Pooling("last"),
        cylstm.Dropout(0.2, seed=seed),
        cylstm.Linear(hidden, DAY),
    )

    def score(outputs: Outputs) -> dict[str, float]:
        error = np.concatenate([outputs(batch, None)[0] - batch.target for batch in test.epoch()])
        return {"24 hours": float((error**2).mean()), "24 hours, MAE": float(np.abs(error).mean())}

    return Recipe(
        model, losses.MSE(), Arrays(x, y, 256), score, 6, Arrays(*windows(TRAIN, VALIDATION), 512), 3,
        lr=1e-3, weight_decay=0.01,
    )  # fmt: skip


TASKS = {
    "elnino": Task(
        "elnino", elnino,
        {
            "1 month": Figure("El Niño, RMSE 1 month ahead, °C", 0.47, "persistence 1.164, AR(24) .501"),
            "12 months": Figure("El Niño, RMSE 12 months ahead, °C", 0.914, "persistence 1.145, AR(24) .914"),
        },
    ),
    "sunspots": Task(
        "sunspots_monthly", sunspots,
        {
            "1 month": Figure("Sunspots, RMSE 1 month ahead", 18.22, "persistence 20.09, AR(36) 18.22"),
            "12 months": Figure("Sunspots, RMSE 12 months ahead", 31.36, "persistence 40.67, AR(36) 31.36"),
        },
    ),
    "etth1": Task(
        "etth1", etth1,
        {
            "24 hours": Figure(
                "ETTh1, MSE 24 hours ahead, 7 channels", 0.424,
                "persistence 1.222, the day before .424, LSTMa .650 (Informer, Table 2)",
            ),
        },
    ),
}  # fmt: skip
