"""Sequences with a label, and music: Japanese vowels, motions, chorales."""

import itertools
from pathlib import Path

import numpy as np
from recipe import Figure, Outputs, Recipe, Task, mean_loss

import cylstm
from cylstm import losses
from cylstm.classification import network
from cylstm.data import Arrays, StandardScaler
from cylstm.data.sequence_files import read_sequences

KEYS = 88


def classified(folder: Path, name: str, seed: int) -> Recipe:
    """The classifier of `cylstm train --classify`; trained on all training data."""
    (train, labels, *_), (test, truth, *_) = (
        read_sequences([folder / f"{name}_{part}.ts"]) for part in ("TRAIN", "TEST")
    )
    classes = sorted(set(labels))
    scaler = StandardScaler().fit(train)
    x, x_test = ([part.astype(np.float32) for part in scaler.transform(data)] for data in (train, test))
    y, y_test = (np.array([classes.index(label) for label in data]) for data in (labels, truth))
    seeds = itertools.count(10 * seed)
    model = network.build(x[0].shape[1], len(classes), lambda: next(seeds))
    test_source = Arrays(x_test, y_test, 128)

    def score(outputs: Outputs) -> dict[str, float]:
        said = [outputs(batch, None)[0].argmax(axis=1) for batch in test_source.epoch()]
        return {"accuracy": float((np.concatenate(said) == y_test).mean())}

    loss = losses.CrossEntropy(label_smoothing=network.SMOOTHING)
    return Recipe(model, loss, Arrays(x, y, 16), score, 60, weight_decay=0.01)


def japanese_vowels(folder: Path, seed: int) -> Recipe:
    """Nine speakers say two vowels."""
    return classified(folder, "JapaneseVowels", seed)


def basic_motions(folder: Path, seed: int) -> Recipe:
    """Standing, running, walking, badminton, by a watch."""
    return classified(folder, "BasicMotions", seed)


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
