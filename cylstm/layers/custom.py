"""Base classes of user-defined layers in NumPy, with a forward and a backward pass and parameters."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm.layers.base import Layer
from cylstm.layers.parameters import ParameterStore
from cylstm.layers.row_layer import RowLayer, RowWorkspace
from cylstm.layers.stateless import StatelessLayer
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class Context:
    """The context of a call of a custom layer: `forward_pass` sets attributes for `backward_pass`.

    Attributes
    ----------
    training : bool
        Whether the layer is in training mode, so that a backward pass may follow.
    lengths : ndarray
        (B,), the number of valid steps of each sequence, for a `CustomSequenceLayer`.
    """

    lengths: NDArray[np.intp]

    def __init__(self, training: bool) -> None:
        self.training = training

    def __repr__(self) -> str:
        """Show names and types of the attributes."""
        values = ", ".join(f"{name}={type(value).__name__}" for name, value in vars(self).items())
        return f"Context({values})"

    def __getattr__(self, name: str) -> Any:
        """Raise an error for missing attributes."""
        raise AttributeError(f"context: forward_pass has not set {name!r}")


class _Custom(Layer, abstract=True):
    """Common base of custom layers: parameters, configuration, checks of results."""

    def _set_up(
        self, input_size: int, output_size: int, parameters: Mapping[str, Any] | None, dtype: DTypeLike
    ) -> None:
        self.input_size = _checks.positive("input_size", input_size)
        self.output_size = _checks.positive("output_size", output_size)
        values = {
            _name(name): _checks.real_array(f"parameters {name}", value)
            for name, value in (parameters or {}).items()
        }
        shapes = {name: value.shape for name, value in values.items()}
        self._store = ParameterStore(shapes, _checks.real_dtype(dtype))
        self._store.initialize(lambda flat: self._set_initial(flat, values))

    def _set_initial(self, flat: Array, values: Mapping[str, Array]) -> None:
        for name, view in self._store.views(flat).items():
            view[...] = values[name]

    def forward_pass(self, x: Array, context: Any) -> Any:
        """Compute the outputs y for inputs x."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method forward_pass(x, context)")

    def backward_pass(self, dy: Array, context: Any) -> Any:
        """Compute dL/dx from dL/dy, and add parameter gradients to `self.gradients`."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method backward_pass(dy, context)")

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values, by default from attributes of these names."""
        config = {}
        for name, argument in inspect.signature(type(self)).parameters.items():
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) or not hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__}: expected an attribute for each constructor argument, got none "
                    f"for {name!r}; set self.{name}, or override config"
                )
            value = getattr(self, name)
            config[name] = value.name if isinstance(value, np.dtype) else value
        return config

    def _result(self, method: str, value: Any, shape: tuple[int, ...]) -> Array:
        """Check the shape of the result of a method."""
        return _checks.shaped(f"{type(self).__name__}.{method}: result", value, shape)


class CustomLayer(RowLayer, _Custom, abstract=True):
    """Base class of layers written in NumPy that map each step independently.

    A subclass implements `forward_pass` and `backward_pass`. It can be used in a `Sequential`, `Trainer`,
    `Session` and `Stream`, and saved, copied and pickled like any layer. To load a model that contains it,
    import the module that defines it first.

    Parameters
    ----------
    input_size, output_size : int
        Number of features of x and y, I and O.
    parameters : mapping of str to array, optional
        Initial values by name. They become `self.parameters[name]` in the layer's dtype, with gradients
        `self.gradients[name]`.
    dtype : {"float32", "float64"}

    Notes
    -----
    `forward_pass(x, context)` gets the valid steps of a batch, read-only (N, I), and returns (N, O).
    `backward_pass(dy, context)` gets dL/dy (N, O), adds to the gradients, and returns dL/dx (N, I). Store
    values for the backward pass as attributes of `context`, which also has `training`. Sessions call
    `forward_pass` from several threads, so it must not modify the layer.

    `config` returns the constructor arguments, by default the attributes of the same names. See
    `docs/how-to/write-a-layer.md`.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> class Scale(cylstm.CustomLayer):
    ...     def __init__(self, features, dtype="float32"):
    ...         super().__init__(features, features, {"gain": np.ones(features)}, dtype)
    ...         self.features = features
    ...     def forward_pass(self, x, context):
    ...         context.x = x
    ...         return x * self.parameters["gain"]
    ...     def backward_pass(self, dy, context):
    ...         self.gradients["gain"] += (dy * context.x).sum(axis=0)
    ...         return dy * self.parameters["gain"]
    >>> model = cylstm.Sequential(cylstm.LSTM(3, 4, seed=0), Scale(4), cylstm.Linear(4, 1, seed=1))
    >>> model(np.ones((5, 2, 3)))[0].shape
    (5, 2, 1)
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        parameters: Mapping[str, Any] | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        super().__init__()
        self._set_up(input_size, output_size, parameters, dtype)

    def new_workspace(self, training: bool, in_place: bool = False) -> "_RowWorkspace":
        """Buffers of one forward pass, and of its backward pass in training."""
        return _RowWorkspace(training)

    def _rows_forward(self, workspace: "_RowWorkspace") -> None:
        context = Context(workspace.training)
        y = self.forward_pass(_read_only(workspace.x), context)
        workspace.y[...] = self._result("forward_pass", y, workspace.y.shape)
        workspace.context = context if workspace.training else None

    def _rows_backward(self, workspace: "_RowWorkspace", need_dx: bool) -> Array:
        dx = self.backward_pass(_read_only(workspace.y), workspace.context)
        dx = self._result("backward_pass", dx, workspace.x.shape).astype(self.dtype, copy=False)
        workspace.context = None
        return dx


class CustomSequenceLayer(StatelessLayer, _Custom, abstract=True):
    """Base class of layers written in NumPy whose outputs depend on several steps.

    Like `CustomLayer`, but `forward_pass(x, context)` gets zero-padded sequences (T, B, I) and returns (T, B,
    O); `backward_pass(dy, context)` gets dL/dy in the same layout, and returns dL/dx. `context.lengths` (B,)
    holds the number of valid steps of each sequence. Outputs and gradients at other steps are ignored. Such a
    layer has no state, so that it cannot be used in a `Stream`.

    Parameters
    ----------
    input_size, output_size, parameters, dtype
        As for `CustomLayer`.
    batch_first : bool, optional
        Whether x is (B, T, I) in calls of the layer itself. By default as in the enclosing model.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> class Difference(cylstm.CustomSequenceLayer):
    ...     def __init__(self, features, dtype="float32"):
    ...         super().__init__(features, features, dtype=dtype)
    ...         self.features = features
    ...     def forward_pass(self, x, context):
    ...         return np.diff(x, axis=0, prepend=0)
    ...     def backward_pass(self, dy, context):
    ...         return dy - np.concatenate([dy[1:], np.zeros_like(dy[:1])])
    >>> y, state = Difference(1)(np.array([[1.0], [3.0], [6.0]]))
    >>> y.ravel().tolist()
    [1.0, 2.0, 3.0]
    """

    pads = True

    def __init__(
        self,
        input_size: int,
        output_size: int,
        parameters: Mapping[str, Any] | None = None,
        dtype: DTypeLike = "float32",
        *,
        batch_first: bool | None = None,
    ) -> None:
        super().__init__()
        self._set_up(input_size, output_size, parameters, dtype)
        self.batch_first = None if batch_first is None else bool(batch_first)

    def new_workspace(self, training: bool, in_place: bool = False) -> "_SequenceWorkspace":
        """Buffers of one forward pass, and of its backward pass in training."""
        return _SequenceWorkspace(training)

    def forward_batch(self, workspace: "_SequenceWorkspace", batch: Batch, state: None) -> tuple[Array, None]:
        """y of a batch, as rows of the workspace, and the final state."""
        context, packing = Context(workspace.training), batch.packing
        context.lengths = packing.lengths
        x = self._padded(batch, self.input_size)
        y = self._result(
            "forward_pass", self.forward_pass(_read_only(x), context), (*x.shape[:2], self.output_size)
        )
        workspace.context, workspace.packing = context if workspace.training else None, packing
        return self._packed(y, packing), None

    def backward_batch(
        self, workspace: "_SequenceWorkspace", dy: Batch, dstate: None, need_dx: bool
    ) -> tuple[Array, None]:
        """dx of the last forward pass and the gradient of its initial state; adds to the gradients."""
        steps = self._padded(dy, self.output_size)
        dx = self.backward_pass(_read_only(steps), workspace.context)
        workspace.context = None
        dx = self._result("backward_pass", dx, (*steps.shape[:2], self.input_size))
        return self._packed(dx, workspace.packing), None

    def _padded(self, batch: Batch, features: int) -> Array:
        """Copy a batch to a zero-padded array (T, B, features)."""
        packing = batch.packing
        rows = np.empty((packing.N, features), self.dtype)
        batch.into(rows)
        if packing.index(reverse=False) is None:
            return rows.reshape(packing.T, packing.B, features)
        steps = np.empty((packing.T, packing.B, features), self.dtype)
        packing.scatter(rows, steps)
        return steps

    def _packed(self, steps: Array, packing: Packing) -> Array:
        """Copy the valid steps to rows (N, features)."""
        rows = np.empty((packing.N, steps.shape[-1]), self.dtype)
        Batch(steps, packing).into(rows)
        return rows


class _RowWorkspace(RowWorkspace):
    """A workspace with the context of a training forward pass."""

    context: Context | None = None


class _SequenceWorkspace:
    """The context and the packing of a training forward pass."""

    def __init__(self, training: bool) -> None:
        self.training = training
        self.context: Context | None = None
        self.packing = Packing(0, 0)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(f"parameters: expected names without a dot, got {shown(name)}")
    return name


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
