"""Checks of the shapes of samples against a model and a loss; errors show the caller's shapes."""

from cylstm.data.arrays import Arrays
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.losses import Loss
from cylstm.training.gradients import has_target_per_step


def check(model: SequenceLayer, loss: Loss, samples: Arrays) -> None:
    """Raise ValueError if the shapes of x or the targets do not match the model and the loss."""
    _check_x(model, samples)
    of_steps = has_target_per_step(model, loss)
    row = loss.row_shape(model.output_size)
    if row is not None:
        _check_target(samples, row, of_steps)
    if samples.per_step != of_steps:
        wanted = "step" if of_steps else "sequence"
        raise ValueError(
            f"target: expected one per {wanted} for this model and loss, got one per "
            f"{'sequence' if of_steps else 'step'}; pass (x, target), or target_per={wanted!r} to Arrays"
        )


def _check_x(model: SequenceLayer, samples: Arrays) -> None:
    if not model.input_size:  # not known yet
        return
    features = () if model.reads_indices and model.input_size == 1 else (model.input_size,)
    of_one = "".join(f", {size}" for size in features)
    if isinstance(samples.x, list):
        for i, part in enumerate(samples.x):
            _same(f"x[{i}]", part.shape, (len(part), *features), f"(T{of_one or ','})")
    else:
        _same("x", samples.x.shape, (*samples.x.shape[:2], *features), f"(n, T{of_one})")


def _check_target(samples: Arrays, row: tuple[int, ...], of_steps: bool) -> None:
    target, lengths = samples.target, samples.lengths
    description = f", a target per {'step' if of_steps else 'sequence'}"
    if isinstance(target, list):
        for i, part in enumerate(target):
            expected = (int(lengths[i]), *row) if of_steps else row
            _same(f"target[{i}]", part.shape, expected, f"{expected}{description}")
    elif not of_steps or (lengths == lengths[0]).all():  # arrays are not ragged
        expected = (len(target), int(lengths[0]), *row) if of_steps else (len(target), *row)
        _same("target", target.shape, expected, f"{expected}{description}")


def _same(name: str, got: tuple[int, ...], expected: tuple[int, ...], description: str) -> None:
    if got != expected:
        raise ValueError(f"{name}: expected {description}, got {got}")
