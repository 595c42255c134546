"""Minibatches of a group are one: the same gradients and records as of all their sequences at once."""

import numpy as np
import pytest
from loss_cases import CASES
from training_problems import series

import cylstm
from cylstm import data, losses, optim
from cylstm.layers.base import describe

LENGTHS = [6, 1, 9, 2, 2, 7, 3, 1, 4]  # in minibatches of 2, accumulated by 4, the last group is one of one
EVERY = pytest.mark.parametrize("case", CASES, ids=str)


class InOrder(data.Arrays):
    """Samples that are never shuffled."""

    def _plan(self, rng):
        return super()._plan(None)


def model_for(outputs):
    lstm = cylstm.LSTM(3, 4, seed=0, dtype="float64")
    return cylstm.Sequential(lstm, cylstm.Linear(4, outputs, seed=1, dtype="float64"))


def samples(case, rng, steps="all"):
    """Ragged sequences and their targets, in lists."""
    target = case.target(rng, max(LENGTHS), LENGTHS)
    x = [rng.standard_normal((n, 3)) for n in LENGTHS]
    if isinstance(target, list):
        return x, target
    return x, [target[n - 1 if steps == "last" else slice(n), b] for b, n in enumerate(LENGTHS)]


def records(loss, x, target, batch_size, accumulate, **options):
    """The parameters and the history after an epoch."""
    outputs = options.pop("outputs")
    model = model_for(outputs)
    trainer = cylstm.Trainer(model, loss, optim.SGD(0.5), accumulate=accumulate, seed=0, **options)
    kind = (
        "step" if isinstance(target, list) and loss.steps == "all" and not loss.of_sequences else "sequence"
    )
    source = InOrder(x, target, batch_size, target_per=kind)
    history = trainer.fit(source, epochs=1, progress=False)
    return np.concatenate([value.ravel() for value in model.state_dict().values()]), history


@pytest.mark.parametrize("options", [{}, {"segments": 3}, {"clip_norm": 0.05}], ids=str)
@EVERY
def test_accumulated_minibatches_give_the_update_of_one(rng, case, options):
    for steps in case.steps if "segments" not in options else ("all",):
        x, target = samples(case, rng, steps)
        loss = case.make(**({"steps": steps} if len(case.steps) > 1 else {}))
        whole, expected = records(loss, x, target, 8, 1, outputs=case.outputs, **options)
        parts, history = records(loss, x, target, 2, 4, outputs=case.outputs, **options)
        np.testing.assert_allclose(parts, whole, rtol=1e-10, atol=1e-13)
        assert len(history.steps["loss"]) == len(expected.steps["loss"])
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(history.steps[name], expected.steps[name], rtol=1e-10)
            np.testing.assert_allclose(history.epochs[0][name], expected.epochs[0][name], rtol=1e-10)


@EVERY
def test_losses_do_not_depend_on_the_batch_size(rng, case):
    x, target = samples(case, rng)
    kind = "sequence" if case.make().of_sequences else "step"
    found = [
        cylstm.Trainer(model_for(case.outputs), case.make()).evaluate(
            InOrder(x, target, size, target_per=kind)
        )
        for size in (9, 4, 1)
    ]
    np.testing.assert_allclose([f["loss"] for f in found], found[0]["loss"], rtol=1e-12)


def test_zero_weight_minibatch_keeps_smoothing_term(rng):
    """One minibatch has labels of a class without weight only: they count for nothing but are smoothed."""
    loss = losses.CrossEntropy(weight=[0.0, 2.0], label_smoothing=0.2)
    x, target = rng.standard_normal((4, 5, 3)), np.array([[0] * 5, [0] * 5, [1, 0, 1, 1, 0], [1] * 5])
    results = [records(loss, x, list(target), *sizes, outputs=2) for sizes in ((4, 1), (2, 2), (1, 4))]
    for parameters, history in results[1:]:
        np.testing.assert_allclose(parameters, results[0][0], rtol=1e-12)
        np.testing.assert_allclose(history.steps["loss"], results[0][1].steps["loss"], rtol=1e-12)
        np.testing.assert_allclose(history.epochs[0]["loss"], results[0][1].epochs[0]["loss"], rtol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_minibatch_without_counted_values_is_ignored(rng, accumulate):
    """They make no update, so that momentum and weight decay do not act, and leave no record."""
    x, labels = rng.standard_normal((8, 5, 3)), rng.integers(0, 2, (8, 5))
    labels[2:6] = -100
    models, histories = [], []
    for part in (slice(None), [0, 1, 6, 7]):
        model = model_for(2)
        optimizer = optim.AdamW(0.01, weight_decay=0.5)
        trainer = cylstm.Trainer(model, losses.CrossEntropy(), optimizer, accumulate=accumulate)
        source = InOrder(x[part], labels[part], 2 // accumulate, target_per="step")
        histories.append(trainer.fit(source, epochs=2, progress=False))
        models.append(model)
    np.testing.assert_array_equal(describe(models[0]).store.data, describe(models[1]).store.data)
    assert histories[0].steps == histories[1].steps
    assert [e["loss"] for e in histories[0].epochs] == [e["loss"] for e in histories[1].epochs]


def test_segment_without_counted_values_is_ignored(rng):
    x, labels = rng.standard_normal((2, 9, 3)), rng.integers(0, 2, (2, 9))
    labels[:, 3:6] = -100
    model = model_for(2)
    history = cylstm.Trainer(model, losses.CrossEntropy(), optim.SGD(0.0), truncate=3).fit(
        (x, labels), epochs=1, progress=False
    )
    assert len(history.steps["loss"]) == 2
    expected, _ = losses.CrossEntropy()(model(x.swapaxes(0, 1))[0], labels.T)
    assert history.epochs[0]["loss"] == pytest.approx(expected, rel=1e-12)


def test_pooled_models_accumulate_a_smaller_last_minibatch():
    """8 + 1 samples: the gradient of 9, in which the last minibatch is one ninth and not a half."""
    x, y = series(9)
    updates = []
    for batch_size, accumulate in ((9, 1), (8, 2)):
        gru, linear = cylstm.GRU(2, 3, seed=0, dtype="float64"), cylstm.Linear(3, 1, seed=1, dtype="float64")
        model = cylstm.Sequential(gru, cylstm.Pooling("last"), linear)
        trainer = cylstm.Trainer(model, losses.MSE(), optim.SGD(1.0), accumulate=accumulate)
        trainer.fit(InOrder(x, y, batch_size), epochs=1, progress=False)
        updates.append(describe(model).store.data.copy())
    np.testing.assert_allclose(updates[1], updates[0], rtol=1e-10, atol=1e-14)
