"""Gradient clipping."""

import numpy as np

from cylstm import _checks
from cylstm._engine import _optim
from cylstm.layers.base import Layer
from cylstm.layers.parameters import ParameterStore


def clip_grad_norm(model: Layer, max_norm: float) -> float:
    """Scale all gradients so that their global norm is at most `max_norm` (Pascanu et al. 2013).

    Returns the norm before clipping. If it is not finite, the gradients are unchanged.

    >>> import cylstm
    >>> layer = cylstm.Linear(1, 1, bias=False)
    >>> layer.gradients["weight"][...] = 4.0
    >>> clip_grad_norm(layer, 1.0), float(layer.gradients["weight"][0, 0])
    (4.0, 1.0)
    """
    max_norm = _checks.number("max_norm", max_norm, 0)
    norm = grad_norm(model)
    if max_norm < norm < np.inf:
        store = store_of(model)
        _optim.scale(store.grad, store.active_ranges(), max_norm / norm)
    return norm


def clip_grad_value(model: Layer, max_value: float) -> None:
    """Clip every element of the gradients to [-max_value, max_value]; NaN is preserved.

    >>> import cylstm
    >>> layer = cylstm.Linear(2, 1, bias=False)
    >>> layer.gradients["weight"][...] = [0.5, -4.0]
    >>> clip_grad_value(layer, 1.0)
    >>> layer.gradients["weight"].tolist()
    [[0.5, -1.0]]
    """
    max_value = _checks.number("max_value", max_value, 0)
    store = store_of(model)
    _optim.clip(store.grad, store.active_ranges(), max_value)


def grad_norm(model: Layer) -> float:
    """Return the global norm of all gradients."""
    store = store_of(model)
    return float(np.sqrt(_optim.sum_of_squares(store.grad, store.active_ranges())))


def scale_grad(model: Layer, factor: float) -> None:
    """Multiply all gradients by a factor."""
    store = store_of(model)
    _optim.scale(store.grad, store.active_ranges(), factor)


def store_of(model: Layer) -> ParameterStore:
    """Return the parameter store of a model.

    Raises
    ------
    TypeError
        If `model` is not a layer.
    """
    if not isinstance(model, Layer):
        raise TypeError(
            f"model: expected a layer or a model, got {_checks.shown(model)}; pass the model itself, not its "
            "parameters"
        )
    return model._store
