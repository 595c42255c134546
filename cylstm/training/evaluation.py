"""Losses and metrics over data, and checks of whether a model can be trained on data."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.data.arrays import Arrays
from cylstm.data.source import Minibatch, Source
from cylstm.data.tokens import TokenStream
from cylstm.layers.base import check_indices
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.losses import Loss
from cylstm.training import gradients, shapes
from cylstm.training.metrics import METRICS, Measurement, Metric

Array = NDArray[Any]


def evaluate(
    model: SequenceLayer, loss: Loss, batches: Iterable[Minibatch], measures: Mapping[str, Metric]
) -> dict[str, float]:
    """The mean loss, as `loss`, and the metrics by name, computed in `eval()` mode."""
    training = model.training
    model.eval()
    try:
        return _evaluated(model, loss, batches, measures)
    finally:
        model.training = training


def _evaluated(
    model: SequenceLayer, loss: Loss, batches: Iterable[Minibatch], measures: Mapping[str, Metric]
) -> dict[str, float]:
    state, mean, measured = None, gradients.Mean(), Measurement(measures)
    for batch in batches:
        y, state = gradients.outputs(model, batch, state if batch.continues else None)
        value, _ = gradients.loss_of(model, loss, y, batch)
        mean.add(value, loss.counted)
        if measures:
            measured.add(*_counted(loss, *_valid_rows(model, loss, y, batch)))
    return {"loss": mean.value} | measured.results()


def check_data(
    name: str, model: SequenceLayer, loss: Loss, source: Source, measures: Mapping[str, Metric]
) -> None:
    """Raise an error for data that would fail later: check shapes and values, then try two sequences.

    With metrics a whole minibatch is tried; without, it might need larger buffers than training in segments.
    If the trial fails, the whole minibatch is evaluated, or all data if there are metrics: the error then
    has the caller's shapes, and a metric may be defined for all rows only.
    """
    if not len(source):
        raise ValueError(f"{name}: expected at least one minibatch, got none")
    try:
        source.check()
        if isinstance(source, TokenStream) and not model.causal:
            raise ValueError(
                "model: expected a forward-only model for a stream, whose state is carried over, got another"
            )
        if isinstance(source, Arrays):
            shapes.check(model, loss, source)
        _check_targets(model, loss, source, measures)
        if model.reads_indices:
            for batch in source.epoch():
                check_indices(model, batch.x)
        batch = next(source.epoch())
        try:
            evaluate(model, loss, [batch if measures else _few(model, loss, batch, 2)], measures)
        except Exception:
            evaluate(model, loss, source.epoch() if measures else [batch], measures)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error


def _check_targets(model: SequenceLayer, loss: Loss, source: Source, measures: Mapping[str, Metric]) -> None:
    """Check all targets, and whether sequences are long enough for labels without alignment."""
    if not loss.of_sequences:
        loss.check(source.targets, model.output_size)
        return
    kind = type(loss).__name__
    if model.pools:
        raise ValueError(
            f"model: expected outputs at every step for {kind}, got a model that pools over time"
        )
    of_rows = [name for name, measure in measures.items() if measure in METRICS.values()]
    if of_rows:
        raise ValueError(
            f"metrics: {of_rows[0]} needs a target at every step, which {kind} does not have; pass a "
            "function of two lists, the outputs (T, V) of each sequence and its labels"
        )
    if isinstance(source, Arrays):
        target = source.target
        if isinstance(target, np.ndarray) and target.ndim != 2:
            raise ValueError(
                f"target: expected the labels of {len(target)} sequences, a list of arrays or (n, L), "
                f"got {target.shape}"
            )
        loss.check(target, model.output_size, lengths=source.lengths)
        return
    loss.check(source.targets, model.output_size)
    for k, batch in enumerate(source.epoch()):
        T, B = batch.x.shape[:2]
        lengths = np.full(B, T) if batch.lengths is None else batch.lengths
        loss.check(batch.target, model.output_size, f"minibatch {k + 1}: target", lengths)


def _few(model: SequenceLayer, loss: Loss, batch: Minibatch, n: int) -> Minibatch:
    """The first n sequences of a minibatch."""
    target, B = batch.target, batch.x.shape[1]
    few: Any
    if isinstance(target, np.ndarray) and target.ndim > 1 and gradients.has_target_per_step(model, loss):
        got, few = target.shape[1], target[:, :n]
    else:
        got, few = len(target), target[:n]
    if got != B:
        raise ValueError(f"target: expected those of {B} sequences, got {got}")
    return Minibatch(batch.x[:, :n], few, None if batch.lengths is None else batch.lengths[:n], False)


def _counted(loss: Loss, y: Array, target: Any) -> tuple[Array, Any]:
    """The rows of y and target without those whose label the loss ignores."""
    ignored = getattr(loss, "ignore_index", None)
    if ignored is None or not isinstance(target, np.ndarray) or target.ndim != 1:
        return y, target
    return y[target != ignored], target[target != ignored]


def _valid_rows(model: SequenceLayer, loss: Loss, y: Array, batch: Minibatch) -> tuple[Any, Any]:
    """Valid (non-padded) rows of y (n, V) and the target; lists of sequences if targets belong to these."""
    target: Any = batch.target
    if model.pools:
        return y, target
    steps = y.swapaxes(0, 1) if model.batch_first else y
    T, B = steps.shape[:2]
    lengths = np.full(B, T) if batch.lengths is None else batch.lengths
    if loss.of_sequences:
        return [steps[:n, b].copy() for b, n in enumerate(lengths)], list(target)
    if loss.steps == "last":
        (b,) = np.nonzero(lengths)
        return steps[lengths[b] - 1, b], target[b]
    t, b = np.nonzero(np.arange(T)[:, None] < lengths)
    return steps[t, b], target[t, b]
