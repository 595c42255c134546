"""The training loop: epochs, minibatches, updates, validation, checkpoints and stopping."""

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cylstm._system.progress import Progress
from cylstm.data import Minibatch, Source
from cylstm.data.prefetching import prefetch_slow
from cylstm.layers.base import store_of
from cylstm.optim import clip_grad_norm, clip_grad_value
from cylstm.training import evaluation, gradients
from cylstm.training.checkpoints import Checkpoints
from cylstm.training.history import attach
from cylstm.training.run import Run
from cylstm.training.settings import FitOptions, TrainingSettings

DIVERGED_RATIO = 10  # training diverged if the parameters' norm exceeds 10 times the initial one, and 10


class Loop:
    """The training loop of one call of `fit`.

    Parameters
    ----------
    read_settings : callable
        Returns the settings; called at the start and after callbacks, which may change them.
    run : Run
    data, held_out : Source
        Training and validation data.
    options : FitOptions
    checkpoints : Checkpoints or None
    """

    def __init__(
        self,
        read_settings: Callable[[], TrainingSettings],
        run: Run,
        data: Source,
        held_out: Source | None,
        options: FitOptions,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.read_settings, self.settings = read_settings, read_settings()
        self.run, self.data, self.held_out = run, data, held_out
        self.options, self.checkpoints = options, checkpoints
        max_seconds = self.settings.max_seconds
        self.deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
        self.interrupted: Callable[[], bool] = lambda: False
        self.start_norm = _norm(store_of(self.settings.model).data)

    def run_all(self) -> None:
        """Run the remaining epochs, and set the model to the best weights.

        After an exception, the checkpoint is written, the best weights are set, and the exception has the
        history as an attribute.
        """
        run, n = self.run, len(self.data)
        self._clear_stopped()
        if self.checkpoints:
            self.checkpoints.begin(run.steps)
        done = min(self.options.epochs, run.epoch) * n + run.batch
        try:
            with (
                _handle_interrupts() as self.interrupted,
                Progress(
                    self.options.epochs * n, "batches", initial=done, shown=self.options.progress
                ) as progress,
            ):
                self._mark(snapshot=True)
                self._run_epochs(progress)
                if run.best is None:
                    self._check_parameters()
                if self.checkpoints:
                    self._write(self.checkpoints)
        except BaseException as error:
            self._handle_error(error)
            raise
        self._set_parameters(run.best)

    def _clear_stopped(self) -> None:
        """Clear the reason why the resumed run stopped, unless it still applies."""
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

    def _run_epochs(self, progress: Progress) -> None:
        run, epochs = self.run, self.options.epochs
        if not run.reported:
            self._report(run.history.epochs[-1])
        while run.epoch < epochs and not run.history.stopped:
            progress.describe(f"epoch {run.epoch + 1}/{epochs}")
            self._run_minibatches(progress)
            if not run.history.stopped:
                record = self._finish_epoch()
                names = ("loss", "validation", *self.options.measures)
                progress.results({name: record[name] for name in names if name in record})

    def _run_minibatches(self, progress: Progress) -> None:
        """Train on the remaining minibatches of an epoch, until it ends or training stops."""
        run, start = self.run, time.perf_counter()
        self.settings.model.train()  # a callback may have changed the mode
        run.begin_epoch()
        batches = prefetch_slow(self.data.epoch(run.rng, start=run.batch))
        with contextlib.closing(batches):
            for batch in batches:
                chunks = self._split(batch)
                for k in range(run.piece, len(chunks)):
                    steps = run.steps
                    self._train_on(chunks[k])
                    is_last = k + 1 == len(chunks)
                    run.batch, run.piece = run.batch + is_last, 0 if is_last else k + 1
                    now = time.perf_counter()
                    run.sums["seconds"] += now - start
                    start = now
                    if is_last:
                        progress.update()
                    if run.steps > steps:
                        self._after_update()
                    if run.history.stopped:
                        return

    def _split(self, batch: Minibatch) -> list[Minibatch]:
        steps, T = self.settings.truncate, len(batch.x)
        if steps is None or steps >= T:
            return [batch]
        return [gradients.cut(batch, start, min(start + steps, T), True) for start in range(0, T, steps)]

    def _after_update(self) -> None:
        """Call the callbacks, check whether to stop, and write a checkpoint if one is due."""
        run, steps = self.run, self.run.history.steps
        self._mark()
        if self.options.on_update:
            record: dict[str, float] = {"epoch": run.epoch + 1, "update": run.steps}
            record |= {name: values[-1] for name, values in steps.items()}
            self._call(self.options.on_update, record)
            self._mark()
        self._check_stop()
        if not run.history.stopped and self.checkpoints and self.checkpoints.due(run.steps):
            self._write(self.checkpoints)

    def _check_stop(self) -> None:
        """Stop after Ctrl-C, or after `max_seconds` if epochs remain."""
        run = self.run
        if run.history.stopped:
            return
        if self.interrupted():
            run.history.stopped = "interrupted"
        elif run.epoch < self.options.epochs and time.monotonic() >= self.deadline:
            run.history.stopped = "time"

    def _call(self, callbacks: Sequence[Callable[[dict[str, float]], Any]], record: dict[str, float]) -> None:
        results = [callback(dict(record)) for callback in callbacks]
        if callbacks:
            self.settings = self.read_settings()
        if any(isinstance(result, bool | np.bool_) and result for result in results):
            self.run.history.stopped = "callback"

    def _train_on(self, batch: Minibatch) -> None:
        """Compute the gradient of a minibatch, and update the parameters if it is the last of its group.

        There is no update if no element of the group contributes to the loss.
        """
        settings, run = self.settings, self.run
        model, first = settings.model, run.batch - run.batch % settings.accumulate
        last = min(first + settings.accumulate, len(self.data)) - 1
        if run.batch == first:
            model.zero_grad()
            run.group = gradients.Mean()
        value, run.state = gradients.gradient(
            model, settings.loss, batch, run.state if batch.continues else None, run.group, settings.segments
        )
        where = (
            f"epoch {run.epoch + 1}, minibatch {run.batch + 1} of {len(self.data)}, update {run.steps + 1}"
        )
        norm = gradients.check_finite(model, value, where, self._divergence)
        run.loss.add(value, settings.loss.counted)
        if run.batch == last and run.group.counted:
            self._update(run.group.value, norm)

    def _update(self, value: float, norm: float) -> None:
        settings, run = self.settings, self.run
        if settings.clip_norm is not None and norm > settings.clip_norm:
            clip_grad_norm(settings.model, settings.clip_norm)
        if settings.clip_value is not None:
            clip_grad_value(settings.model, settings.clip_value)
        if settings.schedule:
            done = run.epoch * settings.schedule_steps(len(self.data))
            if settings.schedule.per == "step":
                done += run.batch // settings.accumulate
            settings.optimizer.lr = run.lr * settings.schedule.factor(done)
        settings.optimizer.step(settings.model)
        run.steps += 1
        run.sums["grad_norm"] += norm
        run.sums["updates"] += 1
        for name, number in (("loss", value), ("lr", settings.optimizer.lr), ("grad_norm", norm)):
            run.history.steps[name].append(number)

    def _finish_epoch(self) -> dict[str, float]:
        """Validate, record the results and call the callbacks; return the record of the epoch."""
        run, settings = self.run, self.settings
        record = {"epoch": run.epoch + 1, "loss": run.loss.value}
        if self.held_out is None:
            self._check_parameters()
        else:
            record |= self._validate(self.held_out)
        record |= {
            "lr": settings.optimizer.lr,
            "grad_norm": run.sums["grad_norm"] / max(1, run.sums["updates"]),
            "seconds": run.sums["seconds"],
        }
        run.history.epochs.append(record)
        run.epoch, run.batch, run.order = run.epoch + 1, 0, run.rng.bit_generator.state
        if "validation" in record:
            self._update_best(record["validation"])
        if settings.schedule:
            settings.schedule.observe(record.get("validation", record["loss"]))
        if self.options.patience is not None and run.waited >= self.options.patience:
            run.history.stopped = "early"
        run.reported = False
        self._mark(snapshot=True)
        self._report(record)
        self._check_stop()
        return record

    def _validate(self, held_out: Source) -> dict[str, float]:
        """Return the loss on the validation data, as `validation`, and the metrics."""
        settings, epoch = self.settings, self.run.epoch + 1
        results = evaluation.evaluate(settings.model, settings.loss, held_out.epoch(), self.options.measures)
        loss = results.pop("loss")
        if not math.isfinite(loss):
            raise gradients.NonFiniteError(
                f"epoch {epoch}: the validation loss is {loss}; "
                + (self._divergence() or "look at the validation data, or lower the learning rate")
            )
        return {"validation": loss, **results}

    def _report(self, record: dict[str, float]) -> None:
        """Call the callbacks with the record of an epoch; a run interrupted here resumes with this call."""
        self._call(self.options.callbacks, record)
        self.run.reported = True
        self._mark(snapshot=True)

    def _update_best(self, loss: float) -> None:
        run = self.run
        run.waited += 1
        if loss < run.best_loss:
            run.best = store_of(self.settings.model).data.copy()
            run.best_loss, run.waited, run.history.best_epoch = loss, 0, run.epoch

    def _mark(self, snapshot: bool = False) -> None:
        """Record the state for checkpoints, and to restore weights if training diverges."""
        run, settings = self.run, self.settings
        if self.checkpoints:
            run.mark(settings.model, settings.schedule)
            if snapshot:
                run.take_snapshot(settings.model, settings.optimizer)
        elif snapshot and run.best is None:
            run.mark(settings.model, None)
            run.take_snapshot(settings.model, None)

    def _write(self, checkpoints: Checkpoints, at_mark: bool = True) -> None:
        """Write a checkpoint of the last mark or, if not `at_mark`, of the last snapshot if it is newer."""
        run, settings = self.run, self.settings
        if at_mark and np.isfinite(store_of(settings.model).data).all():
            checkpoints.write(run.steps, lambda: run.content(settings.model, settings.optimizer))
        elif run.snapshot_steps > checkpoints.steps_written:
            checkpoints.write(run.snapshot_steps, run.content_of_snapshot)

    def _handle_error(self, error: BaseException) -> None:
        """Write the checkpoint, set the best weights and attach the history to the exception."""
        run, settings = self.run, self.settings
        interrupted = isinstance(error, KeyboardInterrupt)
        run.history.stopped = "interrupted" if interrupted else "error"
        updates = min(map(len, run.history.steps.values()))  # Ctrl-C may have interrupted `_update`
        for values in run.history.steps.values():
            del values[updates:]
        attach(error, run.history)
        diverged = isinstance(error, gradients.NonFiniteError)
        try:
            if self.checkpoints and run.marked_steps > self.checkpoints.steps_written:
                self._write(self.checkpoints, not diverged and run.is_at_mark(settings.model))
        finally:
            weights = run.best
            if weights is None and diverged and self._divergence():
                weights = run.snapshot_parameters
            self._set_parameters(weights)

    def _set_parameters(self, weights: Any) -> None:
        if weights is not None:
            with store_of(self.settings.model).writing() as flat:
                flat[...] = weights

    def _check_parameters(self) -> None:
        """Raise NonFiniteError if a parameter is not finite after the last update."""
        model, run = self.settings.model, self.run
        for name, weights in model.parameters.items():
            if not np.isfinite(weights).all():
                raise gradients.NonFiniteError(
                    f"epoch {run.epoch + 1}, update {run.steps}: the parameter {name} is not finite; "
                    f"{self._divergence()}"
                )

    def _divergence(self) -> str:
        """Return advice if the norm of the parameters has grown since the start, else an empty string."""
        norm = _norm(store_of(self.settings.model).data)
        if not math.isfinite(self.start_norm) or norm <= DIVERGED_RATIO * max(1.0, self.start_norm):
            return ""
        rate, now = self.run.lr, self.settings.optimizer.lr
        scheduled = "" if now == rate else f", {now:g} by the schedule"
        return (
            f"the norm of the parameters has grown from {self.start_norm:.3g} to {norm:.3g}: lower the "
            f"learning rate (lr={rate:g}{scheduled})"
            + (", or set clip_norm=1.0" if self.settings.clip_norm is None else "")
        )


def _norm(vector: Any) -> float:
    """Return the Euclidean norm, which is not finite if an element is not."""
    with np.errstate(over="ignore"):
        return math.sqrt(np.square(vector, dtype=np.float64).sum())


@contextlib.contextmanager
def _handle_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed; a second Ctrl-C has its usual effect.

    Outside the main thread, or if SIGINT is ignored or not handled by Python, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed: list[int] = []
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, previous)

    if previous in (None, signal.SIG_IGN):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, previous)
