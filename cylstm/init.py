"""Initialization of weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm._checks.options import warn_without_effect
from cylstm.layers import embedding
from cylstm.layers.attention_base import Attention
from cylstm.layers.base import Layer
from cylstm.layers.embedding import Embedding
from cylstm.layers.layer_norm import LayerNorm
from cylstm.layers.linear import Linear
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.base import RecurrentLayer

Array = NDArray[Any]
Draw = Callable[[tuple[int, ...], int], Array]  # of the shape of the matrix and its number of inputs or units


def initialize(
    layer: Layer,
    weights: Literal["glorot", "uniform"] = "glorot",
    recurrent: Literal["orthogonal", "glorot", "uniform"] = "orthogonal",
    forget_bias: float = 1.0,
    embedding_std: float = embedding.STD,
    seed: int | None = None,
) -> None:
    """Reinitialize all weights of a layer or a model.

    Biases, peepholes and learned states become 0, gains of norms 1.

    Parameters
    ----------
    layer : Layer
        A recurrent layer, `Linear`, `Embedding`, `LayerNorm`, an attention layer, a layer without parameters,
        or a `Sequential` or `Residual` of them.
    weights, recurrent : str
        `recurrent` is for `weight_hh_*` of recurrent layers, `weights` for all other matrices; each gate's
        matrix is drawn separately, and so are those of queries, keys and values:
        "glorot", from U(-a, a) with a = sqrt(6 / (rows + columns)) (Glorot and Bengio 2010); "orthogonal",
        uniformly from all orthogonal matrices (Saxe et al. 2014); "uniform", PyTorch's: from
        U(-1/sqrt(n), 1/sqrt(n)), where n is the hidden size, or the number of inputs of other layers.
    forget_bias : float
        Bias of an LSTM's forget gate, if it has one: above 0 the gate starts open, and the layer remembers
        (Jozefowicz et al. 2015).
    embedding_std : float
        Standard deviation of an embedding's vectors, from a normal distribution.
    seed : int, optional

    Raises
    ------
    TypeError
        If a layer is none of these; the error names it, and nothing is changed.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> layer = cylstm.LSTM(8, 4)
    >>> cylstm.init.initialize(layer, seed=0)
    >>> gate = layer.parameters["weight_hh_l0"][:4]
    >>> bool(np.allclose(gate @ gate.T, np.eye(4), atol=1e-6)), float(layer.parameters["bias_ih_l0"][4])
    (True, 1.0)
    >>> model = cylstm.Sequential(cylstm.Embedding(65, 8), layer, cylstm.Linear(4, 65))
    >>> cylstm.init.initialize(model, seed=0)
    >>> float(abs(model.parameters["2.bias"]).max())
    0.0
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a layer, got {type(layer).__name__}")
    _check_kind("weights", weights, {"glorot", "uniform"})
    _check_kind("recurrent", recurrent, {"glorot", "orthogonal", "uniform"})
    forget_bias = _checks.number("forget_bias", forget_bias, -1e38, 1e38)
    std, rng = _checks.number("embedding_std", embedding_std, 0), _checks.generator(seed)
    layers = list(_each(layer))
    specs = [part.spec for part in layers if isinstance(part, RecurrentLayer)]
    if forget_bias != 1 and not any("f" in spec.gates for spec in specs):
        warn_without_effect("forget_bias", forget_bias, "there is no LSTM with a forget gate")
    draw, draw_recurrent = partial(_matrix, rng, weights), partial(_matrix, rng, recurrent)
    for part in layers:
        state = part.state_dict()
        if isinstance(part, RecurrentLayer):
            _recurrent(part, state, draw, draw_recurrent, forget_bias)
        elif isinstance(part, Embedding):
            state["weight"][...] = std * rng.standard_normal(state["weight"].shape)
        elif isinstance(part, LayerNorm):
            state["weight"][...], state["bias"][...] = 1, 0
        else:
            _dense(state, draw)
        part.load_state_dict(state)


def _each(layer: Layer) -> list[Layer]:
    """The layers of a model that have parameters; a TypeError if one of them is not supported."""
    if isinstance(layer, Sequential):
        return [part for below in layer.layers for part in _each(below)]
    if isinstance(layer, (RecurrentLayer, Embedding, LayerNorm, Linear, Attention)):
        return [layer]
    if layer.parameters:
        raise TypeError(
            "layer: expected layers of cylstm, whose parameters have known meanings, got "
            f"{type(layer).__name__}; set its parameters with load_state_dict, and initialize the others "
            "one by one"
        )
    return []


def _recurrent(
    layer: RecurrentLayer, state: dict[str, Array], draw: Draw, draw_recurrent: Draw, forget_bias: float
) -> None:
    H, gates = layer.hidden_size, layer.spec.gates
    for name, value in state.items():
        kind = name.split("_l")[0]
        if kind in ("weight_ih", "weight_hh"):
            for block in value.reshape(len(gates), H, -1):
                block[...] = (draw if kind == "weight_ih" else draw_recurrent)(block.shape, H)
        elif kind == "weight_hr":
            value[...] = draw(value.shape, H)
        else:
            value[...] = 1 if kind.startswith("norm_") else 0
        if kind in ("bias_ih", "bias") and "f" in gates:
            forget = gates.index("f") * H
            value[forget : forget + H] = forget_bias


def _dense(state: dict[str, Array], draw: Draw) -> None:
    """Initialize a dense or an attention layer; its query, key and value matrices are drawn separately."""
    for name, value in state.items():
        if value.ndim == 1:
            value[...] = 0
            continue
        for block in value.reshape(3 if name == "in_proj_weight" else 1, -1, value.shape[1]):
            block[...] = draw(block.shape, value.shape[1])


def _check_kind(name: str, kind: str, known: set[str]) -> None:
    if kind not in known:
        raise ValueError(f"{name}: expected one of {sorted(known)}, got {shown(kind)}")


def _matrix(rng: "np.random.Generator", kind: str, shape: tuple[int, ...], n: int) -> Array:
    rows, columns = shape
    if kind == "orthogonal":
        tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
        return np.asarray(q if rows >= columns else q.T)
    bound = (6 / (rows + columns)) ** 0.5 if kind == "glorot" else n**-0.5
    return rng.uniform(-bound, bound, shape)
