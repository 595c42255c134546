"""Layers that map each row independently: the last axis of an array of any shape."""

from typing import Any

from numpy.typing import NDArray

from cylstm import _checks
from cylstm._engine.planning import Arena, Shape
from cylstm._system.threads import call_threads
from cylstm.layers.base import Layer
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class RowWorkspace:
    """Buffers for N rows: x, y and additional ones (`RowLayer._planes`)."""

    def __init__(self, training: bool) -> None:
        self.training = training
        self.arena = Arena()
        self.shapes: dict[str, Shape] = {}
        self.planes: dict[str, Array] = {}
        self._given_x: Array | None = None

    @property
    def x(self) -> Array:
        """The input (N, I), which dL/dx overwrites in the backward pass."""
        return self.planes["x"]

    @property
    def y(self) -> Array:
        """The output (N, O), which dL/dy overwrites in the backward pass."""
        return self.planes["y"]

    def prepare(self, N: int, layer: "RowLayer", x: Array | None = None) -> None:
        """Allocate the buffers if N or the external x has changed."""
        shapes = {"x": (N, layer.input_size), "y": (N, layer.output_size), **layer._planes(N, self.training)}
        if shapes == self.shapes and _same(x, self._given_x):
            return
        self.shapes, self._given_x = {}, x
        internal = shapes if x is None else {name: shape for name, shape in shapes.items() if name != "x"}
        self.planes = self.arena.cut(internal, layer.dtype) | ({} if x is None else {"x": x})
        self._allocate_more(N, layer)
        self.shapes = shapes  # last, because Ctrl-C may interrupt any line

    def _allocate_more(self, N: int, layer: "RowLayer") -> None:
        """Allocate additional buffers of a subclass."""


def _same(x: Array | None, other: Array | None) -> bool:
    """Whether both arrays start at the same address, or both are None."""
    if x is None or other is None:
        return x is other
    return bool(x.ctypes.data == other.ctypes.data)


class RowLayer(Layer, abstract=True):
    """Base class of layers that map rows (N, I) to rows (N, O).

    A subclass implements `_rows_forward(workspace)`, which computes `workspace.y` from `workspace.x`, and
    `_rows_backward(workspace, need_dx)`, which reads dL/dy from `workspace.y`, adds to the gradients, and
    returns dL/dx in a buffer of the workspace.
    """

    def _planes(self, N: int, training: bool) -> dict[str, Shape]:
        """Shapes of additional buffers of a workspace."""
        return {}

    def _rows_forward(self, workspace: Any) -> None:
        raise NotImplementedError

    def _rows_backward(self, workspace: Any, need_dx: bool) -> Array | None:
        raise NotImplementedError

    def _rows_of(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        """Convert an input to rows (N, I), and return them with its leading shape."""
        array = _checks.real_array("x", x)
        if not self.input_size and array.ndim:  # the size is not known yet
            self.fit_input(array.shape[-1], self.dtype)
        if array.ndim < 1 or array.shape[-1] != self.input_size:
            raise ValueError(f"x: expected (..., {self.input_size}), got {array.shape}")
        return array.reshape(-1, self.input_size), array.shape[:-1]

    def __call__(self, x: Any, *, threads: int | None = None) -> Array:
        """Map x (..., I), converted to the layer's dtype, to (..., O).

        `threads` overrides `cylstm.get_num_threads()` for this call.
        """
        if threads is not None:
            with call_threads(threads):
                return self(x)
        rows, outer = self._rows_of(x)
        shape = (*outer, self.output_size)
        if self.training:
            self._y_shape = shape

        def result(_workspace: Any, y: Array, _state: None) -> Array:
            return y.copy().reshape(shape)

        value: Array = self._run(Batch(rows, Packing(1, len(rows))), None, result)
        return value

    def backward(self, dy: Any, *, threads: int | None = None) -> Array | None:
        """Compute dL/dx for the last training forward pass (None for indices), and add to the gradients."""
        if threads is not None:
            with call_threads(threads):
                return self.backward(dy)
        workspace = self._workspace_for_backward()
        array = _checks.shaped("dy", dy, self._y_shape)
        rows = array.reshape(-1, self.output_size)
        dx, _ = self._run_backward(workspace, Batch(rows, Packing(1, len(rows))), None, True)
        return None if dx is None else dx.copy().reshape(*array.shape[:-1], self.input_size)

    def new_workspace(self, training: bool, in_place: bool = False) -> Any:
        """Buffers of one forward pass, and of its backward pass in training."""
        return RowWorkspace(training)

    def forward_batch(self, workspace: Any, batch: Batch, state: None) -> tuple[Array, None]:
        """y of a batch, as rows of the workspace, and the final state."""
        x = batch.rows_in_place(self.dtype) if batch.donated else None
        workspace.prepare(batch.packing.N, self, x)
        if x is None:
            batch.into(workspace.x)
        self._rows_forward(workspace)
        return workspace.y, None

    def backward_batch(
        self, workspace: Any, dy: Batch, dstate: None, need_dx: bool
    ) -> tuple[Array | None, None]:
        """dx of the last forward pass and the gradient of its initial state; adds to the gradients."""
        dy.into(workspace.y)
        return self._rows_backward(workspace, need_dx), None
