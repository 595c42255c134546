"""`Trainer`: epochs, validation, early stopping, checkpoints."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from cylstm import _checks
from cylstm._system.atomic_files import check_writable
from cylstm._system.threads import call_threads
from cylstm.data import Source, source_of
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.losses import Loss
from cylstm.optim import Adam, Optimizer, Schedule
from cylstm.training import evaluation, gradients
from cylstm.training.checkpoints import Checkpoints
from cylstm.training.history import History
from cylstm.training.loop import Loop
from cylstm.training.metrics import Metric, named
from cylstm.training.run import Run
from cylstm.training.settings import FitOptions, TrainingSettings

Callback = Callable[["Trainer", dict[str, float]], Any]

# `fit` suggests `truncate` for sequences of so many steps, with so few updates in an epoch.
LONG_SEQUENCE, SUGGESTED_TRUNCATE, FEW_UPDATES = 300, 100, 30


class Trainer:
    """Trains a model: minibatches, updates, validation, early stopping, checkpoints.

    Parameters
    ----------
    model : SequenceLayer
        A recurrent layer or a `Sequential`.
    loss : Loss
        With the same `batch_first` as the model.
    optimizer : Optimizer, optional
        `Adam()` by default.
    schedule : Schedule, optional
        Learning rate schedule. Its steps are parameter updates; with `truncate`, minibatches.
    clip_norm, clip_value : float, optional
        Maximum global norm, and maximum absolute value of each element, of the gradient.
    accumulate : int
        Number of minibatches per update; the gradient is that of one minibatch of all their sequences.
    truncate : int, optional
        Split every minibatch into chunks of this many steps, with one update for each, and carry the state
        from chunk to chunk (truncated backpropagation through time, Williams and Peng 1990). A `TokenStream`
        is already split.
    segments : int or "auto", optional
        Activation checkpointing: save only the states between this many segments of time, and recompute each
        segment in the backward pass (Chen et al. 2016). This takes one more forward pass, and the memory
        of one segment. "auto" uses about sqrt(T) segments, so that memory grows with sqrt(T). On the packed
        path the results are bit-identical.
    seed : int, optional
        Seed of the order of the data. Weights and masks use the seeds of their layers.
    threads : int, optional
        Number of threads, instead of `cylstm.get_num_threads()`.
    max_seconds : float, optional
        Stop each `fit` after the first update that ends more than this many seconds after its start, and use
        the best weights so far, as after Ctrl-C. With `resume` the next `fit` continues for as long again.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> x = np.random.default_rng(0).standard_normal((200, 8, 2))
    >>> target = x.sum(axis=1)[:, :1]  # one per sequence, (200, 1)
    >>> gru, linear = cylstm.GRU(2, 16, seed=0), cylstm.Linear(16, 1, seed=1)
    >>> model = cylstm.Sequential(gru, cylstm.Pooling("last"), linear)
    >>> trainer = cylstm.Trainer(model, cylstm.losses.MSE(), cylstm.optim.Adam(1e-2), clip_norm=1.0, seed=0)
    >>> history = trainer.fit((x[:160], target[:160]), (x[160:], target[160:]), epochs=20, progress=False)
    >>> len(history.epochs), history.epochs[-1]["validation"] < 0.2 * history.epochs[0]["validation"]
    (20, True)
    """

    def __init__(
        self,
        model: SequenceLayer,
        loss: Loss,
        optimizer: Optimizer | None = None,
        *,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        truncate: int | None = None,
        segments: int | Literal["auto"] | None = None,
        seed: int | None = None,
        threads: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        _check_kind("model", model, SequenceLayer, "a recurrent layer or a Sequential")
        _check_kind("loss", loss, Loss, "one of cylstm.losses")
        self.model, self.loss = model, loss
        self.optimizer = Adam() if optimizer is None else optimizer
        _check_kind("optimizer", self.optimizer, Optimizer, "one of cylstm.optim")
        if schedule is not None:
            _check_kind("schedule", schedule, Schedule, "a schedule of cylstm.optim")
        if loss.batch_first != bool(model.batch_first) and not model.pools:
            raise ValueError(
                f"loss: expected batch_first={bool(model.batch_first)}, as the model has, "
                f"got {loss.batch_first}"
            )
        if model.pools and loss.steps == "last":
            raise ValueError('loss: expected steps="all" for a model that pools over time, got "last"')
        self.schedule = schedule
        self.clip_norm = None if clip_norm is None else _checks.above("clip_norm", clip_norm, 0)
        self.clip_value = None if clip_value is None else _checks.above("clip_value", clip_value, 0)
        self.accumulate = _checks.positive("accumulate", accumulate)
        self.truncate = None if truncate is None else _checks.positive("truncate", truncate)
        self.segments = segments if segments in (None, "auto") else _checks.positive("segments", segments)
        _checks.generator(seed)
        self.seed = seed
        self.threads = None if threads is None else _checks.positive("threads", threads)
        self.max_seconds = None if max_seconds is None else _checks.above("max_seconds", max_seconds, 0)
        if self.segments is not None:
            gradients.check_segments(model)
        if self.truncate is not None:
            self._check_truncate()

    def _check_truncate(self) -> None:
        if not gradients.has_target_per_step(self.model, self.loss):
            raise ValueError("truncate: expected None unless every step has a target, got a number")
        if not self.model.causal:
            raise ValueError("truncate: expected a model that reads forward only, got one that does not")
        if self.accumulate > 1:
            raise ValueError("truncate: expected None with accumulate, got a number")

    def __repr__(self) -> str:
        """Return the constructor call."""
        from cylstm._reprs import as_constructed

        return as_constructed(self)

    def fit(
        self,
        train: Source | tuple[Any, Any],
        validation: Source | tuple[Any, Any] | None = None,
        epochs: int = 10,
        *,
        batch_size: int = 32,
        metrics: Sequence[str | Metric] | Mapping[str, Metric] = (),
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        on_update: Sequence[Callback] = (),
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> History:
        """Train the model, which ends in `eval()` mode with the weights of the lowest validation loss.

        Ctrl-C stops training after the current update, with the best weights so far. A second Ctrl-C raises
        KeyboardInterrupt at once.

        If a data source, loss, metric, schedule or callback raises an exception, the model still gets the
        best weights, the optimiser its initial learning rate, and the checkpoint can be resumed; the
        exception has the history so far as its attribute `history`. Without validation data, or during the
        first epoch, the best weights are those before the failed update. If the parameters have diverged,
        they are those at the end of the previous epoch, or the initial ones.

        Parameters
        ----------
        train, validation : Source or tuple (x, target)
            A tuple is converted to `cylstm.data.Arrays`: samples first. Validation data are not shuffled.
        epochs : int
        batch_size : int
            For tuples.
        metrics : sequence or mapping
            Metrics of the validation data: names ("accuracy", "mae", "mse"), functions
            `metric(y, target) -> float` of all rows at once, y (n, V), or `cylstm.training.RowSum`, which
            is computed one minibatch at a time. With `CTC` both arguments are lists: the outputs (T, V) of
            each sequence, and its labels.
        patience : int, optional
            Stop after this many epochs without a lower validation loss.
        callbacks : sequence of callable
            Called as `callback(trainer, record)` after each epoch; a callback that returns True stops
            training. `fit` restores the optimiser's learning rate at the end; use a schedule to change it.
        on_update : sequence of callable
            Called in the same way after each parameter update. The record has `epoch` and `update`, both
            counted from 1, `loss`, `lr` and `grad_norm`.
        checkpoints : Checkpoints or path, optional
            With a path, a checkpoint is written every 10 minutes. One is always written at the end, also
            after an exception.
        resume : bool
            Resume from the checkpoint if it exists; the results are bit-identical to an uninterrupted run.
            Model, settings and data must be the same; of the training and validation data the first and the
            last minibatch are compared. `epochs` may differ unless the learning rates of the schedule depend
            on it. `patience` may differ: a larger one continues a run that stopped early. Metrics, callbacks,
            `segments`, `threads` and `max_seconds` may differ. A run stopped by a callback is continued if no
            callbacks are passed.
        progress : bool
            Show a progress bar in a terminal or notebook, or occasional lines in a log file.

        Returns
        -------
        History

        Raises
        ------
        ValueError, TypeError
            If data, targets and model do not match, or data contain NaN or infinity; nothing is changed.
        NonFiniteError
            If a loss, a gradient or a parameter is not finite.
        CheckpointError
            If the checkpoint to resume from is damaged or of another training run.
        OSError
            If the checkpoint file cannot be written; raised before training starts.

        Warns
        -----
        UserWarning
            If sequences with a target at each step are long and updates few; `truncate` makes more updates.
        """
        data = self._source_of(train, batch_size)
        held_out = None if validation is None else self._source_of(validation, batch_size)
        measures = named(metrics)
        evaluation.check_data("train", self.model, self.loss, data, {})
        if held_out is not None:
            evaluation.check_data("validation", self.model, self.loss, held_out, measures)
        elif patience is not None:
            raise ValueError("patience: expected None without validation data, got a number")
        options = FitOptions(
            _checks.natural("epochs", epochs),
            measures,
            None if patience is None else _checks.positive("patience", patience),
            self._bound("callbacks", callbacks),
            self._bound("on_update", on_update),
            progress,
        )
        saved = Checkpoints.of(checkpoints, resume)
        if saved is not None:
            check_writable(saved.path)
        settings = self._settings()
        steps = settings.schedule_steps(len(data))
        if self.schedule:
            self.schedule.begin(options.epochs * steps)
        run = Run(self.seed, {} if saved is None else settings.identity(data, held_out), self.optimizer.lr)
        run.epochs = options.epochs
        if resume and saved is not None and saved.path.exists():
            notes = run.restore(saved.path, self.model, self.optimizer, self.schedule, steps)
            saved.notes = saved.notes or notes
        self._advise(data, options.epochs)
        self.model.train()
        with contextlib.ExitStack() as stack:
            stack.callback(self.model.eval)
            stack.callback(lambda: setattr(self.optimizer, "lr", run.lr))
            if self.threads is not None:
                stack.enter_context(call_threads(self.threads))
            Loop(self._settings, run, data, held_out, options, saved).run_all()
        return run.history

    def _settings(self) -> TrainingSettings:
        """The current settings."""
        return TrainingSettings(
            model=self.model,
            loss=self.loss,
            optimizer=self.optimizer,
            schedule=self.schedule,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            accumulate=self.accumulate,
            truncate=self.truncate,
            segments=self.segments,
            seed=self.seed,
            max_seconds=self.max_seconds,
        )

    def _bound(self, name: str, callbacks: Any) -> Sequence[Callable[[dict[str, float]], Any]]:
        """One callback, or several, with this trainer as their first argument."""
        found = (callbacks,) if callable(callbacks) else tuple(callbacks)
        for callback in found:
            if not callable(callback):
                raise TypeError(
                    f"{name}: expected functions (trainer, record), got {type(callback).__name__}"
                )
        return [functools.partial(callback, self) for callback in found]

    def _advise(self, data: Source, epochs: int) -> None:
        """Suggest `truncate` if sequences are long and updates few."""
        if self.truncate or self.segments or self.accumulate > 1:
            return
        if epochs < 2 or len(data) > FEW_UPDATES:
            return
        if not gradients.has_target_per_step(self.model, self.loss) or not self.model.causal:
            return
        T = len(next(data.epoch()).x)
        if T >= LONG_SEQUENCE:
            warnings.warn(
                f"train: sequences of {T} steps, and few updates, {len(data)} an epoch; "
                f"Trainer(truncate={SUGGESTED_TRUNCATE}) makes one every {SUGGESTED_TRUNCATE} steps and "
                "often learns faster",
                stacklevel=3,
            )

    def evaluate(
        self,
        data: Source | tuple[Any, Any],
        *,
        batch_size: int = 32,
        metrics: Sequence[str | Metric] | Mapping[str, Metric] = (),
    ) -> dict[str, float]:
        """The mean loss, as `loss`, and the metrics by name, computed in `eval()` mode."""
        source, measures = self._source_of(data, batch_size), named(metrics)
        evaluation.check_data("data", self.model, self.loss, source, measures)
        return evaluation.evaluate(self.model, self.loss, source.epoch(), measures)

    def _source_of(self, data: Any, batch_size: int) -> Source:
        """Convert data to a source; model and loss decide whether a tuple's targets belong to steps."""
        of_steps = gradients.has_target_per_step(self.model, self.loss)
        return source_of(data, batch_size, target_per="step" if of_steps else "sequence")


def _check_kind(name: str, value: Any, kind: type, description: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {description}, got {type(value).__name__}")
