"""Losses and metrics over data, and whether data can be learnt from at all."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.data.source import Minibatch, Source
from cylstm.data.tokens import TokenStream
from cylstm.losses import Loss
from cylstm.sequence_layer import SequenceLayer
from cylstm.training import gradients
from cylstm.training.metrics import Metric

Array = NDArray[Any]


def evaluate(
    model: SequenceLayer, loss: Loss, batches: Iterable[Minibatch], measures: Mapping[str, Metric]
) -> dict[str, float]:
    """The mean loss, as `loss`, and the metrics by name, in the mode of `eval()`."""
    training = model.training
    model.eval()
    try:
        return _evaluated(model, loss, batches, measures)
    finally:
        model.training = training


def _evaluated(
    model: SequenceLayer, loss: Loss, batches: Iterable[Minibatch], measures: Mapping[str, Metric]
) -> dict[str, float]:
    sums, state = dict.fromkeys(measures, 0.0), None
    mean, rows = gradients.Mean(), 0
    for batch in batches:
        y, state = gradients.outputs(model, batch, state if batch.continues else None)
        value, _ = gradients.loss_of(model, loss, y, batch)
        mean.add(value, loss.counted)
        if not measures:
            continue
        y_rows, target = _counted(loss, *_real_rows(model, loss, y, batch))
        rows += len(y_rows)
        if not len(y_rows):
            continue
        for name, measure in measures.items():
            sums[name] += float(measure(y_rows, target)) * len(y_rows)
    return {"loss": mean.value} | {name: s / max(1, rows) for name, s in sums.items()}


def check_data(
    name: str, model: SequenceLayer, loss: Loss, source: Source, measures: Mapping[str, Metric]
) -> None:
    """Refuse what would fail in the middle of a training: all values, and the first minibatch's shapes.

    Without measures, which may need all of it, two of its sequences are tried: the buffers of a whole pass
    may be larger than those of a training in segments.
    """
    if not len(source):
        raise ValueError(f"{name}: expected at least one minibatch, got none")
    try:
        source.check()
        if isinstance(source, TokenStream) and not model.causal:
            raise ValueError("model: expected one that reads forward only for a stream, whose state goes on")
        loss.check(source.targets, model.output_size)
        if model.reads_indices:
            for batch in source.epoch():
                model._check_indices(batch.x)
        for batch in itertools.islice(source.epoch(), 1):
            evaluate(model, loss, [batch if measures else _few(model, loss, batch, 2)], measures)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error


def _few(model: SequenceLayer, loss: Loss, batch: Minibatch, n: int) -> Minibatch:
    """The first n sequences of a minibatch."""
    target, B = batch.target, batch.x.shape[1]
    few: Any
    if isinstance(target, np.ndarray) and target.ndim > 1 and gradients.per_step(model, loss):
        came, few = target.shape[1], target[:, :n]
    else:
        came, few = len(target), target[:n]
    if came != B:
        raise ValueError(f"target: expected those of {B} sequences, got {came}")
    return Minibatch(batch.x[:, :n], few, None if batch.lengths is None else batch.lengths[:n], False)


def _counted(loss: Loss, y: Array, target: Any) -> tuple[Array, Any]:
    """Without the rows whose label the loss ignores."""
    ignored = getattr(loss, "ignore_index", None)
    if ignored is None or not isinstance(target, np.ndarray) or target.ndim != 1:
        return y, target
    return y[target != ignored], target[target != ignored]


def _real_rows(model: SequenceLayer, loss: Loss, y: Array, batch: Minibatch) -> tuple[Array, Any]:
    """Rows of y (n, V) and of the target that count."""
    target: Any = batch.target
    if model.pools:
        return y, target
    steps = y.swapaxes(0, 1) if model.batch_first else y
    T, B = steps.shape[:2]
    lengths = np.full(B, T) if batch.lengths is None else batch.lengths
    if loss.steps == "last":
        (b,) = np.nonzero(lengths)
        return steps[lengths[b] - 1, b], target[b]
    t, b = np.nonzero(np.arange(T)[:, None] < lengths)
    return steps[t, b], target[t, b]
