"""What does not fit is refused before training, with the shapes that were passed."""

import re

import numpy as np
import pytest

import cylstm
from cylstm import data, losses
from cylstm.layers.base import describe


def model_for(outputs, pools=True, ids=False):
    first = [cylstm.Embedding(9, 2, seed=0)] if ids else []
    pool = [cylstm.Pooling("last")] if pools else []
    return cylstm.Sequential(*first, cylstm.LSTM(2, 3, seed=0), *pool, cylstm.Linear(3, outputs, seed=1))


X, IDS = np.zeros((60, 5, 2)), np.zeros((60, 5), int)
RAGGED = [np.zeros((n, 2)) for n in (5, 7, 4)]
REAL, LABEL = (lambda *shape: np.zeros(shape)), (lambda *shape: np.zeros(shape, int))
OF_TWO = losses.Quantile([0.1, 0.9])
EACH_SEQUENCE, EACH_STEP = ", a target per sequence, got ", ", a target per step, got "


@pytest.mark.parametrize(
    ("outputs", "pools", "loss", "target", "message"),
    [
        (1, True, losses.MSE(), REAL(60, 5, 1), f"(60, 1){EACH_SEQUENCE}(60, 5, 1)"),
        (1, True, losses.MAE(), REAL(60), f"(60, 1){EACH_SEQUENCE}(60,)"),
        (1, True, losses.Huber(), REAL(60, 2), f"(60, 1){EACH_SEQUENCE}(60, 2)"),
        (4, True, OF_TWO, REAL(60, 4), f"(60, 2){EACH_SEQUENCE}(60, 4)"),
        (2, True, losses.BinaryCrossEntropy(), LABEL(60, 1), f"(60, 2){EACH_SEQUENCE}(60, 1)"),
        (2, True, losses.CrossEntropy(), LABEL(60, 1), f"(60,){EACH_SEQUENCE}(60, 1)"),
        (2, True, losses.CrossEntropy(), LABEL(60, 5), f"(60,){EACH_SEQUENCE}(60, 5)"),
        (1, False, losses.MSE("last"), REAL(60, 5, 1), f"(60, 1){EACH_SEQUENCE}(60, 5, 1)"),
        (2, False, losses.CrossEntropy(), LABEL(60), "(60, 5, ...), one of each step of x, got (60,)"),
        (1, False, losses.MSE(), REAL(60, 5), f"(60, 5, 1){EACH_STEP}(60, 5)"),
        (2, False, losses.CrossEntropy(), LABEL(60, 5, 2), f"(60, 5){EACH_STEP}(60, 5, 2)"),
    ],
)
def test_errors_of_targets_have_the_shapes_that_were_passed(outputs, pools, loss, target, message):
    trainer = cylstm.Trainer(model_for(outputs, pools), loss)
    for call in (trainer.fit, trainer.evaluate):
        with pytest.raises(ValueError, match=re.escape(f"target: expected {message}")):
            call((X, target))


@pytest.mark.parametrize(
    ("model", "loss", "x", "target", "message"),
    [
        (
            model_for(1, False),
            losses.MSE(),
            RAGGED,
            [REAL(n, 2) for n in (5, 7, 4)],
            f"target[0]: expected (5, 1){EACH_STEP}(5, 2)",
        ),
        (
            model_for(1),
            losses.MSE(),
            RAGGED,
            [REAL(n, 1) for n in (5, 7, 4)],
            f"target[0]: expected (1,){EACH_SEQUENCE}(5, 1)",
        ),
        (
            model_for(1, False),
            losses.MSE(),
            X,
            REAL(60, 1),
            "target: expected (60, 5, ...), one of each step of x, got (60, 1); one of each sequence needs",
        ),
        (
            model_for(3, False),
            losses.CTC(),
            X,
            LABEL(60),
            "target: expected the labels of 60 sequences, a list of arrays or (n, L), got (60,)",
        ),
        (model_for(1), losses.MSE(), X[..., :1], REAL(60, 1), "x: expected (n, T, 2), got (60, 5, 1)"),
        (model_for(1), losses.MSE(), [REAL(5, 1)] * 3, REAL(3, 1), "x[0]: expected (T, 2), got (5, 1)"),
        (model_for(1), losses.MSE(), IDS, REAL(60, 1), "x: expected (n, T, 2), got (60, 5)"),
        (model_for(1, ids=True), losses.MSE(), X, REAL(60, 1), "x: expected (n, T), got (60, 5, 2)"),
        (model_for(3), losses.CTC(), X, [[1]] * 60, "model: expected outputs at every step for CTC"),
        (model_for(3), OF_TWO, X, REAL(60, 2), "outputs: expected a multiple of 2, got 3"),
    ],
)
def test_errors_have_the_shapes_that_were_passed(model, loss, x, target, message):
    trainer, start = cylstm.Trainer(model, loss), describe(model).store.data.copy()
    for call in (trainer.fit, trainer.evaluate):
        with pytest.raises(ValueError, match=re.escape(message)):
            call((x, target))
    np.testing.assert_array_equal(describe(model).store.data, start)


def test_ids_with_batch_equal_to_features_are_not_measurements():
    """Two rows of ids would be taken for the features of one sequence by a model of two."""
    with pytest.raises(ValueError, match=re.escape("train: x: expected (n, T, 2), got (2, 5)")):
        cylstm.Trainer(model_for(1, False), losses.MSE()).fit((IDS[:2], np.zeros((2, 5, 1))), progress=False)


def test_ambiguous_step_targets_are_rejected():
    """With as many steps as outputs and as sequences in a minibatch they would be read transposed."""
    samples = data.Arrays(X, np.zeros((60, 5), int), 5)
    assert samples.per_step
    with pytest.raises(ValueError, match=r"train: target: expected one per sequence .*target_per='sequence'"):
        cylstm.Trainer(model_for(5), losses.BinaryCrossEntropy()).fit(samples, progress=False)


class Labelled(data.Source):
    """Minibatches of one sequence with labels, without lists of lengths."""

    def __init__(self, labels, T):
        self.labels, self.T = labels, T

    targets = property(lambda self: self.labels)

    def __len__(self):
        return len(self.labels)

    def check(self):
        pass

    def _plan(self, rng):
        return range(len(self))

    def _batch(self, part):
        return data.Minibatch(np.zeros((self.T, 1, 2)), [self.labels[part]])


class Fixed(Labelled):
    """Minibatches of 16 sequences with two features and one column of targets."""

    def _batch(self, part):
        return data.Minibatch(np.zeros((5, 16, 2)), np.zeros((16, 1)))


def test_custom_source_errors_show_minibatch_shapes():
    source = Fixed(np.zeros((3, 2)), 5)
    with pytest.raises(ValueError, match=re.escape("train: target: expected (16, 2), got (16, 1)")):
        cylstm.Trainer(model_for(2), losses.MSE()).fit(source, progress=False)
    model = cylstm.Sequential(cylstm.LSTM(3, 2), cylstm.Pooling())
    with pytest.raises(ValueError, match=r"train: x: expected \(T, B, 3\) .*, got \(5, 16, 2\)"):
        cylstm.Trainer(model, losses.MSE()).fit(source, progress=False)


LABELS = [np.array([1, 2]), np.array([2, 1, 1, 1]), np.array([1])]


def test_too_many_labels_are_rejected_before_training():
    message = r"target\[1\]: expected labels that fit into the 5 steps of the sequence, got 4 that need 6"
    x = [np.zeros((n, 2)) for n in (7, 5, 9)]
    for options, source in (({}, (x, LABELS)), ({}, data.Arrays(x, LABELS, 1))):
        model = model_for(3, False)
        with pytest.raises(ValueError, match=f"train: {message}"):
            cylstm.Trainer(model, losses.CTC(**options)).fit(source, progress=False)
    with pytest.raises(ValueError, match=f"validation: {message}"):
        cylstm.Trainer(model, losses.CTC()).fit((x[::2], LABELS[::2]), (x, LABELS), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"train: minibatch 2: target\[0\]: .* got 4 that need 6"):
        cylstm.Trainer(model, losses.CTC()).fit(Labelled(LABELS, 5), progress=False)
    history = cylstm.Trainer(model, losses.CTC(zero_infinity=True)).fit((x, LABELS), epochs=1, progress=False)
    assert np.isfinite(history.epochs[0]["loss"])
    x[1] = np.zeros((6, 2))  # one step more is enough
    history = cylstm.Trainer(model, losses.CTC()).fit((x, LABELS), epochs=1, progress=False)
    assert np.isfinite(history.epochs[0]["loss"])


def test_labels_of_ctc_in_one_array_are_named_by_row():
    target = np.ones((60, 4), int)
    target[7, 2] = 9
    with pytest.raises(ValueError, match=r"train: target\[7\]: expected labels from 0 to 2, got 9"):
        cylstm.Trainer(model_for(3, False), losses.CTC()).fit((X, target), progress=False)
    with pytest.raises(
        ValueError, match=r"train: target\[0\]: .* 5 steps of the sequence, got 4 that need 7"
    ):
        cylstm.Trainer(model_for(3, False), losses.CTC()).fit((X, target % 9 + 1), progress=False)
