"""The loop of a training: epochs of minibatches, updates, validation, checkpoints, and how it ends."""

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cylstm._system.progress import Progress
from cylstm.data import Minibatch, Source
from cylstm.data.prefetching import prefetch_slow
from cylstm.optim import clip_grad_norm, clip_grad_value
from cylstm.training import evaluation, gradients
from cylstm.training.checkpoints import Checkpoints
from cylstm.training.history import attach
from cylstm.training.metrics import Metric
from cylstm.training.run import Run

if TYPE_CHECKING:
    from cylstm.training.trainer import Trainer

Callback = Callable[["Trainer", dict[str, float]], Any]
GROWN = 10  # times the norm of the parameters at the start, or 1: then the training has diverged


class Options(NamedTuple):
    """Of one call of `fit`, checked."""

    epochs: int
    measures: Mapping[str, Metric]
    patience: int | None
    callbacks: Sequence[Callback]
    on_update: Sequence[Callback]
    progress: bool


class Loop:
    """One call of `fit`."""

    def __init__(
        self,
        trainer: "Trainer",
        run: Run,
        data: Source,
        held_out: Source | None,
        options: Options,
        saved: Checkpoints | None,
    ) -> None:
        self.trainer, self.run, self.data, self.held_out = trainer, run, data, held_out
        self.options, self.saved = options, saved
        self.until = math.inf if trainer.max_seconds is None else time.monotonic() + trainer.max_seconds
        self.interrupted: Callable[[], bool] = lambda: False
        self.start_norm = _norm(trainer.model._store.data)

    def run_all(self) -> None:
        """All epochs that are left; then the model has the best weights.

        An exception passes on, when the checkpoint is written, the best weights are in the model, and the
        history is its attribute `history`.
        """
        run, n = self.run, len(self.data)
        self._clear_ending()
        if self.saved:
            self.saved.begin(run.steps)
        done = min(self.options.epochs, run.epoch) * n + run.batch
        try:
            with (
                _interrupts() as self.interrupted,
                Progress(
                    self.options.epochs * n, "batches", initial=done, shown=self.options.progress
                ) as progress,
            ):
                self._mark(snapshot=True)
                self._all_epochs(progress)
                if run.best is None:
                    self._check_parameters()
                if self.saved:
                    self._write(self.saved)
        except BaseException as error:
            self._end_with(error)
            raise
        self._place_weights(run.best)

    def _clear_ending(self) -> None:
        """Forget why the training that the checkpoint is of ended, unless it still applies."""
        run, options = self.run, self.options
        if run.history.stopped == "callback" and (options.callbacks or options.on_update):
            if run.epoch < options.epochs:
                warnings.warn(
                    f"resume: a callback stopped this training in epoch {run.epoch + (run.batch > 0)} of "
                    f"{options.epochs}, so it is not continued; to continue it, pass no callbacks",
                    RuntimeWarning,
                    stacklevel=4,
                )
            return
        run.history.stopped = ""
        if options.patience is not None and run.waited >= options.patience:
            run.history.stopped = "early"

    def _all_epochs(self, progress: Progress) -> None:
        run, epochs = self.run, self.options.epochs
        if not run.reported:
            self._report(run.history.epochs[-1])
        while run.epoch < epochs and not run.history.stopped:
            progress.describe(f"epoch {run.epoch + 1}/{epochs}")
            self._minibatches(progress)
            if not run.history.stopped:
                record = self._finish_epoch()
                names = ("loss", "validation", *self.options.measures)
                progress.results({name: record[name] for name in names if name in record})

    def _minibatches(self, progress: Progress) -> None:
        """The rest of an epoch, or of it what there is time for."""
        run, began = self.run, time.perf_counter()
        self.trainer.model.train()  # a callback may have changed the mode
        run.begin_epoch()
        batches = prefetch_slow(self.data.epoch(run.rng, start=run.batch))
        with contextlib.closing(batches):
            for batch in batches:
                pieces = self._pieces(batch)
                for k in range(run.piece, len(pieces)):
                    steps = run.steps
                    self._learn(pieces[k])
                    is_last = k + 1 == len(pieces)
                    run.batch, run.piece = run.batch + is_last, 0 if is_last else k + 1
                    now = time.perf_counter()
                    run.sums["seconds"] += now - began
                    began = now
                    if is_last:
                        progress.update()
                    if run.steps > steps:
                        self._between_updates()
                    if run.history.stopped:
                        return

    def _pieces(self, batch: Minibatch) -> list[Minibatch]:
        steps, T = self.trainer.truncate, len(batch.x)
        if steps is None or steps >= T:
            return [batch]
        return [gradients.cut(batch, start, min(start + steps, T), True) for start in range(0, T, steps)]

    def _between_updates(self) -> None:
        """Callbacks, a checkpoint if one is due, and whether the training ends here."""
        run, steps = self.run, self.run.history.steps
        self._mark()
        if self.options.on_update:
            record: dict[str, float] = {"epoch": run.epoch + 1, "update": run.steps}
            record |= {name: values[-1] for name, values in steps.items()}
            self._call(self.options.on_update, record)
            self._mark()
        self._check_time()
        if not run.history.stopped and self.saved and self.saved.due(run.steps):
            self._write(self.saved)

    def _check_time(self) -> None:
        """Ctrl-C or `max_seconds`, of which the latter does not end what is finished."""
        run = self.run
        if run.history.stopped:
            return
        if self.interrupted():
            run.history.stopped = "interrupted"
        elif run.epoch < self.options.epochs and time.monotonic() >= self.until:
            run.history.stopped = "time"

    def _call(self, callbacks: Sequence[Callback], record: dict[str, float]) -> None:
        answers = [callback(self.trainer, dict(record)) for callback in callbacks]
        if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
            self.run.history.stopped = "callback"

    def _learn(self, batch: Minibatch) -> None:
        """The gradient of a minibatch, and the update if it is the last one of its group.

        Without anything that counts in the group there is no update.
        """
        trainer, run = self.trainer, self.run
        model, first = trainer.model, run.batch - run.batch % trainer.accumulate
        last = min(first + trainer.accumulate, len(self.data)) - 1
        if run.batch == first:
            model.zero_grad()
            run.group = gradients.Mean()
        value, run.state = gradients.gradient(
            model, trainer.loss, batch, run.state if batch.continues else None, run.group, trainer.segments
        )
        where = (
            f"epoch {run.epoch + 1}, minibatch {run.batch + 1} of {len(self.data)}, update {run.steps + 1}"
        )
        norm = gradients.check_finite(model, value, where, self._divergence)
        run.loss.add(value, trainer.loss.counted)
        if run.batch == last and run.group.counted:
            self._update(run.group.value, norm)

    def _update(self, value: float, norm: float) -> None:
        trainer, run = self.trainer, self.run
        if trainer.clip_norm is not None and norm > trainer.clip_norm:
            clip_grad_norm(trainer.model, trainer.clip_norm)
        if trainer.clip_value is not None:
            clip_grad_value(trainer.model, trainer.clip_value)
        if trainer.schedule:
            groups = -(-len(self.data) // trainer.accumulate)
            done = run.epoch
            if trainer.schedule.per == "step":
                done = run.epoch * groups + run.batch // trainer.accumulate
            trainer.optimizer.lr = run.lr * trainer.schedule.factor(done)
        trainer.optimizer.step(trainer.model)
        run.steps += 1
        run.sums["grad_norm"] += norm
        run.sums["updates"] += 1
        for name, number in (("loss", value), ("lr", trainer.optimizer.lr), ("grad_norm", norm)):
            run.history.steps[name].append(number)

    def _finish_epoch(self) -> dict[str, float]:
        """Validate, note the results, call the callbacks; the record of the epoch."""
        run, trainer = self.run, self.trainer
        record = {"epoch": run.epoch + 1, "loss": run.loss.value}
        if self.held_out is None:
            self._check_parameters()
        else:
            record |= self._validated(self.held_out)
        record |= {
            "lr": trainer.optimizer.lr,
            "grad_norm": run.sums["grad_norm"] / max(1, run.sums["updates"]),
            "seconds": run.sums["seconds"],
        }
        run.history.epochs.append(record)
        run.epoch, run.batch, run.order = run.epoch + 1, 0, run.rng.bit_generator.state
        if "validation" in record:
            self._keep_best(record["validation"])
        if trainer.schedule:
            trainer.schedule.observe(record.get("validation", record["loss"]))
        if self.options.patience is not None and run.waited >= self.options.patience:
            run.history.stopped = "early"
        run.reported = False
        self._mark(snapshot=True)
        self._report(record)
        self._check_time()
        return record

    def _validated(self, held_out: Source) -> dict[str, float]:
        """The loss on the validation data, as `validation`, and the metrics."""
        trainer, epoch = self.trainer, self.run.epoch + 1
        found = evaluation.evaluate(trainer.model, trainer.loss, held_out.epoch(), self.options.measures)
        loss = found.pop("loss")
        if not math.isfinite(loss):
            raise gradients.NonFiniteError(
                f"epoch {epoch}: the validation loss is {loss}; "
                + (self._divergence() or "look at the validation data, or lower the learning rate")
            )
        return {"validation": loss, **found}

    def _report(self, record: dict[str, float]) -> None:
        """Call the callbacks with the record of an epoch; a training that they break is resumed here."""
        self._call(self.options.callbacks, record)
        self.run.reported = True
        self._mark(snapshot=True)

    def _keep_best(self, loss: float) -> None:
        run = self.run
        run.waited += 1
        if loss < run.best_loss:
            run.best = self.trainer.model._store.data.copy()
            run.best_loss, run.waited, run.history.best_epoch = loss, 0, run.epoch

    def _mark(self, snapshot: bool = False) -> None:
        """Note the state for a checkpoint, and for a training that diverges before there are best weights."""
        run, trainer = self.run, self.trainer
        if self.saved:
            run.mark(trainer.model, trainer.schedule)
            if snapshot:
                run.take_snapshot(trainer.model, trainer.optimizer)
        elif snapshot and run.best is None:
            run.mark(trainer.model, None)
            run.take_snapshot(trainer.model, None)

    def _write(self, saved: Checkpoints, at_mark: bool = True) -> None:
        """Write a checkpoint of the last mark, or else of the last snapshot; none if the file is newer."""
        run, trainer = self.run, self.trainer
        if at_mark and np.isfinite(trainer.model._store.data).all():
            saved.write(run.steps, lambda: run.content(trainer.model, trainer.optimizer))
        elif run.snapshot_steps > saved.steps_written:
            saved.write(run.snapshot_steps, run.content_of_snapshot)

    def _end_with(self, error: BaseException) -> None:
        """Keep what an exception would lose."""
        run, trainer = self.run, self.trainer
        interrupted = isinstance(error, KeyboardInterrupt)
        run.history.stopped = "interrupted" if interrupted else "error"
        updates = min(map(len, run.history.steps.values()))  # Ctrl-C may come between two of them
        for values in run.history.steps.values():
            del values[updates:]
        attach(error, run.history)
        diverged = isinstance(error, gradients.NonFiniteError)
        try:
            if self.saved and run.marked_steps > self.saved.steps_written:
                self._write(self.saved, not diverged and run.is_at_mark(trainer.model))
        finally:
            weights = run.best
            if weights is None and diverged and self._divergence():
                weights = run.snapshot_parameters
            self._place_weights(weights)

    def _place_weights(self, weights: Any) -> None:
        if weights is not None:
            with self.trainer.model._store.writing() as flat:
                flat[...] = weights

    def _check_parameters(self) -> None:
        """Raise NonFiniteError if the last update made the parameters infinite and nothing has seen it."""
        model, run = self.trainer.model, self.run
        for name, weights in model.parameters.items():
            if not np.isfinite(weights).all():
                raise gradients.NonFiniteError(
                    f"epoch {run.epoch + 1}, update {run.steps}: the parameter {name} is not finite; "
                    f"{self._divergence()}"
                )

    def _divergence(self) -> str:
        """What to do about parameters that have grown since the start; nothing if they have not."""
        norm = _norm(self.trainer.model._store.data)
        if not math.isfinite(self.start_norm) or norm <= GROWN * max(1.0, self.start_norm):
            return ""
        rate, now = self.run.lr, self.trainer.optimizer.lr
        scheduled = "" if now == rate else f", {now:g} by the schedule"
        return (
            f"the norm of the parameters has grown from {self.start_norm:.3g} to {norm:.3g}: lower the "
            f"learning rate (lr={rate:g}{scheduled})"
            + (", or set clip_norm=1.0" if self.trainer.clip_norm is None else "")
        )


def _norm(vector: Any) -> float:
    """The Euclidean norm; infinite or NaN if an element is."""
    with np.errstate(over="ignore"):
        return math.sqrt(np.square(vector, dtype=np.float64).sum())


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second time, and in other threads, it does what it always does.

    So it does where it is ignored, as by a job in the background, or not handled by Python.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = []
    earlier = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, earlier)

    if earlier in (None, signal.SIG_IGN):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, earlier)
