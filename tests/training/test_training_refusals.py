"""What a Trainer refuses: data and arguments before training, numbers that are not finite in it."""

import copy

import numpy as np
import pytest
from training_problems import pooled, series, tagged, trained

import cylstm
from cylstm import data, losses, optim
from cylstm.layers.base import describe
from cylstm.training import CheckpointError, NonFiniteError, checkpoints


def test_a_loss_that_is_not_finite_stops_with_its_place():
    x, y = series(40)
    model = cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Pooling(), cylstm.Linear(3, 1, seed=1))
    start = describe(model).store.data.copy()
    trainer = cylstm.Trainer(model, losses.MSE(), optim.SGD(1e30), seed=0)
    with pytest.raises(
        NonFiniteError,
        match=r"minibatch 2 of 2, update 2: the (loss|gradient) is .*learning rate \(lr=1e\+30\)",
    ):
        trainer.fit((x, y), batch_size=20, epochs=3, progress=False)
    np.testing.assert_array_equal(describe(model).store.data, start)  # update 1 has spoiled the parameters
    broken = cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Pooling(), cylstm.Linear(3, 1, seed=1))
    state = broken.state_dict()
    state["2.bias"][0] = np.nan
    broken.load_state_dict(state)
    with pytest.raises(
        NonFiniteError, match=r"update 1: the loss is nan; the parameter 2\.bias is not finite"
    ):
        cylstm.Trainer(broken, losses.MSE()).fit((x, y), progress=False)
    assert not broken.training


def test_a_gradient_that_is_not_finite_leaves_the_weights():
    class Spoiled(losses.MSE, abstract=True):
        def __call__(self, *args, **kwargs):
            value, dy = super().__call__(*args, **kwargs)
            dy[3, 0] = np.inf
            return value, dy

    model = cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Linear(3, 2, seed=1))
    start = describe(model).store.data.copy()
    x, _ = series(8)
    with pytest.raises(
        NonFiniteError, match=r"update 1: the gradient is not finite; first in the gradient of 1\.bias"
    ):
        cylstm.Trainer(model, Spoiled(), optim.SGD(1.0)).fit((x, x), progress=False)
    np.testing.assert_array_equal(describe(model).store.data, start)


def bad(change):
    x, y = series(20)
    x, y = x.copy(), y.copy()
    return change(x, y)


def put(array, index, value):
    array[index] = value


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda x, y: (put(x, (3, 2, 1), np.nan), (x, y))[1],
            r"train: x\[3, 2, 1\] \(sample, step, feature\): expected a finite number, got nan",
        ),
        (lambda x, y: (put(y, (3, 0), np.inf), (x, y))[1], "train: target"),
        (lambda x, y: (x, y[:-1]), "target: expected 20 samples"),
        (lambda x, y: (x[:0], y[:0]), "x: expected at least one sample"),
        (lambda x, y: (x[..., :1], y), r"train: x: expected \(n, T, 2\), got \(20, 9, 1\)"),
        (lambda x, y: (x, y.repeat(2, axis=1)), r"train: target: expected \(20, 1\), .*got \(20, 2\)"),
        (lambda x, y: x, r"data: expected a cylstm.data.Source or a tuple \(x, target\)"),
        (lambda x, y: (x.astype(str), y), "expected real numbers, got dtype <U"),
    ],
)
def test_bad_data_is_refused_before_training(make, message):
    model = pooled()
    start = describe(model).store.data.copy()
    with pytest.raises((ValueError, TypeError), match=message):
        cylstm.Trainer(model, losses.MSE()).fit(bad(make), progress=False)
    np.testing.assert_array_equal(describe(model).store.data, start)


def test_labels_and_ids_out_of_range_are_refused_before_training():
    x, target = tagged()
    wrong = [*target[:-1], np.full(len(target[-1]), 4)]
    with pytest.raises(ValueError, match=r"train: target\[49\].*4"):
        trained(train=(x, wrong))
    with pytest.raises(ValueError, match="train: x: expected indices from 0 to 3, got 0 to 4"):
        trained(train=([*x[:-1], np.full(len(x[-1]), 4)], target))
    with pytest.raises(ValueError, match="validation: target"):
        trained(fit={"validation": (x, wrong)})


def test_targets_of_another_length_are_refused_before_training():
    x, _ = series(20)
    model = cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Linear(3, 1, seed=1))
    start = describe(model).store.data.copy()
    for metrics in ((), (lambda y, target: float(y @ target),)):
        wanted = x[:, : len(metrics) + 8, :1]
        with pytest.raises(ValueError, match=r"target|validation"):
            cylstm.Trainer(model, losses.MSE()).fit(
                (x, wanted), (x, x[..., :1]), metrics=metrics, progress=False
            )
    np.testing.assert_array_equal(describe(model).store.data, start)


def test_targets_of_other_sequences_are_refused_before_training():
    class Uneven(data.Source):
        targets = np.zeros((1, 1))

        def __init__(self, shape):
            self.shape = shape

        def __len__(self):
            return 1

        def check(self):
            pass

        def _plan(self, rng):
            return [0]

        def _batch(self, part):
            return data.Minibatch(np.zeros((5, 3, 2)), np.zeros(self.shape))

    model = cylstm.Sequential(cylstm.GRU(2, 3, seed=0), cylstm.Linear(3, 1, seed=1))
    for shape in ((5, 4, 1), (5, 2, 1), (4, 3, 1)):
        with pytest.raises(ValueError, match="train: target: expected"):
            cylstm.Trainer(model, losses.MSE()).fit(Uneven(shape), progress=False)
    with pytest.raises(ValueError, match=r"train: target: expected \(3, 1\), got \(4, 1\)"):
        cylstm.Trainer(pooled(), losses.MSE()).fit(Uneven((4, 1)), progress=False)


def test_a_last_minibatch_of_one_sample_works():
    x, y = series(33)
    history = cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit(
        (x, y), (x[:1], y[:1]), epochs=1, progress=False
    )
    assert len(history.steps["loss"]) == 2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cylstm.Trainer(cylstm.Linear(2, 1), losses.MSE()), "model: expected a recurrent layer"),
        (lambda: cylstm.Trainer(pooled(), "mse"), "loss: expected one of cylstm.losses, got str"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE(), "adam"), "optimizer: expected one of cylstm.optim"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE(), schedule=1), "schedule: expected"),
        (lambda: cylstm.Trainer(cylstm.RNN(2, 3, batch_first=True), losses.MSE()), "loss: expected batch"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE("last")), 'loss: expected steps="all"'),
        (lambda: cylstm.Trainer(pooled(), losses.MSE(), clip_norm=0), "clip_norm: expected"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE(), truncate=3), "truncate: expected None unless"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE()).fit(series(), patience=2), "patience: expected None"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE()).fit(series(), resume=True), "resume: expected"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE(), seed=-1), "seed: expected"),
        (lambda: cylstm.Trainer(pooled(), losses.MSE(), threads=0), "threads: expected"),
        (lambda: trained(fit={"metrics": ["f1"], "validation": tagged()}), "metrics: expected functions"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_checkpoint_of_another_training_changes_nothing(tmp_path):
    x, y = series(20)
    saved = {"checkpoints": str(tmp_path / "run.ckpt"), "progress": False}
    cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit((x, y), epochs=1, **saved)
    for options in (
        {"schedule": optim.ReduceOnPlateau(), "seed": 0},
        {"seed": 1},
        {"optimizer": optim.Adam(2e-3), "seed": 0},
        {"optimizer": optim.Adam(betas=(0.8, 0.999)), "seed": 0},
        {"clip_norm": 1.0, "seed": 0},
    ):
        trainer = cylstm.Trainer(pooled(), losses.MSE(), **options)
        with pytest.raises(CheckpointError, match=f"not of this training: {next(iter(options))}: expected"):
            trainer.fit((x, y), epochs=2, resume=True, **saved)
        assert trainer.optimizer.steps == 0
    for other in ((x + 1, y), (x, np.concatenate([y[:-1], y[:1]]))):
        with pytest.raises(CheckpointError, match=r"data: differs from that of the checkpoint$"):
            cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit(other, epochs=2, resume=True, **saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["position"].update(epoch="1"), "epoch: expected"),
        (lambda v: v["position"].update(batch=2), "batch: expected 1 at most, got 2"),
        (lambda v: v["position"].update(steps=-1), "steps: expected"),
        (lambda v: v["position"].update(lr=None), "lr: expected a number"),
        (lambda v: v["position"]["order"].update(uinteger=2**70), "not of this training: .* too large"),
        (lambda v: v.update(position=3), "not of this training"),
        (lambda v: v.update(identity=None), "its identity is damaged"),
        (lambda v: v.update(masks=[{}, {}, None, None]), "not of this training"),
        (lambda v: v["sums"].update(loss="high"), "loss: expected a number"),
        (lambda v: v.update(best_loss=[1]), "best_loss: expected a number"),
        (lambda v: v["optimizer"].update(steps=1.5), "steps: expected"),
        (lambda v: v["schedule"].update(factor=-1), "factor: expected a number"),
        (lambda v: v["schedule"].update(waited=None), "waited: expected"),
        (lambda v: v["history"].update(stopped="bored"), "stopped: expected one of"),
        (lambda v: v["history"].update(epochs=[{"loss": "low"}]), "history: expected numbers of each epoch"),
    ],
)
def test_a_checkpoint_that_lies_changes_nothing(tmp_path, change, message):
    """One whose digest fits; the format's own checks have nothing to say against it."""
    path, samples = tmp_path / "run.ckpt", series(20)

    def fit(trainer, **options):
        trainer.fit(samples, samples, checkpoints=path, progress=False, **options)
        return trainer

    def new():
        return cylstm.Trainer(pooled(), losses.MSE(), optim.Adam(), schedule=optim.ReduceOnPlateau(), seed=0)

    fit(new(), epochs=1)
    tensors, values = checkpoints.read(path)
    change(values)
    checkpoints.write(path, tensors, values)
    trainer = new()
    before = copy.deepcopy(trainer)
    with pytest.raises(CheckpointError, match=message):
        fit(trainer, epochs=2, resume=True)
    assert describe(trainer.model).store.data.tobytes() == describe(before.model).store.data.tobytes()
    assert trainer.model._random_state() == before.model._random_state()
    assert (trainer.optimizer.steps, trainer.optimizer.lr) == (0, before.optimizer.lr)


def test_notes_go_on_with_a_training(tmp_path):
    x, y = series(20)
    saved = cylstm.Checkpoints(tmp_path / "run.ckpt")
    saved.notes["mine"] = 1
    cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit((x, y), epochs=1, checkpoints=saved, progress=False)
    for epochs in (2, 3):  # the second goes on from what the first has written
        later = cylstm.Checkpoints(tmp_path / "run.ckpt")
        cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit(
            (x, y), epochs=epochs, checkpoints=later, resume=True, progress=False
        )
        assert later.notes == {"mine": 1}


def test_a_validation_loss_that_is_not_finite_stops():
    x, y = series(20)
    wide = np.full_like(y, 3e38)
    with pytest.raises(NonFiniteError, match=r"epoch 1: the validation loss is (inf|nan)"):
        cylstm.Trainer(pooled(), losses.MSE(), optim.SGD(0.0)).fit((x, y), (x, wide), progress=False)


def test_a_stream_needs_a_model_that_reads_forward():
    model = cylstm.Sequential(
        cylstm.Embedding(4, 3), cylstm.GRU(3, 2, bidirectional=True), cylstm.Linear(4, 4)
    )
    with pytest.raises(ValueError, match="train: model: expected a forward-only model"):
        cylstm.Trainer(model, losses.CrossEntropy()).fit(data.TokenStream(np.zeros(50, int), 2, 5))
