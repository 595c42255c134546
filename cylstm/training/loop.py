"""The loop of a training: epochs of minibatches, updates, validation, checkpoints."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cylstm.data import Minibatch, Source
from cylstm.data.prefetching import prefetch_slow
from cylstm.optim import clip_grad_norm, clip_grad_value
from cylstm.training import evaluation, gradients
from cylstm.training.checkpoints import Checkpoints
from cylstm.training.metrics import Metric
from cylstm.training.run import Run

if TYPE_CHECKING:
    from cylstm.training.trainer import Trainer

Callback = Callable[["Trainer", dict[str, float]], Any]


class Loop:
    """One call of `fit`."""

    def __init__(
        self,
        trainer: "Trainer",
        run: Run,
        data: Source,
        held_out: Source | None,
        measures: Mapping[str, Metric],
        patience: int | None,
        callbacks: Sequence[Callback],
        saved: Checkpoints | None,
    ) -> None:
        self.trainer, self.run, self.data, self.held_out = trainer, run, data, held_out
        self.measures, self.patience, self.callbacks, self.saved = measures, patience, callbacks, saved

    def run_all(self, epochs: int, progress: bool) -> None:
        """All epochs that are left."""
        from tqdm import tqdm

        run, n = self.run, len(self.data)
        if run.history.stopped == "interrupted":
            run.history.stopped = ""
        if self.saved:
            self.saved.begin(run.steps)
        with (
            _interrupts() as interrupted,
            tqdm(
                total=epochs * n,
                initial=min(epochs, run.epoch) * n + run.batch,
                unit=" batches",
                disable=None if progress else True,
            ) as bar,
        ):
            while run.epoch < epochs and not run.history.stopped:
                bar.set_description(f"epoch {run.epoch + 1}/{epochs}", refresh=False)
                if not self._minibatches(interrupted, bar):
                    run.history.stopped = "interrupted"
                    break
                bar.set_postfix(self._finish_epoch(), refresh=False)
            if interrupted() and not run.history.stopped:  # in the last validation
                run.history.stopped = "interrupted"
        if self.saved:
            self._write(self.saved)

    def _minibatches(self, interrupted: Callable[[], bool], bar: Any) -> bool:
        """The rest of an epoch; returns whether it was finished."""
        run, began = self.run, time.perf_counter()
        self.trainer.model.train()  # a callback may have changed the mode
        run.begin_epoch()
        batches = prefetch_slow(self.data.epoch(run.rng, start=run.batch))
        with contextlib.closing(batches):
            for batch in batches:
                for piece in self._pieces(batch):
                    self._learn(piece)
                run.batch += 1
                bar.update()
                now = time.perf_counter()
                run.sums["seconds"] += now - began
                began = now
                if run.batch % self.trainer.accumulate:
                    continue
                if interrupted():
                    return False
                if self.saved and self.saved.due(run.steps):
                    self._write(self.saved)
        return True

    def _pieces(self, batch: Minibatch) -> Iterator[Minibatch]:
        steps, T = self.trainer.truncate, len(batch.x)
        if steps is None or steps >= T:
            yield batch
            return
        for start in range(0, T, steps):
            yield gradients.cut(batch, start, min(start + steps, T), True)

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
        norm = gradients.check_finite(model, value, where)
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
        """Validate, and decide whether to go on; the record of the epoch."""
        run, trainer = self.run, self.trainer
        record = {"epoch": run.epoch + 1, "loss": run.loss.value}
        monitored = record["loss"]
        if self.held_out is not None:
            batches = self.held_out.epoch()
            found = evaluation.evaluate(trainer.model, trainer.loss, batches, self.measures)
            monitored = record["validation"] = found.pop("loss")
            record |= found
            if not math.isfinite(monitored):
                raise gradients.NonFiniteError(
                    f"epoch {run.epoch + 1}: the validation loss is {monitored}; "
                    "look at the validation data, or lower the learning rate"
                )
            self._keep_best(monitored)
        record |= {
            "lr": trainer.optimizer.lr,
            "grad_norm": run.sums["grad_norm"] / max(1, run.sums["updates"]),
            "seconds": run.sums["seconds"],
        }
        run.history.epochs.append(record)
        run.epoch, run.batch, run.order = run.epoch + 1, 0, run.rng.bit_generator.state
        if trainer.schedule:
            trainer.schedule.observe(monitored)
        if self.patience is not None and run.waited >= self.patience:
            run.history.stopped = "early"
        answers = [callback(trainer, dict(record)) for callback in self.callbacks]
        if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
            run.history.stopped = "callback"
        return {name: record[name] for name in ("loss", "validation", *self.measures) if name in record}

    def _keep_best(self, monitored: float) -> None:
        run = self.run
        run.waited += 1
        if monitored < run.best_loss:
            data = self.trainer.model._store.data
            run.best = data.copy() if run.best is None else run.best
            np.copyto(run.best, data)
            run.best_loss, run.waited, run.history.best_epoch = monitored, 0, run.epoch + 1

    def _write(self, saved: Checkpoints) -> None:
        trainer = self.trainer
        saved.write(
            self.run.steps, lambda: self.run.content(trainer.model, trainer.optimizer, trainer.schedule)
        )


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
