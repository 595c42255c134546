"""However a training ends: the best weights, the history and a checkpoint are there, and no thread."""

import signal
import threading
import time

import numpy as np
import pytest
from training_problems import pooled, series, trained

import cylstm
from cylstm import data, losses, optim
from cylstm.layers.base import describe
from cylstm.training import Checkpoints, NonFiniteError, checkpoints

EPOCHS = 5


class Broken(Exception):
    """What stops a training in the tests."""


class Scheduled(optim.Schedule):
    """A factor for each epoch, or an exception."""

    def __init__(self, *factors):
        self.factors = factors

    def factor(self, n):
        if self.factors[n] is None:
            raise Broken
        return self.factors[n]


class Slow(data.Arrays):
    """Slow enough for the thread that makes minibatches ahead; the n-th fails."""

    def __init__(self, *args, fails_at, delay):
        super().__init__(*args, target_per="sequence")
        self.fails_at, self.delay, self.made = fails_at, delay, 0

    def _plan(self, rng):
        self.counts = rng is not None  # the check before a training has no order
        return super()._plan(rng)

    def _batch(self, part):
        self.made += self.counts
        if self.made == self.fails_at:
            raise Broken
        time.sleep(self.delay)
        return super()._batch(part)


def raise_at(n, error=Broken):
    """A callback or metric that raises at its n-th call."""
    calls = []

    def function(*args):
        calls.append(1)
        if len(calls) == n:
            raise error
        return 0.0

    return function


def sources(**slow):
    x, y = series(60)
    train = Slow(x[:40], y[:40], 8, **slow) if slow else data.Arrays(x[:40], y[:40], 8)
    return train, data.Arrays(x[40:], y[40:], 20)


def ends(kind):
    """Keyword arguments of `Trainer` and of `fit` for a training that fails in its fourth epoch."""
    return {
        "divergence": ({"schedule": Scheduled(1, 1, 1, 1e30, 1e30)}, {}),
        "schedule": ({"schedule": Scheduled(1, 1, 1, None)}, {}),
        "callback": ({}, {"callbacks": [raise_at(4)]}),
        "update": ({}, {"on_update": [raise_at(18)]}),
        "metric": ({}, {"metrics": {"mine": raise_at(5)}}),
        "memory": ({}, {"on_update": [raise_at(18, MemoryError)]}),
        "exit": ({}, {"on_update": [raise_at(18, SystemExit)]}),
        "keyboard": ({}, {"on_update": [raise_at(18, KeyboardInterrupt)]}),
        "source": ({}, {"source": {"fails_at": 19, "delay": 0}}),
        "prefetched source": ({}, {"source": {"fails_at": 19, "delay": 3e-3}}),
    }[kind]


RESUMABLE = ["callback", "update", "metric", "memory", "exit", "keyboard", "source", "prefetched source"]
ERRORS = {
    "divergence": NonFiniteError,
    "memory": MemoryError,
    "exit": SystemExit,
    "keyboard": KeyboardInterrupt,
}


def fitted(model, kind=None, saved=None, **fit):
    """The history, or the exception, of a training of 5 epochs."""
    options, more = ends(kind) if kind else ({}, {})
    train, held_out = sources(**more.pop("source", {}))
    optimizer = optim.SGD(0.05) if kind == "divergence" else optim.Adam(0.02)
    trainer = cylstm.Trainer(model, losses.MSE(), optimizer, seed=0, **options)
    fit = {"epochs": EPOCHS, "progress": False, "checkpoints": saved} | more | fit
    threads = threading.active_count()
    try:
        return trainer.fit(train, held_out, **fit)
    except BaseException as error:
        assert (trainer.optimizer.lr, model.training) == (0.05 if kind == "divergence" else 0.02, False)
        until = time.monotonic() + 5
        while threading.active_count() > threads and time.monotonic() < until:
            time.sleep(0.01)
        assert threading.active_count() == threads
        return error


@pytest.mark.parametrize("kind", ["divergence", "schedule", *RESUMABLE])
def test_exception_preserves_best_weights_history_and_checkpoint(kind, tmp_path):
    model, path = pooled(), tmp_path / "run.ckpt"
    error = fitted(model, kind, path)
    assert type(error) is ERRORS.get(kind, Broken)
    history = error.history
    finished = 4 if kind == "callback" else 3
    assert len(history.epochs) == finished
    assert history.stopped == ("interrupted" if kind == "keyboard" else "error")
    assert len({len(values) for values in history.steps.values()}) == 1
    best = min(record["validation"] for record in history.epochs)
    assert history.epochs[history.best_epoch - 1]["validation"] == best
    found = cylstm.Trainer(model, losses.MSE()).evaluate(sources()[1])["loss"]
    assert found == pytest.approx(best, rel=1e-6)
    tensors, values = checkpoints.read(path)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert values["position"]["epoch"] == finished


@pytest.mark.parametrize("kind", RESUMABLE)
def test_after_an_exception_a_training_resumes_bit_identically(kind, tmp_path):
    whole, resumed, path = pooled(), pooled(), tmp_path / "run.ckpt"
    metrics = {"metrics": {"mine": lambda y, target: 0.0}} if kind == "metric" else {}
    expected = fitted(whole, **metrics)
    assert isinstance(fitted(resumed, kind, path), BaseException)
    resumed, seen = pooled(), []
    callbacks = [lambda _, record: seen.append(record["epoch"])]
    history = fitted(resumed, saved=path, resume=True, callbacks=callbacks, **metrics)
    np.testing.assert_array_equal(describe(resumed).store.data, describe(whole).store.data)
    assert history.steps == expected.steps
    assert (history.best_epoch, history.stopped) == (expected.best_epoch, "")
    assert seen == [4, 5]  # the callback that failed is called for its epoch again


def test_diverged_training_restores_previous_epoch(tmp_path):
    model, path, states = pooled(), tmp_path / "run.ckpt", []
    callbacks = [lambda t, _: states.append(describe(t.model).store.data.copy())]
    error = fitted(model, "divergence", path, callbacks=callbacks)
    assert "update 17: the loss is" in str(error) or "update 17: the gradient is" in str(error)
    assert "lower the learning rate (lr=0.05, 5e+28 by the schedule), or set clip_norm=1.0" in str(error)
    tensors, values = checkpoints.read(path)
    np.testing.assert_array_equal(tensors["parameters"], states[2])
    assert (values["position"]["epoch"], values["position"]["batch"]) == (3, 0)


def test_checkpoint_not_overwritten_with_nonfinite_parameters(tmp_path):
    """An update that makes them infinite is due for a checkpoint before any loss has shown it."""
    model, path = pooled(), tmp_path / "run.ckpt"
    error = fitted(model, "divergence", Checkpoints(path, steps=1))
    assert isinstance(error, NonFiniteError)
    assert np.isfinite(checkpoints.read(path)[0]["parameters"]).all()


def test_failed_update_without_validation_restores_weights():
    x, y = series(40)
    states = []

    class Spoiled(losses.MSE, abstract=True):
        def __call__(self, *args, **kwargs):
            value, dy = super().__call__(*args, **kwargs)
            if len(states) == 7:
                dy[...] = np.inf
            return value, dy

    model = pooled()
    trainer = cylstm.Trainer(model, Spoiled(), optim.Adam(0.02), seed=0)
    update = [lambda t, _: states.append(describe(t.model).store.data.copy())]
    with pytest.raises(NonFiniteError, match="update 8: the gradient is not finite"):
        trainer.fit((x, y), epochs=5, batch_size=8, progress=False, on_update=update)
    np.testing.assert_array_equal(describe(model).store.data, states[-1])


def test_divergence_without_validation_restores_previous_epoch():
    x, y = series(40)
    model, states = pooled(), []
    trainer = cylstm.Trainer(model, losses.MSE(), optim.SGD(0.05), schedule=Scheduled(1, 1, 1e30), seed=0)
    with pytest.raises(NonFiniteError, match="grown") as caught:
        trainer.fit(
            (x, y), epochs=3, batch_size=8, progress=False,
            callbacks=[lambda t, _: states.append(describe(t.model).store.data.copy())],
        )  # fmt: skip
    np.testing.assert_array_equal(describe(model).store.data, states[1])
    assert len(caught.value.history.epochs) == 2


def test_an_infinite_last_update_is_an_error():
    """No later loss would show it."""
    x, y = series(8)
    model = pooled()
    start = describe(model).store.data.copy()
    with pytest.raises(NonFiniteError, match=r"epoch 1, update 1: the parameter .* is not finite"):
        cylstm.Trainer(model, losses.MSE(), optim.SGD(1e300), seed=0).fit((x, y), epochs=1, progress=False)
    np.testing.assert_array_equal(describe(model).store.data, start)


def test_failure_before_first_update_preserves_earlier_file(tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"the earlier file")
    with pytest.raises(Broken):
        cylstm.Trainer(pooled(), losses.MSE(), schedule=Scheduled(None)).fit(
            series(20), epochs=1, checkpoints=path, progress=False
        )
    assert path.read_bytes() == b"the earlier file"


def test_an_exception_that_takes_no_attributes_passes_on():
    class Closed(Exception):
        def __setattr__(self, name, value):
            if not name.startswith("__"):
                raise RuntimeError(name)
            super().__setattr__(name, value)

    with pytest.raises(Closed):
        trained(fit={"callbacks": [raise_at(1, Closed)]})


def test_checkpoint_out_of_memory_does_not_stop_training(tmp_path, monkeypatch):
    def write(*args):
        raise MemoryError

    monkeypatch.setattr(checkpoints, "write", write)
    with pytest.warns(RuntimeWarning, match=r"could not be written \(out of memory\)"):
        _, history = trained(fit={"checkpoints": tmp_path / "run.ckpt"})
    assert len(history.epochs) == 2


def test_a_training_in_pieces_of_time_resumes_between_two_pieces(tmp_path):
    x, _ = series(12, T=10)

    def fit(**options):
        model = cylstm.Sequential(cylstm.GRU(2, 4, seed=0), cylstm.Linear(4, 2, seed=1))
        trainer = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.01), truncate=3, seed=0)
        options = {"epochs": 3, "batch_size": 6, "progress": False} | options
        return model, trainer.fit((x, np.cumsum(x, axis=1)), **options)

    whole, expected = fit()
    path = tmp_path / "run.ckpt"
    with pytest.raises(Broken):
        fit(checkpoints=path, on_update=[raise_at(14)])  # the second piece of the second minibatch
    assert checkpoints.read(path)[1]["position"]["piece"] == 2
    resumed, history = fit(checkpoints=path, resume=True)
    assert history.steps == expected.steps
    np.testing.assert_array_equal(describe(resumed).store.data, describe(whole).store.data)


def test_max_seconds_ends_a_training_that_a_later_one_continues(tmp_path):
    x, y = series(60)
    whole, path = pooled(), tmp_path / "run.ckpt"

    def fit(model, epochs=3, max_seconds=None, **options):
        trainer = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.02), seed=0, max_seconds=max_seconds)
        return trainer.fit((x, y), (x, y), epochs, batch_size=8, progress=False, **options)

    expected = fit(whole)
    wait = [lambda *_: time.sleep(0.02)]
    start = time.monotonic()
    history = fit(pooled(), max_seconds=0.1, checkpoints=path, on_update=wait)
    assert history.stopped == "time"
    assert 0.1 <= time.monotonic() - start < 5
    assert 0 < len(history.steps["loss"]) < len(expected.steps["loss"])
    resumed = pooled()
    history = fit(resumed, max_seconds=60, checkpoints=path, resume=True)
    assert history.stopped == ""
    np.testing.assert_array_equal(describe(resumed).store.data, describe(whole).store.data)


def test_max_seconds_leaves_the_best_weights():
    x, y = series(60)
    model, seen = pooled(), []
    trainer = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.3), seed=0, max_seconds=0.2)

    def after_epoch(trainer, record):
        seen.append((record["validation"], describe(model).store.data.copy()))
        time.sleep(0.01)

    history = trainer.fit((x[:40], y[:40]), (x[40:], y[40:]), 10**6, callbacks=[after_epoch], progress=False)
    assert history.stopped == "time"
    np.testing.assert_array_equal(describe(model).store.data, min(seen, key=lambda pair: pair[0])[1])


def test_on_update_sees_every_update_and_stops_the_training(tmp_path):
    records, path = [], tmp_path / "run.ckpt"

    def stop(trainer, record):
        records.append(record)
        return record["update"] == 3

    _, history = trained(fit={"on_update": [stop], "batch_size": 20, "checkpoints": path})
    assert [(record["epoch"], record["update"]) for record in records] == [(1, 1), (1, 2), (1, 3)]
    for name in ("loss", "lr", "grad_norm"):
        assert [record[name] for record in records] == history.steps[name]
    assert (history.stopped, len(history.epochs)) == ("callback", 0)
    with pytest.warns(RuntimeWarning, match="a callback stopped this training in epoch 1 of 2"):
        _, again = trained(fit={"on_update": stop, "batch_size": 20, "checkpoints": path, "resume": True})
    assert again.steps == history.steps
    continued, history = trained(fit={"batch_size": 20, "checkpoints": path, "resume": True})
    whole, expected = trained(fit={"batch_size": 20})
    assert history.steps == expected.steps
    np.testing.assert_array_equal(describe(continued).store.data, describe(whole).store.data)


@pytest.mark.parametrize("name", ["callbacks", "on_update"])
def test_non_callable_callbacks_are_rejected(name):
    with pytest.raises(TypeError, match=rf"{name}: expected functions \(trainer, record\), got int"):
        trained(fit={name: [3]})


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_keeps_the_best_weights(tmp_path):
    x, y = series(60)
    model, path = pooled(), tmp_path / "run.ckpt"

    def press(trainer, record):
        if record["epoch"] == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    trainer = cylstm.Trainer(model, losses.MSE(), optim.Adam(0.02), seed=0)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit((x, y), (x, y), 5, callbacks=[press], checkpoints=path, progress=False)
    assert len(caught.value.history.epochs) == 3
    assert checkpoints.read(path)[1]["position"]["epoch"] == 3
    best = min(record["validation"] for record in caught.value.history.epochs)
    assert trainer.evaluate((x, y))["loss"] == pytest.approx(best, rel=1e-6)


def test_long_sequences_with_few_updates_are_pointed_to_truncate():
    x, y = series(6, T=300)
    target = np.cumsum(x, axis=1)

    def fit(model=None, target=target, loss=None, **options):
        model = model or cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Linear(3, 2, seed=1))
        cylstm.Trainer(model, losses.MSE(), **options).fit((x, target), epochs=2, progress=False)

    with pytest.warns(UserWarning, match=r"300 steps, and few updates, 1 an epoch; Trainer\(truncate=100\)"):
        fit()
    fit(truncate=100)
    fit(segments="auto")
    fit(pooled(), y)
    fit(cylstm.Sequential(cylstm.GRU(2, 3, bidirectional=True, seed=0), cylstm.Linear(6, 2, seed=1)))
