"""By what a resumed training is recognised, and what may differ."""

import numpy as np
import pytest
from training_problems import pooled, series, tagger

import cylstm
from cylstm import losses, optim
from cylstm.classification import Classifier
from cylstm.layers.base import describe
from cylstm.text import CharacterModel
from cylstm.training import CheckpointError, checkpoints

X, Y = series(60)


def fit(path, epochs=2, *, train=(X[:40], Y[:40]), validation=(X[40:], Y[40:]), loss=None, **options):
    """The history and the weights of a small training."""
    model = options.pop("model", None) or pooled()
    settings = {
        name: options.pop(name) for name in ("schedule", "accumulate", "clip_norm") if name in options
    }
    trainer = cylstm.Trainer(model, loss or losses.MSE(), optim.Adam(0.05), seed=0, **settings)
    options = {"batch_size": 8, "checkpoints": path, "resume": True, "progress": False} | options
    return trainer.fit(train, validation, epochs, **options), describe(model).store.data


def test_with_more_patience_a_training_that_ended_early_goes_on(tmp_path):
    path, noise = tmp_path / "run.ckpt", np.random.default_rng(5).standard_normal((20, 1))
    held_out = X[40:], noise  # nothing to learn
    expected, weights = fit(tmp_path / "whole.ckpt", 40, validation=held_out, patience=9)
    early, _ = fit(path, 40, validation=held_out, patience=2)
    assert (early.stopped, len(early.epochs) < len(expected.epochs)) == ("early", True)
    same, _ = fit(path, 40, validation=held_out, patience=2)
    assert (same.stopped, same.steps) == ("early", early.steps)
    resumed, found = fit(path, 40, validation=held_out, patience=9)
    assert (resumed.stopped, resumed.steps) == (expected.stopped, expected.steps)
    np.testing.assert_array_equal(found, weights)


def test_resume_with_lower_patience_stops(tmp_path):
    path, noise = tmp_path / "run.ckpt", np.random.default_rng(5).standard_normal((20, 1))
    early, _ = fit(path, 40, validation=(X[40:], noise), patience=4)
    history, _ = fit(path, 100, validation=(X[40:], noise), patience=2)
    assert (history.stopped, len(history.epochs)) == ("early", len(early.epochs))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"validation": (X[40:] + 1, Y[40:])}, "validation: differs from that of the checkpoint"),
        ({}, {"validation": (X[40:], -Y[40:])}, "validation: differs from that of the checkpoint"),
        ({}, {"validation": None}, "validation: the checkpoint was made with it"),
        ({"validation": None}, {}, "validation: the checkpoint was made without it"),
        ({}, {"train": (X[:40] + 1, Y[:40])}, "data: differs from that of the checkpoint"),
        ({}, {"batch_size": 9}, r"minibatch: expected \[1\]=9, got 8"),
        ({}, {"batch_size": 20}, "minibatches: expected 2, got 5"),
        ({}, {"accumulate": 2}, "accumulate: expected 2, got 1"),
        ({}, {"loss": losses.Huber()}, "loss: expected"),
        ({}, {"model": pooled(dtype="float64")}, r"model: expected layers\[0\].dtype=float64, got float32"),
        ({}, {"model": pooled(bias=False)}, r"model: expected layers\[0\].bias=False, got True"),
    ],
)
def test_resume_rejects_changed_numeric_settings(tmp_path, first, second, message):
    path = tmp_path / "run.ckpt"
    fit(path, **first)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"run.ckpt: not of this training: {message}"):
        fit(path, 4, **second)
    assert path.read_bytes() == before


def test_weights_of_classes_may_not_differ(tmp_path):
    x = np.arange(40).reshape(8, 5) % 4
    saved = {"epochs": 1, "checkpoints": tmp_path / "run.ckpt", "resume": True, "progress": False}

    def run(weight):
        trainer = cylstm.Trainer(tagger(), losses.CrossEntropy(weight=weight), seed=0)
        return trainer.fit((x, x), **saved)

    run([1.0, 2.0, 1.0, 1.0])
    with pytest.raises(CheckpointError, match=r"loss: expected weight\[1\]=3.0, got 2.0"):
        run([1.0, 3.0, 1.0, 1.0])


def test_resume_accepts_changed_non_numeric_settings(tmp_path):
    expected, weights = fit(tmp_path / "whole.ckpt", 4)
    fit(tmp_path / "run.ckpt", 2)
    seen = []
    history, found = fit(
        tmp_path / "run.ckpt", 4, metrics=["mae"], callbacks=[lambda *_: seen.append(1)], patience=50
    )  # fmt: skip
    assert history.steps == expected.steps
    np.testing.assert_array_equal(found, weights)
    assert ["mae" in record for record in history.epochs] == [False, False, True, True]
    assert len(seen) == 2


class Halving(optim.Schedule):
    """A schedule of a user's that depends on the total."""

    def begin(self, total):
        self.half = total // 2

    def factor(self, n):
        return 1.0 if n < self.half else 0.5


@pytest.mark.parametrize("make", [optim.CosineDecay, optim.OneCycle, Halving])
@pytest.mark.parametrize("epochs", [3, 8])
def test_resume_rejects_epochs_that_change_learning_rates(tmp_path, make, epochs):
    path = tmp_path / "run.ckpt"
    fit(path, 4, schedule=make())
    with pytest.raises(CheckpointError, match=rf"epochs: .* epochs=4, got {epochs}; .*{make.__name__}"):
        fit(path, epochs, schedule=make())
    history, _ = fit(path, 4, schedule=make())
    assert len(history.epochs) == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.CosineDecay(total=20),
        lambda: optim.StepDecay(2),
        lambda: optim.ReduceOnPlateau(0.5, 0, 0.5),
        lambda: optim.ExponentialDecay(0.9, "step"),
    ],
)
def test_resume_accepts_epochs_with_constant_learning_rate(tmp_path, make):
    expected, weights = fit(tmp_path / "whole.ckpt", 5, schedule=make())
    fit(tmp_path / "run.ckpt", 3, schedule=make())
    history, found = fit(tmp_path / "run.ckpt", 5, schedule=make())
    assert history.steps == expected.steps
    np.testing.assert_array_equal(found, weights)


def test_resume_after_callback_stop(tmp_path):
    path, stop = tmp_path / "run.ckpt", [lambda trainer, record: record["epoch"] == 2]
    expected, weights = fit(tmp_path / "whole.ckpt", 4)
    fit(path, 4, callbacks=stop)
    with pytest.warns(RuntimeWarning, match="a callback stopped this training in epoch 2 of 4"):
        history, _ = fit(path, 4, callbacks=stop)
    assert len(history.epochs) == 2
    history, found = fit(path, 4)
    assert (history.stopped, history.steps) == ("", expected.steps)
    np.testing.assert_array_equal(found, weights)


def test_a_checkpoint_of_an_earlier_version_is_continued(tmp_path):
    """Without what the first version of the format did not write."""
    path = tmp_path / "run.ckpt"
    expected, _ = fit(tmp_path / "whole.ckpt", 4)
    fit(path, 2)
    tensors, values = checkpoints.read(path)
    for name in ("validation", "minibatch"):
        del values["identity"][name]
    for name in ("piece", "reported"):
        del values["position"][name]
    del values["epochs"]
    checkpoints.write(path, tensors, values)
    history, _ = fit(path, 4)
    assert history.steps == expected.steps


def test_classifiers_know_their_validation_data_and_epochs(tmp_path):
    labels = ["low" if y < 0 else "high" for y in Y[:, 0]]

    def run(epochs=2, held_out=(X[40:], labels[40:]), **options):
        saved = {"checkpoints": tmp_path / "run.ckpt", "resume": True, "progress": False}
        return Classifier(4).fit((X[:40], labels[:40]), held_out, epochs, **saved | options)

    history = run(patience=1)
    assert run(patience=5).steps == history.steps
    with pytest.raises(CheckpointError, match="validation: differs from that of the checkpoint"):
        run(held_out=(X[20:40], labels[20:40]))
    with pytest.raises(CheckpointError, match=r"epochs: .* epochs=2, got 3"):
        run(3)


def test_models_of_text_know_their_epochs(tmp_path):
    saved = {"batch_size": 4, "length": 10, "checkpoints": tmp_path / "run.ckpt", "progress": False}
    text = "the cat sat on the mat. " * 200
    CharacterModel(8).fit(text, 2, **saved)
    with pytest.raises(CheckpointError, match=r"epochs: .* epochs=2, got 3"):
        CharacterModel(8).fit(text, 3, resume=True, **saved)
    with pytest.raises(CheckpointError, match="not of this training"):
        CharacterModel(8).fit(text, 2, validation=0.2, resume=True, **saved)
