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
    """Draw all parameters of a recurrent layer anew; biases become 0.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    weights, recurrent : str
        Of `weight_ih_*` and `weight_hh_*`, each gate's matrix by itself: "glorot", from U(-a, a) with
        a = sqrt(6 / (rows + columns)) (Glorot and Bengio 2010); "orthogonal", evenly from all orthogonal
        matrices (Saxe et al. 2014); "uniform", from U(-1/sqrt(H), 1/sqrt(H)), PyTorch's.
    forget_bias : float
        Of an LSTM's forget gate: above 0 it starts open, and the layer remembers (Jozefowicz et al. 2015).
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
        if name.startswith("weight"):
            for block in value.reshape(len(gates), H, -1):
                block[...] = _matrix(rng, kinds[name[:9]], H, block.shape[1])
        else:
            value[...] = 0
            if "f" in gates and name.startswith("bias_ih"):
                forget = gates.index("f") * H
                value[forget : forget + H] = forget_bias
    layer.load_state_dict(state)


def _check_kind(name: str, kind: str, known: set[str]) -> None:
    if kind not in known:
        raise ValueError(f"{name}: expected one of {sorted(known)}, got {kind!r}")


def _matrix(rng: "np.random.Generator", kind: str, H: int, columns: int) -> Array:
    if kind == "orthogonal":
        q, r = np.linalg.qr(rng.standard_normal((H, columns)))
        return np.asarray(q * np.sign(np.diag(r)))  # makes the draw even (Mezzadri 2007)
    bound = (6 / (H + columns)) ** 0.5 if kind == "glorot" else H**-0.5
    return rng.uniform(-bound, bound, (H, columns))
