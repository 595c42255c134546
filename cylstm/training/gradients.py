"""The gradient of a minibatch, in one pass or with activation checkpointing of time segments."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm.data.source import Minibatch
from cylstm.layers.base import random_state, set_random_state
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.layers.sequential import layers_of
from cylstm.losses import Loss
from cylstm.optim.clipping import grad_norm, scale_grad
from cylstm.recurrent.base import RecurrentLayer

if TYPE_CHECKING:
    from cylstm.training.history import History

Array = NDArray[Any]
Segments = int | Literal["auto"] | None


class NonFiniteError(FloatingPointError):
    """A loss, gradient or parameter is NaN or infinite; the message says where it first occurred.

    Attributes
    ----------
    history : History or None
        The history of the training run up to the error.
    """

    history: "History | None" = None


class Mean:
    """The mean loss of several minibatches, weighted by their total weights.

    An unweighted mean would give the sequences of small minibatches more weight than others.
    """

    def __init__(self, total: float = 0.0, counted: float = 0.0) -> None:
        self.total, self.counted = total, counted

    def add(self, value: float, counted: float) -> None:
        """Add a minibatch: the value of its loss and `counted`, its total weight, which may be 0."""
        self.total += value * (counted or 1.0)
        self.counted += counted

    @property
    def value(self) -> float:
        """The mean; NaN if the total weight is 0."""
        return self.total / self.counted if self.counted else math.nan


def outputs(model: SequenceLayer, batch: Minibatch, state: Any) -> tuple[Array, Any]:
    """Return y in the model's layout, and the final state."""
    x = batch.x.swapaxes(0, 1) if model.batch_first else batch.x
    y, state = model(x, state, lengths=batch.lengths)
    return y, state


def loss_of(model: SequenceLayer, loss: Loss, y: Array, batch: Minibatch) -> tuple[float, Array]:
    """Return the value of the loss and dL/dy."""
    target = batch.target
    if model.batch_first and has_target_per_step(model, loss) and isinstance(target, np.ndarray):
        target = target.swapaxes(0, 1)
    return loss(y, target, None if model.pools else batch.lengths)


def has_target_per_step(model: SequenceLayer, loss: Loss) -> bool:
    """Whether targets are arrays with one target per step."""
    return loss.steps == "all" and not model.pools and not loss.of_sequences


def gradient(
    model: SequenceLayer, loss: Loss, batch: Minibatch, state: Any, group: Mean, segments: Segments
) -> tuple[float, Any]:
    """Compute the loss and the final state, and accumulate the gradient of a minibatch.

    The model has the gradient of the mean loss of `group`, before and after this minibatch is added to it.
    """
    if segments is not None and len(batch.x) > 1:
        return _gradient_in_segments(model, loss, batch, state, group, steps_of(len(batch.x), segments))
    y, state = outputs(model, batch, state)
    value, dy = loss_of(model, loss, y, batch)
    if _add_to_group(model, loss, value, dy, group):
        model.backward(dy, need_dx=False)
    return value, state


def _add_to_group(model: SequenceLayer, loss: Loss, value: float, dy: Array, group: Mean) -> bool:
    """Scale dy and the accumulated gradient by their weights; return whether to run the backward pass.

    If the total weight is 0, so is dy, and the backward pass could only add NaN, from 0 times infinity.
    """
    if not math.isfinite(value):
        return False
    counted = loss.counted
    if not counted and not value:
        return False
    old_weight = group.counted or 1.0
    is_first = not group.counted and not group.total
    group.add(value, counted)
    new_weight = group.counted or 1.0
    if not is_first and old_weight != new_weight:
        scale_grad(model, old_weight / new_weight)
    if (counted or 1.0) != new_weight:
        dy *= (counted or 1.0) / new_weight
    return True


def steps_of(T: int, segments: int | Literal["auto"]) -> int:
    """Return the steps per segment. Memory for T / n boundaries and n steps is minimal near n = sqrt(T)."""
    return math.ceil(math.sqrt(T)) if segments == "auto" else -(-T // segments)


def cut(batch: Minibatch, start: int, stop: int, of_steps: bool) -> Minibatch:
    """Return the steps [start, stop) of a minibatch and, if `of_steps`, of its target."""
    lengths = None if batch.lengths is None else np.clip(batch.lengths - start, 0, stop - start)
    target = batch.target[start:stop] if of_steps else batch.target
    return Minibatch(batch.x[start:stop], target, lengths, batch.continues or start > 0)


def _gradient_in_segments(
    model: SequenceLayer, loss: Loss, batch: Minibatch, state: Any, group: Mean, steps: int
) -> tuple[float, Any]:
    """Run the forward pass over all segments, and a backward pass that recomputes each (Chen et al. 2016).

    Sequences are sorted by descending length, as in a single pass, so that sums have the same order.
    """
    order = None if batch.lengths is None else np.argsort(-batch.lengths, kind="stable")
    starts = range(0, len(batch.x), steps)
    parts = [_sorted(cut(batch, t, t + steps, False), order) for t in starts]
    if order is not None:
        state = _map(state, lambda array: array[:, order])
    B, T = batch.x.shape[1], len(batch.x)
    y = np.empty((B, T, model.output_size) if model.batch_first else (T, B, model.output_size), model.dtype)
    by_time = y.swapaxes(0, 1) if model.batch_first else y
    checkpoints = []
    for t, part in zip(starts, parts, strict=True):
        checkpoints.append((state, random_state(model)))
        y_part, state = outputs(model, part, state)
        by_time[t : t + steps, slice(None) if order is None else order] = (
            y_part.swapaxes(0, 1) if model.batch_first else y_part
        )
    value, dy = loss_of(model, loss, y, batch)
    if not _add_to_group(model, loss, value, dy, group):
        return value, state if order is None else _map(state, lambda array: array[:, np.argsort(order)])
    dy_by_time = dy.swapaxes(0, 1) if model.batch_first else dy
    final_random, dstate = random_state(model), None
    for k in reversed(range(len(parts))):
        if k < len(parts) - 1:  # the last segment needs no recomputation
            initial, random = checkpoints[k]
            set_random_state(model, random)
            outputs(model, parts[k], initial)
        dy_part = dy_by_time[starts[k] : starts[k] + steps, slice(None) if order is None else order]
        _, dstate = model.backward(
            dy_part.swapaxes(0, 1) if model.batch_first else dy_part, dstate, need_dx=False
        )
    set_random_state(model, final_random)
    if order is not None:
        state = _map(state, lambda array: array[:, np.argsort(order)])
    return value, state


def _sorted(batch: Minibatch, order: Array | None) -> Minibatch:
    if order is None or batch.lengths is None:
        return batch
    return batch._replace(x=batch.x[:, order], lengths=batch.lengths[order])


def _map(state: Any, f: Any) -> Any:
    """Apply f to every array of a state."""
    if isinstance(state, tuple):
        return tuple(_map(part, f) for part in state)
    return None if state is None else f(state)


def check_segments(model: SequenceLayer) -> None:
    """Raise ValueError if the model cannot run in segments of time with the same masks."""
    if not model.causal:
        raise ValueError(
            "segments: expected a model that can be split in time: forward only, without pooling or attention"
        )
    for layer in layers_of(model):
        if not isinstance(layer, RecurrentLayer):
            continue
        zoned = layer.num_layers * ((layer.zoneout > 0) + (layer.zoneout_cell > 0))
        dropped = (layer.num_layers - 1) * (layer.dropout > 0)
        if layer.input_dropout or layer.recurrent_dropout or zoned + dropped > 1:
            raise ValueError(
                "segments: expected recurrent layers with at most one kind of mask, drawn at each step, so "
                f"that the masks are the same as without segments, got {layer!r}; use Dropout layers"
            )


def check_finite(model: SequenceLayer, value: float, where: str, divergence: Callable[[], str]) -> float:
    """Return the norm of the gradient; raise NonFiniteError if it or the loss is not finite.

    `divergence` returns advice for the message if the parameters have grown, else an empty string.
    """
    norm = grad_norm(model) if math.isfinite(value) else math.nan
    if math.isfinite(norm):
        return norm
    what = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
    raise NonFiniteError(f"{where}: {what}; {_describe_non_finite(model, value, divergence())}")


def _describe_non_finite(model: SequenceLayer, value: float, divergence: str) -> str:
    """Return where non-finite values first occur: in a parameter, or in a gradient in backward order."""
    for name, weights in model.parameters.items():
        if not np.isfinite(weights).all():
            advice = divergence or "lower the learning rate, or clip the gradient"
            return f"the parameter {name} is not finite; {advice}"
    if divergence:
        return divergence
    if math.isfinite(value):
        for name, gradients in reversed(model.gradients.items()):
            if not np.isfinite(gradients).all():
                return f"first in the gradient of {name}; lower the learning rate, or look at the minibatch"
    return "all parameters are finite; look at the minibatch, or scale it"
