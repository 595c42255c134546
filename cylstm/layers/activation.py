"""Activation functions and the activation layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm._engine.planning import Shape
from cylstm.layers.row_layer import RowLayer, RowWorkspace
from cylstm.layers.stateless import Sizeless

Array = NDArray[Any]


class Function(NamedTuple):
    """An activation function: y = value(x, alpha, beta), dx = back(x, y, dy, alpha, beta).

    `alpha` and `beta` are default values, or None if the function has no such parameter.
    """

    value: Callable[[Array, Any, Any], Array]
    back: Callable[[Array, Array, Array, Any, Any], Array]
    alpha: float | None = None
    beta: float | None = None


def _sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


def softmax(x: Array) -> Array:
    """Compute the softmax over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _exp_below(x: Array) -> Array:
    """Compute exp(min(x, 0))."""
    result: Array = np.exp(np.minimum(x, 0))
    return result


def _normal(x: Array) -> Array:
    """Standard normal CDF in float64; SciPy is imported lazily."""
    from scipy.special import ndtr

    return np.asarray(ndtr(x.astype(float)))


def _normal_density(x: Array) -> Array:
    return np.asarray(np.exp(-0.5 * x.astype(float) ** 2) / np.sqrt(2 * np.pi))


SELU = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017

# Names follow PyTorch and Keras, else ONNX. Subgradients at kinks follow PyTorch.
FUNCTIONS: dict[str, Function] = {
    "relu": Function(lambda x, a, b: np.maximum(x, 0), lambda x, y, dy, a, b: np.where(x <= 0, 0, dy)),
    "tanh": Function(lambda x, a, b: np.tanh(x), lambda x, y, dy, a, b: dy * (1 - y * y)),
    "sigmoid": Function(lambda x, a, b: _sigmoid(x), lambda x, y, dy, a, b: dy * y * (1 - y)),
    "softmax": Function(
        lambda x, a, b: softmax(x),
        lambda x, y, dy, a, b: y * (dy - (dy * y).sum(axis=-1, keepdims=True)),
    ),
    "log_softmax": Function(
        lambda x, a, b: _log_softmax(x),
        lambda x, y, dy, a, b: dy - np.exp(y) * dy.sum(axis=-1, keepdims=True),
    ),
    "leaky_relu": Function(
        lambda x, a, b: np.where(x > 0, x, a * x), lambda x, y, dy, a, b: dy * np.where(x > 0, 1, a), 0.01
    ),
    "elu": Function(
        lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
        lambda x, y, dy, a, b: dy * np.where(x > 0, 1, a * _exp_below(x)),
        1.0,
    ),
    "selu": Function(  # alpha and gamma
        lambda x, a, b: b * np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
        lambda x, y, dy, a, b: dy * b * np.where(x > 0, 1, a * _exp_below(x)),
        *SELU,
    ),
    "gelu": Function(
        lambda x, a, b: x * _normal(x), lambda x, y, dy, a, b: dy * (_normal(x) + x * _normal_density(x))
    ),
    "silu": Function(
        lambda x, a, b: x * _sigmoid(x),
        lambda x, y, dy, a, b: dy * _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
    ),
    "softplus": Function(
        lambda x, a, b: np.logaddexp(0, x).astype(x.dtype), lambda x, y, dy, a, b: dy * _sigmoid(x)
    ),
    "softsign": Function(lambda x, a, b: x / (1 + abs(x)), lambda x, y, dy, a, b: dy / np.square(1 + abs(x))),
    "hard_sigmoid": Function(
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda x, y, dy, a, b: np.where((y > 0) & (y < 1), dy * a, 0),
        0.2,
        0.5,
    ),
    "affine": Function(lambda x, a, b: a * x + b, lambda x, y, dy, a, b: dy * a, 1.0, 0.0),
    "scaled_tanh": Function(
        lambda x, a, b: a * np.tanh(b * x), lambda x, y, dy, a, b: dy * b * (a - y * y / a), 1.0, 1.0
    ),
    "thresholded_relu": Function(
        lambda x, a, b: np.where(x <= a, 0, x), lambda x, y, dy, a, b: np.where(x <= a, 0, dy), 1.0
    ),
}


def checked(
    kind: Any, alpha: Any, beta: Any, name: str = "kind"
) -> tuple[Function, float | None, float | None]:
    """Look up a function by name; return it with alpha and beta, or their defaults."""
    if kind not in FUNCTIONS:
        raise ValueError(f"{name}: expected one of {', '.join(FUNCTIONS)}, got {shown(kind)}")
    function, values = FUNCTIONS[kind], []
    for parameter, value, default in (("alpha", alpha, function.alpha), ("beta", beta, function.beta)):
        if value is not None and default is None:
            raise ValueError(f"{parameter}: expected None, {kind} has no such parameter, got {shown(value)}")
        finite = None if value is None else _checks.number(parameter, value, -1e38, 1e38)
        values.append(default if finite is None else finite)
    return function, values[0], values[1]


class Activation(Sizeless, RowLayer):
    """Apply an elementwise function, or softmax over the features.

    Parameters
    ----------
    kind : str
        relu, tanh, sigmoid, softmax, log_softmax, leaky_relu, elu, selu, gelu, silu, softplus, softsign,
        hard_sigmoid, affine (αx + β), scaled_tanh (α tanh βx), thresholded_relu (x above α, else 0).
    alpha, beta : float, optional
        Parameters of the function, defined as in ONNX and with its defaults.
    features : int, optional
        Number of features. In a `Sequential`, inferred from the preceding layer.
    dtype : {"float32", "float64"}
        In a `Sequential`, that of the other layers.

    Notes
    -----
    Losses expect logits: train without a final sigmoid or softmax.

    Examples
    --------
    >>> import numpy as np
    >>> Activation("relu", features=3)(np.array([-1.0, 0.5, 2.0])).tolist()
    [0.0, 0.5, 2.0]
    >>> Activation("leaky_relu", 0.25, features=2)(np.array([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
    """

    def __init__(
        self,
        kind: str,
        alpha: float | None = None,
        beta: float | None = None,
        *,
        features: int | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        super().__init__()
        self._function, self.alpha, self.beta = checked(kind, alpha, beta)
        self.kind = kind
        self._set_size(features, dtype)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        parameters = {"alpha": self.alpha, "beta": self.beta}
        return {
            "kind": self.kind,
            **{name: value for name, value in parameters.items() if value is not None},
            **self._sizes(),
        }

    def _planes(self, N: int, training: bool) -> dict[str, Shape]:
        return {"saved_y": (N, self.output_size)} if training else {}  # dy overwrites workspace.y

    def _rows_forward(self, workspace: RowWorkspace) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # IEEE 754 results without warnings
            workspace.y[...] = self._function.value(workspace.x, self.alpha, self.beta)
        if workspace.training:
            workspace.planes["saved_y"][...] = workspace.y

    def _rows_backward(self, workspace: RowWorkspace, need_dx: bool) -> Array:
        x, y, dy = workspace.x, workspace.planes["saved_y"], workspace.y
        with np.errstate(invalid="ignore", over="ignore"):
            workspace.x[...] = self._function.back(x, y, dy, self.alpha, self.beta)
        return workspace.x
