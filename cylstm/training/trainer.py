"""`Trainer`: epochs, validation, early stopping, checkpoints."""

import contextlib
import inspect
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cylstm import _checks
from cylstm._system.threads import call_threads
from cylstm.data import Source, source_of
from cylstm.files import check_writable
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.losses import Loss
from cylstm.optim import Adam, Optimizer, Schedule
from cylstm.training import evaluation, gradients
from cylstm.training.checkpoints import Checkpoints, digest_of
from cylstm.training.history import History
from cylstm.training.loop import Callback, Loop, Options
from cylstm.training.metrics import Metric, named
from cylstm.training.run import Run

LONG, PIECE, FEW_UPDATES = 300, 100, 30  # steps of a sequence and of a piece of it; updates of an epoch


class Trainer:
    """Trains a model: minibatches, updates, validation, early stopping, checkpoints.

    Parameters
    ----------
    model : SequenceLayer
        A recurrent layer or a `Sequential`.
    loss : Loss
        With the model's `batch_first`.
    optimizer : Optimizer, optional
        `Adam()` by default.
    schedule : Schedule, optional
        Of the learning rate. Its steps are updates of the parameters; with `truncate`, minibatches.
    clip_norm, clip_value : float, optional
        Bounds on the global norm, and on every element, of the gradient.
    accumulate : int
        Minibatches that make one update together, as one minibatch of all their sequences would.
    truncate : int, optional
        Cut every minibatch into pieces of so many steps, each with an update of its own, the state being
        carried over from one to the next (truncated backpropagation through time, Williams and Peng 1990).
        A `TokenStream` is cut already.
    segments : int or "auto", optional
        Activation checkpointing: keep only the states between so many segments of time, and recompute each
        segment in the backward pass (Chen et al. 2016). It takes one more forward pass, and the memory of one
        segment. "auto": about sqrt(T) of them, so that memory grows with sqrt(T). On the packed path the
        results are bit-identical.
    seed : int, optional
        Of the order of the data. Weights and masks have the seeds of their layers.
    threads : int, optional
        Instead of `cylstm.get_num_threads()`.
    max_seconds : float, optional
        End each `fit` after the first update that is finished so many seconds after its start, with the best
        weights so far, as Ctrl-C does. With `resume` a later `fit` continues for as long again.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> x = np.random.default_rng(0).standard_normal((200, 8, 2))
    >>> target = x.sum(axis=1)[:, :1]  # of each sequence, (200, 1)
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
        if not gradients.per_step(self.model, self.loss):
            raise ValueError("truncate: expected None unless every step has a target, got a number")
        if not self.model.causal:
            raise ValueError("truncate: expected a model that reads forward only, got one that does not")
        if self.accumulate > 1:
            raise ValueError("truncate: expected None with accumulate, got a number")

    def __repr__(self) -> str:
        """As it was constructed."""
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
        """Train, and leave the model in the mode of `eval()`, with the weights of the lowest validation loss.

        Ctrl-C ends the training after the current update, with the best weights so far; a second one at once,
        with KeyboardInterrupt.

        However a training ends, also by an exception of a source, a loss, a metric, a schedule or a callback:
        the model has the best weights, the optimiser its own learning rate, the checkpoint can be continued,
        and the exception has the history so far as its attribute `history`. Without validation data, or
        before the first epoch is over, the best weights are those before the failed update; if the parameters
        have diverged, those at the end of the epoch before, or the initial ones.

        Parameters
        ----------
        train, validation : Source or tuple (x, target)
            A tuple becomes `cylstm.data.Arrays`: samples first. Validation data are not shuffled.
        epochs : int
        batch_size : int
            Of tuples.
        metrics : sequence or mapping
            Of the validation data: names ("accuracy", "mae", "mse"), functions `metric(y, target) -> float`
            of all rows at once, y (n, V), or `cylstm.training.RowSum`, which needs one minibatch at a time.
            With `CTC` both arguments are lists: the outputs (T, V) of each sequence, and its labels.
        patience : int, optional
            Stop after so many epochs without a lower validation loss.
        callbacks : sequence of callable
            Called with this trainer and the epoch's record after each epoch; one that returns True stops.
            Schedules are for the learning rate: `fit` puts back what a callback sets.
        on_update : sequence of callable
            The same after each update of the parameters. The record has `epoch` and `update`, both from 1 on,
            `loss`, `lr` and `grad_norm`.
        checkpoints : Checkpoints or path, optional
            A path alone: every 10 minutes; always at the end, however the training ends.
        resume : bool
            Continue from the checkpoint if there is one, bit-identical to a training without a break. Model,
            settings and data have to be the same; of training and validation data the first and the last
            minibatch are compared. `epochs` may differ, unless the learning rates of the schedule depend on
            it. So may `patience`: with more of it a training that ended early is continued. Metrics,
            callbacks, `segments`, `threads` and `max_seconds` may differ. A training that a callback stopped
            is continued if no callbacks are passed.
        progress : bool
            Show a bar in a terminal or notebook, and a line now and then in a log file.

        Returns
        -------
        History

        Raises
        ------
        ValueError, TypeError
            Before anything is changed: if data, targets and model do not fit together, or hold NaN or
            infinity.
        NonFiniteError
            If a loss, a gradient or a parameter is not finite.
        CheckpointError
            If the checkpoint to resume from is damaged, or of another training.
        OSError
            If no checkpoint could be written where it is to be.

        Warns
        -----
        UserWarning
            If long sequences with a target at each step make few updates, and `truncate` would make more.
        """
        data = self._source_of(train, batch_size)
        held_out = None if validation is None else self._source_of(validation, batch_size)
        measures = named(metrics)
        evaluation.check_data("train", self.model, self.loss, data, {})
        if held_out is not None:
            evaluation.check_data("validation", self.model, self.loss, held_out, measures)
        elif patience is not None:
            raise ValueError("patience: expected None without validation data, got a number")
        options = Options(
            _checks.natural("epochs", epochs),
            measures,
            None if patience is None else _checks.positive("patience", patience),
            _callables("callbacks", callbacks),
            _callables("on_update", on_update),
            progress,
        )
        saved = Checkpoints.of(checkpoints, resume)
        if saved is not None:
            check_writable(saved.path)
        steps = self._schedule_steps(data)
        if self.schedule:
            self.schedule.begin(options.epochs * steps)
        run = Run(self.seed, {} if saved is None else self._identity(data, held_out), self.optimizer.lr)
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
            Loop(self, run, data, held_out, options, saved).run_all()
        return run.history

    def _schedule_steps(self, data: Source) -> int:
        """How many steps the schedule counts in an epoch."""
        if self.schedule is None or self.schedule.per == "epoch":
            return 1
        return -(-len(data) // self.accumulate)

    def _advise(self, data: Source, epochs: int) -> None:
        """Warn of updates that are few because each goes through a long sequence."""
        if self.truncate or self.segments or self.accumulate > 1:
            return
        if epochs < 2 or len(data) > FEW_UPDATES:
            return
        if not gradients.per_step(self.model, self.loss) or not self.model.causal:
            return
        T = len(next(data.epoch()).x)
        if T >= LONG:
            warnings.warn(
                f"train: sequences of {T} steps, and few updates, {len(data)} an epoch; "
                f"Trainer(truncate={PIECE}) makes one every {PIECE} steps and often learns faster",
                stacklevel=3,
            )

    def evaluate(
        self,
        data: Source | tuple[Any, Any],
        *,
        batch_size: int = 32,
        metrics: Sequence[str | Metric] | Mapping[str, Metric] = (),
    ) -> dict[str, float]:
        """The mean loss, as `loss`, and the metrics by name, over data in the mode of `eval()`."""
        source, measures = self._source_of(data, batch_size), named(metrics)
        evaluation.check_data("data", self.model, self.loss, source, measures)
        return evaluation.evaluate(self.model, self.loss, source.epoch(), measures)

    def _source_of(self, data: Any, batch_size: int) -> Source:
        """A tuple's targets belong to steps or sequences as the model and the loss say, not as they look."""
        of_steps = gradients.per_step(self.model, self.loss)
        return source_of(data, batch_size, target_per="step" if of_steps else "sequence")

    def _identity(self, data: Source, held_out: Source | None) -> dict[str, Any]:
        return {
            "model": _plain({"type": type(self.model).__name__, **self.model.config}),
            "loss": _plain({"type": type(self.loss).__name__, **self.loss.config}),
            "optimizer": _settings(self.optimizer),
            "schedule": None if self.schedule is None else _settings(self.schedule),
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "seed": self.seed,
            "minibatches": len(data),
            "minibatch": list(next(data.epoch()).x.shape),
            "data": digest_of(_first_and_last(data)),
            "validation": None if held_out is None else digest_of(_first_and_last(held_out)),
            "accumulate": self.accumulate,
            "truncate": self.truncate,
        }


def _settings(thing: Optimizer | Schedule) -> dict[str, Any]:
    """Name and arguments of what keeps these as attributes."""
    arguments = {name: getattr(thing, name, None) for name in inspect.signature(type(thing)).parameters}
    return _plain({"type": type(thing).__name__, **arguments})


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As they come back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=_listed))
    return plain


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


def _callables(name: str, functions: Any) -> Sequence[Callback]:
    """One function, or some."""
    found = (functions,) if callable(functions) else tuple(functions)
    for function in found:
        if not callable(function):
            raise TypeError(f"{name}: expected functions (trainer, record), got {type(function).__name__}")
    return found


def _first_and_last(source: Source) -> Iterator[Any]:
    """The arrays of the first and the last minibatch in order."""
    for start in sorted({0, len(source) - 1}):
        batch = next(source.epoch(start=start))
        yield batch.x
        yield from batch.target if isinstance(batch.target, list) else [batch.target]


def _check_kind(name: str, value: Any, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {words}, got {type(value).__name__}")
