"""The gradient of one minibatch: in one pass, or in segments of time of which only one is held in memory."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm.data.source import Minibatch
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
    """A loss, a gradient or a parameter that is NaN or infinite; the message says where it was seen first.

    Attributes
    ----------
    history : History or None
        Of the training until then.
    """

    history: "History | None" = None


class Mean:
    """The mean loss of several minibatches: the sum over all of them, divided by what counts in all of them.

    A mean of their means would give the sequences of small minibatches more weight than others.
    """

    def __init__(self, total: float = 0.0, counted: float = 0.0) -> None:
        self.total, self.counted = total, counted

    def add(self, value: float, counted: float) -> None:
        """A minibatch by a loss's value and `counted`; the value of one in which nothing counts is a sum."""
        self.total += value * (counted or 1.0)
        self.counted += counted

    @property
    def value(self) -> float:
        """NaN if nothing counts."""
        return self.total / self.counted if self.counted else math.nan


def outputs(model: SequenceLayer, batch: Minibatch, state: Any) -> tuple[Array, Any]:
    """y in the model's own layout, and the last state."""
    x = batch.x.swapaxes(0, 1) if model.batch_first else batch.x
    y, state = model(x, state, lengths=batch.lengths)
    return y, state


def loss_of(model: SequenceLayer, loss: Loss, y: Array, batch: Minibatch) -> tuple[float, Array]:
    """Value and dL/dy."""
    target = batch.target
    if model.batch_first and per_step(model, loss) and isinstance(target, np.ndarray):
        target = target.swapaxes(0, 1)
    return loss(y, target, None if model.pools else batch.lengths)


def per_step(model: SequenceLayer, loss: Loss) -> bool:
    """Whether every step has a target of its own, where targets come as an array."""
    return loss.steps == "all" and not model.pools and not loss.of_sequences


def gradient(
    model: SequenceLayer, loss: Loss, batch: Minibatch, state: Any, group: Mean, segments: Segments
) -> tuple[float, Any]:
    """The loss and the last state.

    The model's gradient, that of the minibatches in `group`, becomes that of them and this one together.
    """
    if segments is not None and len(batch.x) > 1:
        return _gradient_in_segments(model, loss, batch, state, group, steps_of(len(batch.x), segments))
    y, state = outputs(model, batch, state)
    value, dy = loss_of(model, loss, y, batch)
    if _join(model, loss, value, dy, group):
        model.backward(dy, need_dx=False)
    return value, state


def _join(model: SequenceLayer, loss: Loss, value: float, dy: Array, group: Mean) -> bool:
    """Weigh dy, and the gradient of the minibatches before it, by what counts; whether dy is to be added.

    Without anything that counts dy is 0: then the backward pass could only add NaN, of 0 times infinity.
    """
    if not math.isfinite(value):
        return False
    counted = loss.counted
    if not counted and not value:
        return False
    before = group.counted or 1.0
    first = not group.counted and not group.total
    group.add(value, counted)
    now = group.counted or 1.0
    if not first and before != now:
        scale_grad(model, before / now)
    if (counted or 1.0) != now:
        dy *= (counted or 1.0) / now
    return True


def steps_of(T: int, segments: int | Literal["auto"]) -> int:
    """Steps of a segment. Memory for T / n boundaries and n steps is smallest near n = sqrt(T)."""
    return math.ceil(math.sqrt(T)) if segments == "auto" else -(-T // segments)


def cut(batch: Minibatch, start: int, stop: int, of_steps: bool) -> Minibatch:
    """The steps [start, stop) of a minibatch; its target too, if it is one of steps."""
    lengths = None if batch.lengths is None else np.clip(batch.lengths - start, 0, stop - start)
    target = batch.target[start:stop] if of_steps else batch.target
    return Minibatch(batch.x[start:stop], target, lengths, batch.continues or start > 0)


def _gradient_in_segments(
    model: SequenceLayer, loss: Loss, batch: Minibatch, state: Any, group: Mean, steps: int
) -> tuple[float, Any]:
    """Forward through all segments, then backward, with each segment recomputed first (Chen et al. 2016).

    Sequences are sorted by descending length, as in a pass over all steps, so that sums have the same order.
    """
    order = None if batch.lengths is None else np.argsort(-batch.lengths, kind="stable")
    starts = range(0, len(batch.x), steps)
    pieces = [_sorted(cut(batch, t, t + steps, False), order) for t in starts]
    if order is not None:
        state = _map(state, lambda array: array[:, order])
    B, T = batch.x.shape[1], len(batch.x)
    y = np.empty((B, T, model.output_size) if model.batch_first else (T, B, model.output_size), model.dtype)
    by_time = y.swapaxes(0, 1) if model.batch_first else y
    before = []
    for t, piece in zip(starts, pieces, strict=True):
        before.append((state, model._random_state()))
        y_piece, state = outputs(model, piece, state)
        by_time[t : t + steps, slice(None) if order is None else order] = (
            y_piece.swapaxes(0, 1) if model.batch_first else y_piece
        )
    value, dy = loss_of(model, loss, y, batch)
    if not _join(model, loss, value, dy, group):
        return value, state if order is None else _map(state, lambda array: array[:, np.argsort(order)])
    dy_by_time = dy.swapaxes(0, 1) if model.batch_first else dy
    after, dstate = model._random_state(), None
    for k in reversed(range(len(pieces))):
        if k < len(pieces) - 1:  # the last one is still there
            first, random = before[k]
            model._set_random_state(random)
            outputs(model, pieces[k], first)
        dy_piece = dy_by_time[starts[k] : starts[k] + steps, slice(None) if order is None else order]
        _, dstate = model.backward(
            dy_piece.swapaxes(0, 1) if model.batch_first else dy_piece, dstate, need_dx=False
        )
    model._set_random_state(after)
    if order is not None:
        state = _map(state, lambda array: array[:, np.argsort(order)])
    return value, state


def _sorted(batch: Minibatch, order: Array | None) -> Minibatch:
    if order is None or batch.lengths is None:
        return batch
    return batch._replace(x=batch.x[:, order], lengths=batch.lengths[order])


def _map(state: Any, f: Any) -> Any:
    """f of every array of a state."""
    if isinstance(state, tuple):
        return tuple(_map(part, f) for part in state)
    return None if state is None else f(state)


def check_segments(model: SequenceLayer) -> None:
    """Refuse a model that cannot be cut in time, or whose masks would be others when it is."""
    if not model.causal:
        raise ValueError(
            "segments: expected a model that can be cut in time, one that reads forward only and has no "
            "pooling or attention"
        )
    for layer in layers_of(model):
        if not isinstance(layer, RecurrentLayer):
            continue
        zoned = layer.num_layers * ((layer.zoneout > 0) + (layer.zoneout_cell > 0))
        dropped = (layer.num_layers - 1) * (layer.dropout > 0)
        if layer.input_dropout or layer.recurrent_dropout or zoned + dropped > 1:
            raise ValueError(
                "segments: expected recurrent layers with at most one kind of mask, drawn at each step, "
                f"for the masks to be the same as without; got {layer!r}; use Dropout layers between"
            )


def check_finite(model: SequenceLayer, value: float, where: str, divergence: Callable[[], str]) -> float:
    """The norm of the gradient, if it and the loss are finite; else the error that says what was not.

    `divergence` says what to do about parameters that have grown, or nothing if they have not.
    """
    norm = grad_norm(model) if math.isfinite(value) else math.nan
    if math.isfinite(norm):
        return norm
    what = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
    raise NonFiniteError(f"{where}: {what}; {_first_bad(model, value, divergence())}")


def _first_bad(model: SequenceLayer, value: float, divergence: str) -> str:
    """Where it started: in the weights, or in the gradients, of which those of the last layer come first."""
    for name, weights in model.parameters.items():
        if not np.isfinite(weights).all():
            advice = divergence or "lower the learning rate, or clip the gradient"
            return f"the parameter {name} is not finite; {advice}"
    if divergence:
        return divergence
    if math.isfinite(value):
        for name, gradients in reversed(model.gradients.items()):
            if not np.isfinite(gradients).all():
                return f"first in that of {name}; lower the learning rate, or look at the minibatch"
    return "all parameters are finite; look at the minibatch, or scale it"
