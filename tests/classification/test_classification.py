"""The classifier without scikit-learn: what it learns, keeps and refuses."""

import subprocess
import sys

import numpy as np
import pytest

import cylstm
from cylstm import files
from cylstm.classification import Classifier, network
from cylstm.data import stratified_split
from cylstm.data.sequence_files import read_ts
from cylstm.training import CheckpointError, Checkpoints


def ragged(n=60, channels=2, seed=0):
    """Sequences of 5 to 14 steps, whose class shifts their first channel."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    shift = np.eye(channels)[0] * 4
    X = [rng.standard_normal((rng.integers(5, 15), channels)) + (label - 1) * shift for label in y]
    return X, np.array(["low", "middle", "high"])[y].tolist()


def fitted(train=None, validation=None, epochs=8, seed=0, **fit):
    classifier = Classifier(hidden_size=8, seed=seed)
    fit = {"lr": 0.02, "progress": False, **fit}
    return classifier, classifier.fit(train or ragged(), validation, epochs, **fit)


def test_separable_classes_are_learned():
    classifier, history = fitted(ragged(120), ragged(30, seed=1), epochs=15)
    x, labels = ragged(40, seed=2)
    assert classifier.classes == ["high", "low", "middle"]
    assert classifier.predict(x) == labels
    counts = classifier.confusion(x, labels)
    np.testing.assert_array_equal(counts, np.diag([labels.count(name) for name in classifier.classes]))
    probabilities = classifier.probabilities(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert history.epochs[history.best_epoch - 1]["accuracy"] == 1


def test_confusion_matrix_rows_are_true_classes():
    classifier, _ = fitted(epochs=15)
    x, labels = ragged(30, seed=1)
    wrong = ["low" if label == "middle" else label for label in labels]
    counts = classifier.confusion(x, wrong)
    assert counts[1].tolist() == [0, labels.count("low"), labels.count("middle")]  # of "low"
    assert counts[2].tolist() == [0, 0, 0]


def test_it_ends_early_with_the_best_weights():
    (x, labels), noise = ragged(40), np.random.default_rng(3)
    held_out = ragged(20, seed=1)[0], noise.choice(["low", "middle", "high"], 20).tolist()
    classifier, history = fitted((x, labels), held_out, epochs=50, patience=3)
    assert history.stopped == "early"
    assert len(history.epochs) == history.best_epoch + 3
    p = classifier.probabilities(held_out[0])
    right = [p[i, classifier.classes.index(label)] for i, label in enumerate(held_out[1])]
    smoothing = network.SMOOTHING
    assert -((1 - smoothing) * np.log(right) + smoothing * np.log(p).mean(axis=1)).mean() == pytest.approx(
        history.epochs[history.best_epoch - 1]["validation"], rel=1e-5
    )


def test_the_same_seed_gives_the_same_bits():
    x = ragged(10, seed=5)[0]
    one, two, other = (fitted(epochs=2, seed=seed)[0].probabilities(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_its_network_and_defaults_are_those_of_the_estimator():
    sklearn = pytest.importorskip("cylstm.sklearn", reason="scikit-learn is not installed")
    estimator = sklearn.SequenceClassifier(epochs=1).fit(*ragged())
    classifier = Classifier()
    classifier.fit(ragged(), epochs=1, progress=False)
    assert estimator.model_.config == classifier.model.config
    classifier.model = estimator.model_
    x = ragged(seed=1)[0]
    np.testing.assert_allclose(classifier.probabilities(x), estimator.predict_proba(x), rtol=1e-6)


def test_a_file_holds_all_that_classification_needs(tmp_path):
    classifier, _ = fitted(epochs=2)
    classifier.columns = ["a", "b"]
    classifier.save(tmp_path / "c.safetensors")
    loaded = Classifier.load(tmp_path / "c.safetensors")
    x = ragged(seed=4)[0]
    np.testing.assert_array_equal(loaded.probabilities(x), classifier.probabilities(x))
    assert (loaded.classes, loaded.columns, loaded.hidden_size) == (["high", "low", "middle"], ["a", "b"], 8)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", ["a", "b"]),
        ("classes", ["a", "a", "b"]),
        ("classes", ["c", "b", "a"]),
        ("classes", [1, 2, 3]),
        ("classes", "abc"),
        ("classes", None),
        ("columns", ["a"]),
        ("columns", None),
    ],
)
def test_load_rejects_damaged_names(tmp_path, field, value):
    classifier, _ = fitted(epochs=1)
    path = tmp_path / "c.safetensors"
    classifier.save(path)
    model, extra = files.load_with_extra(path)
    extra["classifier"][field] = value
    cylstm.save(model, path, extra=extra)
    with pytest.raises(cylstm.ModelFileError, match=rf"c\.safetensors: a classifier, but damaged: {field}: "):
        Classifier.load(path)


def test_load_rejects_other_models(tmp_path):
    classifier, _ = fitted(epochs=1)
    classifier.save(tmp_path / "c.safetensors")
    model, extra = files.load_with_extra(tmp_path / "c.safetensors")
    scaler = model.scalers.pop("x")
    cylstm.save(model, tmp_path / "1", extra=extra)
    model.scalers["x"] = type(scaler)().fit(np.ones((4, 3)))
    cylstm.save(model, tmp_path / "2", extra=extra)
    cylstm.save(cylstm.LSTM(2, 3), tmp_path / "3", extra=extra)
    cylstm.save(cylstm.LSTM(2, 3), tmp_path / "4")
    for name, nested in (("5", False), ("6", True)):  # no recurrent layer where it is expected; no layer
        other = cylstm.Sequential(
            cylstm.LSTM(2, 3, batch_first=True), cylstm.Pooling("last"), cylstm.Linear(3, 3)
        )
        other = cylstm.Sequential(other) if nested else other
        other.scalers["x"] = scaler
        cylstm.save(other, tmp_path / name, extra=extra)
    for name, message in {
        "1": "a classifier, but damaged: scalers: expected one for x, got none; save the model again",
        "2": "a classifier, but damaged: scalers: expected 2 channels for x, got 3",
        "3": "a classifier, but damaged: network: expected a batch-first Sequential with pooling, got LSTM",
        "4": r"expected a classifier, got a network \(LSTM\) alone; cylstm.load reads it",
        "5": "a classifier, but damaged: network: expected a recurrent second layer, got Pooling",
        "6": "a classifier, but damaged: network: expected a recurrent second layer, got Sequential",
    }.items():
        with pytest.raises(cylstm.ModelFileError, match=f"{name}: {message}"):
            Classifier.load(tmp_path / name)


class Killed(BaseException):
    """As sudden as a kill: nothing catches it."""


@pytest.mark.parametrize("updates", [1, 4, 9])
def test_a_training_that_is_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch, updates):
    held_out, x = ragged(20, seed=1), ragged(seed=2)[0]
    whole, _ = fitted(validation=held_out)
    saved, write = Checkpoints(tmp_path / "run.ckpt", steps=updates), Checkpoints.write

    def write_and_die(self, steps, content):
        write(self, steps, content)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", write_and_die)
        with pytest.raises(Killed):
            fitted(validation=held_out, checkpoints=saved)
    resumed, history = fitted(validation=held_out, checkpoints=tmp_path / "run.ckpt", resume=True)
    np.testing.assert_array_equal(resumed.probabilities(x), whole.probabilities(x))
    assert len(history.epochs) == 8


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    saved = {"checkpoints": tmp_path / "run.ckpt", "resume": True}
    fitted(epochs=1, **saved)
    with pytest.raises(CheckpointError, match=r"data: differs from that of the checkpoint$"):
        fitted(ragged(seed=1), epochs=1, **saved)
    x, labels = ragged()
    with pytest.raises(CheckpointError, match="not of this training: classes: expected"):
        fitted((x, ["LOW" if label == "low" else label for label in labels]), epochs=1, **saved)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (([np.ones((4, 2))] * 3, ["a"] * 3), None, r"labels: expected at least two classes, got \['a'\]"),
        ((np.ones((4, 2)), ["a", "b"]), None, r"sequences: expected \(n, T, channels\)"),
        (([], []), None, "sequences: expected"),
        (([np.ones((4, 2)), np.ones((0, 2))], ["a", "b"]), None, "sequences: expected"),
        (([np.ones((4, 2)), np.ones((4, 3))], ["a", "b"]), None, r"sequences\[1\]: expected \(length, 2\)"),
        (
            ([np.ones((4, 2)), np.full((4, 2), np.nan)], ["a", "b"]),
            None,
            r"sequences\[1\]\[0, 0\] \(step, channel\): expected a finite",
        ),
        (([np.ones((4, 2))] * 3, ["a", "b"]), None, "labels: expected 3, one per sequence, got 2"),
        (([np.ones((4, 2))] * 2, ["a", "b"]), ([np.ones((4, 2))], ["c"]), "among .*'a', 'b'.*, got 'c'"),
        (([np.ones((4, 2))] * 2, ["a", "b"]), ([np.ones((4, 1))], ["a"]), "expected 2 channels, got 1"),
    ],
)
def test_fit_rejects_unusable_samples(train, validation, message):
    classifier, _ = fitted(epochs=1)
    before = classifier.model.state_dict()
    with pytest.raises(ValueError, match=message):
        classifier.fit(train, validation, progress=False)
    for name, value in classifier.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert classifier.classes == ["high", "low", "middle"]


def test_it_has_to_be_fitted_first(tmp_path):
    for use in (lambda c: c.predict([np.ones((3, 2))]), lambda c: c.save(tmp_path / "c")):
        with pytest.raises(ValueError, match="model: expected a fitted model; call fit first"):
            use(Classifier())


@pytest.mark.process
def test_scikit_learn_is_not_needed():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import cylstm.classification, cylstm.cli; cylstm.cli.parser()\n"
        "assert not any(name.split('.')[0] == 'joblib' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_a_stratified_split_has_the_same_shares_of_every_class(share):
    labels = ["a"] * 20 + ["b"] * 11 + ["c"] * 2 + ["d"]
    train, held_out = stratified_split(labels, share, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(34))
    counts = [[labels[i] for i in held_out].count(name) for name in "abcd"]
    assert counts == [round(20 * share), min(10, round(11 * share)), 1, 0]
    again, other = (stratified_split(labels, share, seed=seed)[1] for seed in (1, 2))
    np.testing.assert_array_equal(again, held_out)
    assert not np.array_equal(other, held_out)


def test_split_of_empty_data_is_rejected():
    for labels in ([], ["a"], ["a", "b"]):
        with pytest.raises(ValueError, match="labels: expected a class of two samples or more"):
            stratified_split(labels, 0.2)


@pytest.mark.parametrize(
    "name, folder, least",
    [("JapaneseVowels", "japanese_vowels", 0.965), ("BasicMotions", "basic_motions", 0.925)],
)
def test_japanese_vowels_and_basic_motions_are_told_apart(name, folder, least, dataset):
    """A little below what was measured, 0.976 and 0.975; the most common class alone has 0.24 and 0.25."""
    train, test = (read_ts(dataset(folder) / f"{name}_{part}.ts") for part in ("TRAIN", "TEST"))
    classifier = Classifier()
    classifier.fit(train, progress=False)
    counts = classifier.confusion(*test)
    assert counts.trace() / counts.sum() >= least


def test_missing_labels_are_no_class_and_ids_no_measurements(rng):
    x, classifier = rng.standard_normal((4, 6, 2)), Classifier(hidden_size=2)
    for labels in (
        ["a", "b", None, "a"],
        np.ma.array(["a", "b", "a", "b"], mask=[0, 0, 1, 0]),
        ["a", "b", np.nan, "b"],
    ):
        with pytest.raises(ValueError, match=r"labels\[2\]: expected a value, got a missing one"):
            classifier.fit((x, labels), epochs=1, progress=False)
    with pytest.warns(UserWarning, match="sequences: integers that look like symbol ids"):
        classifier.fit((rng.integers(0, 9, (4, 30, 1)), list("abab")), epochs=1, progress=False)
