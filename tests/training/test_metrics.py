"""Metrics are those of all validation data at once, whatever the minibatches."""

import numpy as np
import pytest
from loss_cases import CASES
from training_problems import pooled, series, tagged, tagger

import cylstm
from cylstm import losses
from cylstm.training import RowSum, metrics

LENGTHS = [5, 1, 8, 2, 3, 3, 7]  # ragged, so that minibatches have different numbers of rows


def rmse(y, target):
    return np.sqrt(np.mean((y - target) ** 2))


def r2(y, target):
    return 1 - np.sum((y - target) ** 2) / np.sum((target - target.mean()) ** 2)


def sums(y, target):
    return np.array([np.square(y - target).sum(), target.sum(), np.square(target).sum()])


summed_rmse = RowSum(lambda y, target: np.square(y - target).sum(), lambda total, n: np.sqrt(total / n))
summed_r2 = RowSum(sums, lambda s, n: 1 - s[0] / (s[2] - s[1] ** 2 / n))
SEVERAL = {"rmse": rmse, "r2": r2, "rmse by sums": summed_rmse, "r2 by sums": summed_r2}


def regression(steps, pools, batch_first=False):
    """A float64 model of one output, its loss, x, and targets on the scale of the row."""
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, 3)) for n in LENGTHS]
    per_step = steps == "all" and not pools
    target = [3 * i + rng.standard_normal((n, 1) if per_step else 1) for i, n in enumerate(LENGTHS)]
    pool = [cylstm.Pooling("last")] if pools else []
    model = cylstm.Sequential(
        cylstm.LSTM(3, 4, seed=0, dtype="float64", batch_first=batch_first),
        *pool,
        cylstm.Linear(4, 1, seed=1, dtype="float64"),
    )
    return model, losses.MSE(steps, batch_first and not pools), x, target if per_step else np.array(target)


def rows_of(model, x, target, steps, pools):
    """All rows of outputs and targets that count, one sequence at a time."""
    outputs = [model(part)[0] for part in x]
    if pools:
        return np.array(outputs), target
    if steps == "last":
        return np.array([y[-1] for y in outputs]), target
    return np.concatenate(outputs), np.concatenate(target)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("steps, pools", [("all", False), ("last", False), ("all", True)])
def test_metrics_are_of_all_rows_whatever_the_batch_size(steps, pools, batch_first):
    model, loss, x, target = regression(steps, pools, batch_first)
    rows = rows_of(model, x, target, steps, pools)
    expected = {"rmse": rmse(*rows), "r2": r2(*rows), "mae": np.abs(rows[0] - rows[1]).mean()}
    for batch_size in (1, 2, 3, 7):
        trainer = cylstm.Trainer(model, loss)
        found = trainer.evaluate((x, target), batch_size=batch_size, metrics={**SEVERAL, "mae": metrics.mae})
        for name in ("rmse", "r2"):
            assert found[name] == pytest.approx(expected[name], rel=1e-12)
            assert found[f"{name} by sums"] == pytest.approx(expected[name], rel=1e-9)
        assert found["mae"] == pytest.approx(expected["mae"], rel=1e-12)
        assert found["loss"] == pytest.approx(expected["rmse"] ** 2, rel=1e-12)


def test_the_history_has_metrics_of_all_rows():
    model, loss, x, target = regression("all", True)
    trainer = cylstm.Trainer(model, loss, cylstm.optim.SGD(0.0))
    fit = {"epochs": 1, "batch_size": 2, "progress": False}
    record = trainer.fit((x, target), (x, target), metrics=[rmse, "mse"], **fit).epochs[0]
    rows = rows_of(model, x, target, "all", True)
    assert record["rmse"] == pytest.approx(rmse(*rows), rel=1e-12)
    assert record["mse"] == pytest.approx(rmse(*rows) ** 2, rel=1e-12)
    for name in ("loss", "validation"):
        assert record[name] == pytest.approx(rmse(*rows) ** 2, rel=1e-12)


def test_a_metric_may_be_defined_for_all_rows_only():
    """As the area under a curve, for which both classes have to be there."""
    x, _ = series(12)
    target = np.array([[0.0]] * 6 + [[1.0]] * 6)

    def separation(y, target):
        if not 0 < target.mean() < 1:
            raise ValueError("expected both classes")
        return y[target == 1].mean() - y[target == 0].mean()

    model = pooled()
    trainer, y = cylstm.Trainer(model, losses.BinaryCrossEntropy()), model(x.swapaxes(0, 1))[0]
    found = trainer.evaluate((x, target), batch_size=4, metrics=[separation])
    assert found["separation"] == pytest.approx(separation(y, target), rel=1e-5)
    with pytest.raises(ValueError, match="data: expected both classes"):
        trainer.evaluate((x, np.ones((12, 1))), batch_size=4, metrics=[separation])


def test_a_row_sum_holds_one_minibatch_and_a_function_sees_all():
    seen = {"sum": [], "function": []}

    def noting(name):
        return lambda y, target: (seen[name].append(len(y)), 0.0)[1]

    model, loss, x, target = regression("all", False)
    cylstm.Trainer(model, loss).evaluate(
        (x, target), batch_size=3, metrics={"a": RowSum(noting("sum")), "b": noting("function")}
    )
    assert seen["sum"][-3:] == [14, 8, 7]
    assert seen["function"][-1] == sum(LENGTHS)


def test_accuracy_weighs_minibatches_by_labels_that_count():
    x, target = tagged(23)
    target = [np.where(np.arange(len(labels)) % 3 == 0, -100, labels) for labels in target]
    target[0][:] = -100
    model = tagger()
    y = np.concatenate([model(ids)[0] for ids in x])
    labels = np.concatenate(target)
    expected = np.mean(y.argmax(axis=1)[labels >= 0] == labels[labels >= 0])
    for batch_size in (1, 4, 23):
        found = cylstm.Trainer(model, losses.CrossEntropy()).evaluate(
            (x, target), batch_size=batch_size, metrics=["accuracy"]
        )
        assert found["accuracy"] == pytest.approx(expected)


def ctc_problem():
    (case,) = (case for case in CASES if str(case) == "CTC")
    rng = np.random.default_rng(0)
    labels = case.target(rng, max(LENGTHS), LENGTHS)
    x = [rng.standard_normal((n, 3)) for n in LENGTHS]
    model = cylstm.Sequential(cylstm.LSTM(3, 4, seed=0), cylstm.Linear(4, case.outputs, seed=1))
    return model, x, labels


def test_metrics_of_ctc_have_lists_of_sequences():
    model, x, labels = ctc_problem()
    got = []

    def lengths(y, target):
        got[:] = y, target
        return len(y)

    trainer = cylstm.Trainer(model, losses.CTC())
    found = trainer.evaluate((x, labels), batch_size=3, metrics=[lengths, RowSum(lambda y, _: len(y))])
    assert found["lengths"] == len(LENGTHS)
    assert found["<lambda>"] == 1
    for part, y, wanted, target in zip(x, got[0], labels, got[1], strict=True):
        np.testing.assert_allclose(y, model(part)[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(target, wanted)
    with pytest.raises(ValueError, match="data: metrics: accuracy needs a target at every step, which CTC"):
        trainer.evaluate((x, labels), metrics=["accuracy"])


def test_unusable_metrics_are_refused():
    model, loss, x, target = regression("all", True)
    trainer = cylstm.Trainer(model, loss)
    with pytest.raises(TypeError, match="data: metrics: expected a number of pair, got"):
        trainer.evaluate((x, target), metrics={"pair": lambda y, target: (1.0, 2.0)})
    with pytest.raises(TypeError, match="finish: expected a function, got int"):
        RowSum(rmse, 3)
    quantile = cylstm.Trainer(
        cylstm.Sequential(cylstm.LSTM(3, 4), cylstm.Pooling(), cylstm.Linear(4, 2)),
        losses.Quantile([0.1, 0.9]),
    )
    with pytest.raises(
        ValueError, match=r"metrics: mae expected as many targets as outputs, \(7, 2\), got \(7, 1\)"
    ):
        quantile.evaluate((x, target), metrics=["mae"])


def test_a_built_in_metric_is_called_by_itself():
    y, target = np.array([[0.0, 2.0], [3.0, 1.0]]), np.array([[1.0, 2.0], [3.0, 3.0]])
    assert metrics.mae(y, target) == pytest.approx(0.75)
    assert metrics.mse(y, target) == pytest.approx(1.25)
    assert metrics.accuracy(y, np.array([1, 1])) == pytest.approx(0.5)
    assert (metrics.mae.__name__, metrics.mae.__doc__) == ("mae", "Mean absolute error.")


def test_metrics_cannot_modify_inputs_of_others():
    def changing(y, target):
        y -= target
        return 0.0

    model, loss, x, target = regression("all", True)
    before = target.copy()
    for metric in (changing, RowSum(changing)):
        with pytest.raises(ValueError, match="read-only"):
            cylstm.Trainer(model, loss).evaluate((x, target), metrics={"changing": metric, "rmse": rmse})
    np.testing.assert_array_equal(target, before)
    assert target.flags.writeable
