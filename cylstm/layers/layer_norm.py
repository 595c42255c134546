"""Layer normalisation."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._checks.options import has_option_warnings, warn_caller
from cylstm._engine.planning import Shape
from cylstm.layers.parameters import ParameterStore
from cylstm.layers.row_layer import RowLayer, RowWorkspace

Array = NDArray[Any]


class LayerNorm(RowLayer):
    """Normalise each step over its features: y = g (x - mean) / sqrt(var + eps) + b.

    See Ba, Kiros and Hinton 2016.

    Parameters
    ----------
    features : int
        Number of features.
    eps : float
        Added to the variance.
    dtype : {"float32", "float64"}

    Examples
    --------
    >>> import numpy as np
    >>> LayerNorm(2)(np.array([3.0, 5.0])).round(3).tolist()
    [-1.0, 1.0]
    """

    def __init__(self, features: int, eps: float = 1e-5, *, dtype: DTypeLike = "float32") -> None:
        super().__init__()
        self.input_size = self.output_size = _checks.positive("features", features)
        if self.input_size == 1 and has_option_warnings():
            warn_caller("features: with 1 feature the normalised value is always 0, so that y is the bias")
        self.eps = _checks.above("eps", eps, 0)
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes())), _checks.real_dtype(dtype))
        self._store.initialize(self._set_initial)

    def _set_initial(self, flat: Array) -> None:
        flat[: self.input_size] = 1

    def _sizes(self) -> dict[str, Any]:
        return {"features": self.input_size}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        return {**self._sizes(), "eps": self.eps, "dtype": self.dtype.name}

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`weight` and `bias`, (features)."""
        yield "weight", (config["features"],)
        yield "bias", (config["features"],)

    def _planes(self, N: int, training: bool) -> dict[str, Shape]:
        return {"scale": (N, 1), "mean": (N, 1), "product": (N, self.input_size)}

    def _rows_forward(self, workspace: RowWorkspace) -> None:
        x, y, scale = workspace.x, workspace.y, workspace.planes["scale"]
        mean = np.mean(x, axis=1, keepdims=True, out=workspace.planes["mean"])
        x -= mean
        np.multiply(x, x, out=y)
        np.mean(y, axis=1, keepdims=True, out=scale)
        scale += self.eps
        np.sqrt(scale, out=scale)
        x /= scale  # saved for the backward pass
        np.multiply(x, self.parameters["weight"], out=y)
        y += self.parameters["bias"]

    def _rows_backward(self, workspace: RowWorkspace, need_dx: bool) -> Array:
        from cylstm._engine import _rows

        normal, dy, scale = workspace.x, workspace.y, workspace.planes["scale"]
        product, mean = workspace.planes["product"], workspace.planes["mean"]
        gradients = self.gradients
        _rows.add_sum_of_rows(gradients["bias"], dy)
        np.multiply(dy, normal, out=product)
        _rows.add_sum_of_rows(gradients["weight"], product)
        # dx = (d - mean(d) - normal mean(d normal)) / scale with d = g dy
        dy *= self.parameters["weight"]
        np.multiply(dy, normal, out=product)
        np.mean(product, axis=1, keepdims=True, out=mean)
        normal *= mean
        np.mean(dy, axis=1, keepdims=True, out=mean)
        dy -= mean
        dy -= normal
        dy /= scale
        return dy
