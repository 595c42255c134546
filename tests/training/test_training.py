"""The Trainer: what it computes, what it refuses, where it stops and how it goes on."""

import copy
import signal
import threading

import numpy as np
import pytest
from training_problems import pooled, series, tagged, tagger, trained

import cylstm
from cylstm import data, losses, optim
from cylstm.layers.base import describe
from cylstm.training import Checkpoints


def test_learns_with_validation_metrics_and_a_schedule():
    x, y = series(400)
    model = pooled()
    trainer = cylstm.Trainer(
        model, losses.MSE(), optim.AdamW(0.02), schedule=optim.CosineDecay(warmup=5), clip_norm=1.0, seed=0
    )
    fit = {"epochs": 15, "metrics": ("mae", "mse"), "progress": False}
    history = trainer.fit((x[:300], y[:300]), (x[300:], y[300:]), **fit)
    first, last = history.epochs[0], history.epochs[-1]
    assert last["validation"] < 0.25 * first["validation"]
    np.testing.assert_allclose(
        [e["mse"] for e in history.epochs], [e["validation"] for e in history.epochs], rtol=1e-5
    )
    assert len(history.steps["loss"]) == 15 * 10
    assert history.steps["lr"][0] == pytest.approx(0.02 / 6)
    assert history.steps["lr"][-1] < 1e-4 < history.steps["lr"][5] == 0.02
    assert trainer.optimizer.lr == 0.02  # as it was
    assert history.best_epoch == 1 + np.argmin([e["validation"] for e in history.epochs])
    assert not model.training
    found = trainer.evaluate((x[300:], y[300:]), metrics={"worst": lambda y, t: float(np.abs(y - t).max())})
    assert found["loss"] == pytest.approx(min(e["validation"] for e in history.epochs), rel=1e-5)
    assert found["worst"] > 0


def test_epoch_loss_is_weighted_by_counted_values():
    """A rate of 0 leaves the model as it is; so the mean over ragged minibatches is that of all at once."""
    model = cylstm.Sequential(cylstm.Embedding(4, 3, seed=0), cylstm.Linear(3, 4, seed=1))
    x, target = tagged(23)
    loss = losses.CrossEntropy(weight=[1.0, 2.0, 0.5, 1.0])
    history = cylstm.Trainer(model, loss, optim.SGD(0.0), seed=0).fit(
        (x, target), epochs=1, batch_size=4, progress=False
    )
    y = np.concatenate([model(ids)[0] for ids in x])
    expected, _ = loss(y, np.concatenate(target))
    assert history.epochs[0]["loss"] == pytest.approx(expected, rel=1e-6)


def test_accumulated_gradients_are_the_mean_over_minibatches():
    x, y = series(40)
    models = []
    for accumulate, batch_size in ((4, 5), (1, 20)):
        model = cylstm.Sequential(
            cylstm.GRU(2, 6, dtype="float64", seed=0),
            cylstm.Pooling(),
            cylstm.Linear(6, 1, dtype="float64", seed=1),
        )
        trainer = cylstm.Trainer(model, losses.MSE(), optim.SGD(0.1), accumulate=accumulate)
        source = data.Arrays(x, y, batch_size)
        source._plan = lambda rng, source=source: type(source)._plan(source, None)  # in order
        history = trainer.fit(source, epochs=3, progress=False)
        assert len(history.steps["loss"]) == 6
        models.append(model)
    np.testing.assert_allclose(describe(models[0]).store.data, describe(models[1]).store.data, rtol=1e-12)


def test_the_rest_of_an_epoch_makes_a_smaller_group():
    x, y = series(35)
    model = pooled()
    history = cylstm.Trainer(model, losses.MSE(), accumulate=3).fit(
        (x, y), epochs=2, batch_size=5, progress=False
    )
    assert len(history.steps["loss"]) == 2 * 3  # 7 minibatches


def test_a_token_stream_carries_the_state():
    ids = np.random.default_rng(0).integers(0, 5, 203)
    model = cylstm.Sequential(
        cylstm.Embedding(5, 3, seed=0), cylstm.RNN(3, 4, seed=1), cylstm.Linear(4, 5, seed=2)
    )
    frozen = cylstm.Trainer(model, losses.CrossEntropy(), optim.SGD(0.0))
    history = frozen.fit(data.TokenStream(ids, 2, 7), epochs=1, progress=False)
    x, target = ids[:202].reshape(2, 101).T, ids[1:].reshape(2, 101).T
    expected, _ = losses.CrossEntropy()(model(x)[0], target)
    assert history.epochs[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_truncation_updates_per_segment_and_carries_state():
    x, y = series(12, T=10)
    target = np.cumsum(x, axis=1)
    frozen = cylstm.Sequential(cylstm.GRU(2, 4, seed=0), cylstm.Linear(4, 2, seed=1))
    history = cylstm.Trainer(frozen, losses.MSE(), optim.SGD(0.0), truncate=4).fit(
        (x, target), epochs=1, progress=False
    )
    assert len(history.steps["loss"]) == 3
    y, _ = frozen(x.swapaxes(0, 1))
    assert history.epochs[0]["loss"] == pytest.approx(losses.MSE()(y, target.swapaxes(0, 1))[0], rel=1e-5)
    learned = cylstm.Trainer(frozen, losses.MSE(), optim.Adam(0.01), truncate=4, seed=0)
    history = learned.fit((x, target), epochs=30, progress=False)
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]


def test_a_schedule_lasts_as_long_as_a_truncated_training():
    x, _ = series(12, T=10)
    model = cylstm.Sequential(cylstm.GRU(2, 4, seed=0), cylstm.Linear(4, 2, seed=1))
    trainer = cylstm.Trainer(model, losses.MSE(), optim.SGD(1.0), schedule=optim.CosineDecay(), truncate=4)
    history = trainer.fit((x, x), epochs=4, batch_size=6, progress=False)  # 2 minibatches of 3 pieces
    expected = [(1 + np.cos(np.pi * n / 8)) / 2 for n in range(8)]
    np.testing.assert_allclose(history.steps["lr"], np.repeat(expected, 3), rtol=1e-12)


def test_early_stopping_restores_the_best_weights():
    x, y = series(60)
    noise = np.random.default_rng(5).standard_normal((20, 1))  # nothing to learn
    model = pooled()
    seen = []
    trainer = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.05), seed=0)
    history = trainer.fit(
        (x[:40], y[:40]), (x[40:], noise), epochs=100, patience=3, progress=False,
        callbacks=[lambda trainer, record: seen.append(describe(model).store.data.copy())],
    )  # fmt: skip
    assert history.stopped == "early"
    assert len(history.epochs) == history.best_epoch + 3 < 100
    np.testing.assert_array_equal(describe(model).store.data, seen[history.best_epoch - 1])


def test_a_callback_stops_the_training():
    _, history = trained(fit={"epochs": 9, "callbacks": [lambda trainer, record: record["epoch"] == 2]})
    assert (len(history.epochs), history.stopped) == (2, "callback")


def test_same_seed_same_bits():
    (one, first), (two, second), (other, _) = (trained(seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(describe(one).store.data, describe(two).store.data)
    assert first.steps == second.steps
    assert not np.array_equal(describe(one).store.data, describe(other).store.data)


class Broken(Exception):
    """What stops a training in the tests."""


def breaking_at(loss, n):
    """The loss, whose n-th call fails."""
    calls = []

    class Breaking(type(loss), abstract=True):
        def __call__(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == n:
                raise Broken
            return super().__call__(*args, **kwargs)

    Breaking.__name__ = type(loss).__name__
    return Breaking()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"segments": "auto"}, {"truncate": 5}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_training_goes_on_to_the_same_bits(tmp_path, options, stream):
    """Broken twice, in the middle of an epoch and in the last one; data, masks, schedule and state go on."""
    train = data.TokenStream(np.random.default_rng(0).integers(0, 4, 700), 4, 12) if stream else tagged(80)
    held_out = tagged(10, seed=9)

    def run(loss, **fit):
        model = tagger()
        trainer = cylstm.Trainer(
            model, loss, optim.RMSprop(0.01), schedule=optim.ReduceOnPlateau(0.5, 0, 0.9), seed=5, **options
        )
        fit = {"epochs": 4, "batch_size": 5, "progress": False} | fit
        return model, trainer.fit(train, held_out, **fit)

    model, history = run(losses.CrossEntropy())
    saved = {"checkpoints": Checkpoints(tmp_path / "run.ckpt", steps=1), "resume": True}
    for n in (20, 17):
        with pytest.raises(Broken):
            run(breaking_at(losses.CrossEntropy(), n), **saved)
    resumed, history_resumed = run(losses.CrossEntropy(), **saved)
    np.testing.assert_array_equal(describe(resumed).store.data, describe(model).store.data)
    assert history_resumed.steps == history.steps
    without_time = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in h.epochs] for h in (history, history_resumed)
    ]
    assert without_time[0] == without_time[1]
    again, history_again = run(losses.CrossEntropy(), **saved)  # it is finished: nothing to do
    np.testing.assert_array_equal(describe(again).store.data, describe(model).store.data)
    assert history_again.steps == history.steps
    assert history_again.best_epoch == history.best_epoch > 0


def test_a_finished_training_is_lengthened_to_the_same_bits(tmp_path):
    whole, _ = trained(fit={"epochs": 3})
    path = str(tmp_path / "run.ckpt")
    trained(fit={"epochs": 1, "checkpoints": path})
    longer, history = trained(fit={"epochs": 3, "checkpoints": path, "resume": True})
    np.testing.assert_array_equal(describe(longer).store.data, describe(whole).store.data)
    assert [e["epoch"] for e in history.epochs] == [1, 2, 3]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_preserves_best_weights_and_checkpoint(tmp_path):
    x, y = series(60)
    unbroken = pooled()
    fit = {"epochs": 6, "progress": False}
    expected = cylstm.Trainer(unbroken, losses.MSE(), optim.Adam(0.05), seed=0).fit(
        (x[:40], y[:40]), (x[40:], y[40:]), **fit
    )
    model, best = pooled(), []

    def press(trainer, record):
        best.append((record["validation"], describe(model).store.data.copy()))
        if record["epoch"] == 4:
            signal.raise_signal(signal.SIGINT)

    saved = {"checkpoints": str(tmp_path / "run.ckpt"), "resume": True}
    trainer = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.05), seed=0)
    handler = signal.getsignal(signal.SIGINT)
    history = trainer.fit((x[:40], y[:40]), (x[40:], y[40:]), callbacks=[press], **fit, **saved)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (history.stopped, len(history.epochs)) == ("interrupted", 4)
    np.testing.assert_array_equal(describe(model).store.data, min(best, key=lambda pair: pair[0])[1])
    model = pooled()
    history = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.05), seed=0).fit(
        (x[:40], y[:40]), (x[40:], y[40:]), **fit, **saved
    )
    assert history.stopped == ""
    assert history.steps == expected.steps
    np.testing.assert_array_equal(describe(model).store.data, describe(unbroken).store.data)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, history = trained(fit={"callbacks": [lambda *_: signal.raise_signal(signal.SIGINT)]})
    assert (len(history.epochs), history.stopped) == (2, "")


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_last_epoch_is_not_forgotten():
    _, history = trained(fit={"callbacks": [lambda *_: signal.raise_signal(signal.SIGINT)], "epochs": 1})
    assert (len(history.epochs), history.stopped) == (1, "interrupted")


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_ends_at_once():
    def press(trainer, record):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(fit={"callbacks": [press]})


def test_trains_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(describe(trained()[0]).store.data))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], describe(trained()[0]).store.data)


def test_a_model_and_its_optimiser_are_copied_together():
    model, _ = trained()
    twin, adam = copy.deepcopy(model), optim.Adam(0.01)
    assert twin.parameters.keys() == model.parameters.keys()
    adam.step(twin)


def test_the_history_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    _, history = trained(fit={"validation": tagged(10, seed=3)})
    history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes()[:4] == b"\x89PNG"
    assert "validation=" in repr(history)


def test_windows_of_several_horizons_and_columns_are_learnt():
    t = np.arange(300)
    series = np.stack([np.sin(t / 5), np.cos(t / 7), np.ones(300)], axis=1)
    train, validation = data.Windows(series, 20, horizon=3, targets=[0, 1]).split(validation=0.2)
    layers = cylstm.GRU(3, 12, seed=0), cylstm.Pooling("last"), cylstm.Linear(12, 6, seed=1)
    trainer = cylstm.Trainer(cylstm.Sequential(*layers), losses.MSE(), optim.Adam(0.02), seed=0)
    history = trainer.fit(train, validation, epochs=15, metrics=("mae",), progress=False)
    assert history.epochs[-1]["validation"] < 0.05 * history.epochs[0]["validation"]


def classified(V=3, batch_first=False):
    gru = cylstm.GRU(2, 4, seed=0, batch_first=batch_first)
    return cylstm.Sequential(gru, cylstm.Linear(4, V, seed=1))


def test_labels_of_ctc_are_of_sequences_however_they_come():
    x, _ = series(20)
    labels = np.array([[1, 1], [2, 2]] * 10)
    losses_of = []
    for target in (labels, list(labels)):
        trainer = cylstm.Trainer(classified(batch_first=True), losses.CTC(batch_first=True), seed=0)
        history = trainer.fit((x, target), epochs=1, batch_size=2, progress=False)
        losses_of.append(history.steps["loss"])
    assert losses_of[0] == losses_of[1]
    with pytest.raises(ValueError, match="truncate: expected None unless"):
        cylstm.Trainer(classified(), losses.CTC(), truncate=3)


def test_target_kind_follows_model_not_shape():
    x, _ = series(36, T=6)
    target = np.arange(36 * 6).reshape(36, 6) % 9
    results = []
    for kind in (int, float):
        model = cylstm.Sequential(cylstm.GRU(2, 4, seed=0), cylstm.Pooling(), cylstm.Linear(4, 6, seed=1))
        trainer = cylstm.Trainer(model, losses.MSE(), seed=0)
        fit = {"epochs": 1, "batch_size": 6, "progress": False}
        results.append(trainer.fit((x, target.astype(kind)), **fit).steps["loss"])
    assert results[0] == results[1]


def test_metrics_in_numpys_numbers_get_into_checkpoints(tmp_path):
    x, y = series(40)
    path = tmp_path / "run.ckpt"
    seen = []
    trainer = cylstm.Trainer(pooled(), losses.MSE(), seed=0)
    history = trainer.fit(
        (x, y), (x, y), epochs=3, progress=False, checkpoints=path,
        metrics={"worst": lambda y, target: np.abs(y - target).max()},
        callbacks=[lambda trainer, _: seen.append(trainer.model.eval()), lambda *_: np.bool_(len(seen) == 2)],
    )  # fmt: skip
    assert (len(history.epochs), history.stopped) == (2, "callback")
    assert type(history.epochs[0]["worst"]) is float
    assert path.exists()
    for metrics in ([losses.MSE().__call__, "mae", "mae"], {"loss": abs}):
        with pytest.raises(ValueError, match="metrics: expected unique, unreserved names"):
            trainer.fit((x, y), (x, y), metrics=metrics, progress=False)


def test_accuracy_with_ignored_labels_and_binary_logits(rng):
    x, _ = series(40)
    labels = rng.integers(0, 3, (40, 9))
    some = labels.copy()
    some[:, 3:] = -100
    trainer = cylstm.Trainer(classified(), losses.CrossEntropy())
    first = trainer.evaluate((x[:, :3], labels[:, :3]), metrics="accuracy")
    assert trainer.evaluate((x, some), metrics=["accuracy"]) == pytest.approx(first)
    model = cylstm.Sequential(cylstm.GRU(2, 4, seed=0), cylstm.Pooling(), cylstm.Linear(4, 3, seed=1))
    target = rng.integers(0, 2, (40, 3))
    found = cylstm.Trainer(model, losses.BinaryCrossEntropy()).evaluate((x, target), metrics=["accuracy"])
    y, _ = model(x.swapaxes(0, 1))
    assert found["accuracy"] == pytest.approx(((y > 0) == target).mean())


def test_fit_restarts_schedule():
    x, y = series(20)
    trainer = cylstm.Trainer(
        pooled(), losses.MSE(), optim.Adam(0.01), schedule=optim.ReduceOnPlateau(0.5, 0, 0.99)
    )
    rates = [trainer.fit((x, y), epochs=4, progress=False).steps["lr"] for _ in range(2)]
    assert rates[0] == rates[1]
    assert rates[0][-1] < 0.01


def test_settings_changed_by_a_callback_apply_from_the_next_update():
    x = np.ones((20, 4, 2), np.float32)
    model = cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Linear(3, 2, seed=1))
    trainer = cylstm.Trainer(model, losses.MSE(), optim.SGD(0.1), seed=0)
    parameters = []

    def freeze(trainer, record):
        trainer.clip_value = 1e-30
        parameters.append(model.state_dict()["1.weight"])

    before = model.state_dict()["1.weight"]
    trainer.fit((x, x), epochs=1, batch_size=5, on_update=freeze, progress=False)
    assert len(parameters) == 4
    assert (parameters[0] != before).any()
    assert all((array == parameters[0]).all() for array in parameters)
