"""Recurrent layers with other activations than the cells have, as ONNX allows: in NumPy, for inference."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cylstm._checks import shown
from cylstm.layers.activation import checked
from cylstm.recurrent.base import CELL_OPTIONS, COMMON_OPTIONS, RecurrentLayer, State
from cylstm.recurrent.gru import GRU
from cylstm.recurrent.lstm import LSTM
from cylstm.recurrent.parameter_names import parameter_name
from cylstm.recurrent.rnn import RNN
from cylstm.recurrent.workspace import Workspace
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]
Function = Callable[[Array], Array]


class ActivatedLayer(RecurrentLayer, abstract=True):
    """One layer of a cell with activations of one's choice; the steps run in NumPy, and there is no training.

    Parameters
    ----------
    input_size, hidden_size : int
    activations : str
        Names of `cylstm.Activation`, with alpha and beta in parentheses, separated by semicolons: those of
        the forward direction, then of the reversed one. Of an LSTM f (for i, f and o), g (for g) and h (for
        what is made of c'); of a GRU f (r and z) and g (n); of an RNN f.
    **options
        bias, batch_first, bidirectional, reverse, clip, learn_state, dtype, seed; of an LSTM peephole and
        coupled, of a GRU reset_after.

    Examples
    --------
    >>> import numpy as np
    >>> layer = ActivatedRNN(3, 4, "leaky_relu(0.1)", seed=0)
    >>> layer(np.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    plain = ("proj_size", "layer_norm", "zoneout", "zoneout_cell", "input_dropout", "recurrent_dropout")
    letters: ClassVar[str]

    def __init__(self, input_size: int, hidden_size: int, activations: str, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        defaults = COMMON_OPTIONS | CELL_OPTIONS | {"num_layers": 1, "dropout": 0.0}
        for name in ("num_layers", "dropout", *self.plain):
            if getattr(self, name) != defaults[name]:
                got = getattr(self, name)
                raise ValueError(
                    f"{name}: expected {defaults[name]!r} in {type(self).__name__}, got {shown(got)}"
                )
        self.activations = str(activations)
        functions = [_function(text) for text in self.activations.split(";")]
        each = len(self.letters)
        if len(functions) != each * self.num_directions:
            raise ValueError(
                f"activations: expected {each * self.num_directions}, {', '.join(self.letters)} of each "
                f"direction, got {shown(activations)}"
            )
        self._functions = [functions[d * each : (d + 1) * each] for d in range(self.num_directions)]

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values, without options that are as by default."""
        return {**super().config, "activations": self.activations}

    def inspect(self, batch: Batch, state: State | None) -> Workspace:
        """Raise RuntimeError: these layers save no gates."""
        raise RuntimeError(f"trace: {type(self).__name__} saves no gates")

    def new_workspace(self, training: bool, in_place: bool = False) -> Any:
        """Buffers of one forward pass, and of its backward pass in training."""
        if training:
            raise RuntimeError(f"{type(self).__name__}: is for inference only; expected eval(), got train()")

    def _is_output_donated(self, workspace: Any) -> bool:
        return False  # it has no workspace

    def step_stages(self, workspace: Any, state: State, packing: Packing) -> Any:
        """Stages of a single step for `_engine._steps.Steps`; None: only `forward_batch` computes it."""
        return None  # no kernels

    def forward_batch(self, workspace: Any, batch: Batch, state: State | None) -> tuple[Array, State]:
        """y of a batch, as rows of the workspace, and the final state."""
        packing, H = batch.packing, self.hidden_size
        by_length: Any = slice(None) if packing.order is None else packing.order
        initial = self.initial_state(packing.B) if state is None else state
        final = tuple(np.empty_like(part, self.dtype) for part in initial)
        y = np.empty((packing.N, self.output_size), self.dtype)
        x = np.empty((packing.N, self.input_size), self.dtype)
        for d in range(self.num_directions):
            reverse = self.reverse or d == 1
            batch.into(x, reverse)
            last = [part[d].astype(self.dtype)[by_length] for part in initial]
            rows = self._direction(x, packing, d, last)
            y[:, d * H : (d + 1) * H] = rows[packing.reverse_to_forward] if reverse else rows
            for part, values in zip(final, last, strict=True):
                part[d][by_length] = values
        return y, final

    def _direction(self, x: Array, packing: Packing, d: int, states: list[Array]) -> Array:
        """h of every row, in the order of x; the states become the last ones of every sequence."""
        p = {
            kind: value
            for kind in ("weight_hh", "bias_hh", "weight_ci", "weight_cf", "weight_co")
            if (value := self.parameters.get(parameter_name(kind, 0, d))) is not None
        }
        bias = self.parameters.get(parameter_name("bias_ih", 0, d), 0)
        z = x @ self.parameters[parameter_name("weight_ih", 0, d)].T + bias
        rows, start = np.empty((packing.N, self.hidden_size), self.dtype), 0
        with np.errstate(all="ignore"):  # infinities and NaN without warnings
            for n in packing.rows:
                new = self._step(z[start : start + n], [part[:n] for part in states], p, self._functions[d])
                for part, values in zip(states, new, strict=True):
                    part[:n] = values
                rows[start : start + n] = new[0]
                start += n
        return rows

    def _clipped(self, z: Array) -> Array:
        return z if self.clip is None else np.clip(z, -self.clip, self.clip)

    def _step(self, z: Array, states: list[Array], p: dict[str, Array], f: list[Function]) -> list[Array]:
        """The states after a step, from W_ih x + b_ih, the states before it and the other parameters."""
        raise NotImplementedError


def parsed(text: str) -> tuple[str, list[float]]:
    """Name and values of "name", "name(alpha)" or "name(alpha, beta)"."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", text)
    if not found or ((values := (found[2] or "").split(",")) and len(values) > 2):
        raise ValueError(f"activations: expected name(alpha, beta), got {shown(text)}")
    return found[1], [float(value) for value in values if value.strip()]


def _function(text: str) -> Function:
    """The function that a text names."""
    name, values = parsed(text)
    given = [*values, None, None]
    function, alpha, beta = checked(name, given[0], given[1], "activations")
    if name in ("softmax", "log_softmax"):
        raise ValueError(f"activations: expected a function of single numbers, got {name}")
    return lambda z: function.value(z, alpha, beta)


class ActivatedLSTM(ActivatedLayer, LSTM):
    """LSTM with activations of one's choice; see `ActivatedLayer`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = ActivatedLSTM(3, 4, "hard_sigmoid(0.2, 0.5); softsign; tanh", seed=0)
    >>> layer(np.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    letters = "fgh"

    def _step(self, z: Array, states: list[Array], p: dict[str, Array], f: list[Function]) -> list[Array]:
        h, c = states
        parts = np.split(z + h @ p["weight_hh"].T + p.get("bias_hh", 0), len(self.spec.gates), axis=1)
        gates = dict(zip(self.spec.gates, parts, strict=True))
        i = f[0](self._clipped(gates["i"] + p.get("weight_ci", 0) * c))
        forget = 1 - i if self.coupled else f[0](self._clipped(gates["f"] + p.get("weight_cf", 0) * c))
        c = forget * c + i * f[1](self._clipped(gates["g"]))
        o = f[0](self._clipped(gates["o"] + p.get("weight_co", 0) * c))
        return [o * f[2](c), c]


class ActivatedGRU(ActivatedLayer, GRU):
    """GRU with activations of one's choice; see `ActivatedLayer`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = ActivatedGRU(3, 4, "hard_sigmoid; softsign", seed=0)
    >>> layer(np.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    letters = "fg"

    def _step(self, z: Array, states: list[Array], p: dict[str, Array], f: list[Function]) -> list[Array]:
        (h,) = states
        w_rz, w_n = np.split(p["weight_hh"], [2 * self.hidden_size])
        b_rz, b_n = np.split(p.get("bias_hh", np.zeros(len(p["weight_hh"]), self.dtype)), [len(w_rz)])
        z_rz, z_n = np.split(z, [len(w_rz)], axis=1)
        r, u = np.split(f[0](self._clipped(z_rz + h @ w_rz.T + b_rz)), 2, axis=1)
        product = r * (h @ w_n.T + b_n) if self.reset_after else (r * h) @ w_n.T + b_n
        n = f[1](self._clipped(z_n + product))
        return [(1 - u) * n + u * h]


class ActivatedRNN(ActivatedLayer, RNN):
    """RNN with an activation of one's choice; see `ActivatedLayer`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = ActivatedRNN(3, 4, "elu(0.5)", seed=0)
    >>> bool(layer(np.ones((5, 2, 3)))[0].min() > -0.5)
    True
    """

    letters = "f"

    def _step(self, z: Array, states: list[Array], p: dict[str, Array], f: list[Function]) -> list[Array]:
        (h,) = states
        return [f[0](self._clipped(z + h @ p["weight_hh"].T + p.get("bias_hh", 0)))]
