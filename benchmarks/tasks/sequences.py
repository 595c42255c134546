"""Sequences with a label, and music: Japanese vowels, motions, chorales."""

from pathlib import Path

import numpy as np
from recipe import Figure, Outputs, Recipe, Task, mean_loss

import cylstm
from cylstm import losses
from cylstm.data import Arrays, StandardScaler
from cylstm.init import initialize

KEYS = 88


def read_ts(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Sequences (T, channels) and their labels."""
    rows = path.read_text(encoding="utf-8").lower().split("@data")[1].split()
    x, labels = [], []
    for row in rows:
        *channels, label = row.split(":")
        x.append(np.array([channel.split(",") for channel in channels], np.float32).T)
        labels.append(label)
    return x, labels


def classified(folder: Path, name: str, batch_size: int, seed: int) -> Recipe:
    """A bidirectional LSTM, the mean of its states, and a dense layer; all training data are learnt from."""
    train, labels = read_ts(folder / f"{name}_TRAIN.ts")
    test, truth = read_ts(folder / f"{name}_TEST.ts")
    classes, hidden = sorted(set(labels)), 64
    scaler = StandardScaler().fit(train)
    x, x_test = ([part.astype(np.float32) for part in scaler.transform(data)] for data in (train, test))
    y, y_test = (np.array([classes.index(label) for label in data]) for data in (labels, truth))
    channels = x[0].shape[1]
    lstm = cylstm.LSTM(channels, hidden, bidirectional=True, seed=seed)
    initialize(lstm, seed=seed)
    model = cylstm.Sequential(
        cylstm.Dropout(0.1, features=channels, seed=seed + 1),
        lstm,
        cylstm.Pooling("mean"),
        cylstm.Dropout(0.3, seed=seed + 2),
        cylstm.Linear(2 * hidden, len(classes), seed=seed + 3),
    )
    test_source = Arrays(x_test, y_test, 128)

    def score(outputs: Outputs) -> dict[str, float]:
        said = [outputs(batch, None)[0].argmax(axis=1) for batch in test_source.epoch()]
        return {"accuracy": float((np.concatenate(said) == y_test).mean())}

    loss = losses.CrossEntropy(label_smoothing=0.1)
    return Recipe(model, loss, Arrays(x, y, batch_size), score, 60, weight_decay=0.01)


def japanese_vowels(folder: Path, seed: int) -> Recipe:
    """Nine speakers say two vowels."""
    return classified(folder, "JapaneseVowels", 16, seed)


def basic_motions(folder: Path, seed: int) -> Recipe:
    """Standing, running, walking, badminton, by a watch."""
    return classified(folder, "BasicMotions", 8, seed)


def chorales(folder: Path, seed: int) -> Recipe:
    """Which of 88 keys sound at the next step."""
    from scipy.io import loadmat

    held = loadmat(folder / "JSB_Chorales.mat")
    parts = {}
    for part in ("train", "valid", "test"):
        pieces = [np.asarray(piece, np.float32) for piece in held[f"{part}data"].ravel()]
        parts[part] = Arrays([p[:-1] for p in pieces], [p[1:] for p in pieces], 2, target_per="step")
    hidden = 300
    model = cylstm.Sequential(
        cylstm.Dropout(0.2, features=KEYS, seed=seed),
        cylstm.LSTM(KEYS, hidden, seed=seed),
        cylstm.Dropout(0.6, seed=seed + 1),
        cylstm.Linear(hidden, KEYS, seed=seed + 2),
    )
    loss = losses.BinaryCrossEntropy()

    def score(outputs: Outputs) -> dict[str, float]:
        return {"nats a step": KEYS * mean_loss(losses.BinaryCrossEntropy(), parts["test"], outputs)}

    return Recipe(model, loss, parts["train"], score, 80, parts["valid"], 15, lr=5e-3, weight_decay=0.1)


TASKS = {
    "japanese-vowels": Task(
        "japanese_vowels", japanese_vowels,
        {"accuracy": Figure("Japanese vowels, accuracy", 0.98, "ridge on mean and deviation .976", True)},
    ),
    "basic-motions": Task(
        "basic_motions", basic_motions,
        {"accuracy": Figure("Basic motions, accuracy", 0.975, "ridge .950", True)},
    ),
    "chorales": Task(
        "jsb_chorales", chorales,
        {
            "nats a step": Figure(
                "JSB chorales, nats a step", 8.45, "key frequencies 11.09, LSTM 8.45 (Bai et al. 2018)"
            )
        },
    ),
}  # fmt: skip
