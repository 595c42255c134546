"""Other initial weights than PyTorch's, which every layer starts with."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.recurrent import RecurrentLayer

Array = NDArray[Any]


def initialize(
    layer: RecurrentLayer,
    weights: Literal["glorot", "uniform"] = "glorot",
    recurrent: Literal["orthogonal", "glorot", "uniform"] = "orthogonal",
    forget_bias: float = 1.0,
    seed: int | None = None,
) -> None:
    """Draw all weights of a recurrent layer anew; biases, peepholes and learned states become 0, gains 1.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    weights, recurrent : str
        Of `weight_ih_*` (and `weight_hr_*`) and of `weight_hh_*`, each gate's matrix by itself:
        "glorot", from U(-a, a) with a = sqrt(6 / (rows + columns)) (Glorot and Bengio 2010); "orthogonal",
        evenly from all orthogonal matrices (Saxe et al. 2014); "uniform", from U(-1/sqrt(H), 1/sqrt(H)),
        PyTorch's.
    forget_bias : float
        Of an LSTM's forget gate, if it has one: above 0 it starts open, and the layer remembers
        (Jozefowicz et al. 2015).
    seed : int, optional

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> layer = cylstm.LSTM(3, 4)
    >>> cylstm.init.initialize(layer, seed=0)
    >>> gate = layer.parameters["weight_hh_l0"][:4]
    >>> bool(np.allclose(gate @ gate.T, np.eye(4), atol=1e-6)), float(layer.parameters["bias_ih_l0"][4])
    (True, 1.0)
    """
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN layer, got {type(layer).__name__}")
    kinds = {"weight_ih": weights, "weight_hh": recurrent}
    _check_kind("weights", weights, {"glorot", "uniform"})
    _check_kind("recurrent", recurrent, {"glorot", "orthogonal", "uniform"})
    rng, H, gates = _checks.generator(seed), layer.hidden_size, layer.spec.gates
    state = layer.state_dict()
    for name, value in state.items():
        kind = name.split("_l")[0]
        if kind in kinds:
            for block in value.reshape(len(gates), H, -1):
                block[...] = _matrix(rng, kinds[kind], block.shape, H)
        elif kind == "weight_hr":
            value[...] = _matrix(rng, weights, value.shape, H)
        else:
            value[...] = 1 if kind.startswith("norm_") else 0
        if kind in ("bias_ih", "bias") and "f" in gates:
            forget = gates.index("f") * H
            value[forget : forget + H] = forget_bias
    layer.load_state_dict(state)


def _check_kind(name: str, kind: str, known: set[str]) -> None:
    if kind not in known:
        raise ValueError(f"{name}: expected one of {sorted(known)}, got {kind!r}")


def _matrix(rng: "np.random.Generator", kind: str, shape: tuple[int, ...], H: int) -> Array:
    rows, columns = shape
    if kind == "orthogonal":
        tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.diag(r))  # makes the draw even (Mezzadri 2007)
        return np.asarray(q if rows >= columns else q.T)
    bound = (6 / (rows + columns)) ** 0.5 if kind == "glorot" else H**-0.5
    return rng.uniform(-bound, bound, shape)
