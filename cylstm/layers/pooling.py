"""Pooling over time."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm._checks import shown
from cylstm._engine.planning import Arena
from cylstm.layers.stateless import Sizeless, StatelessLayer
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]
How = Literal["last", "mean", "max", "ends"]


class Pooling(Sizeless, StatelessLayer):
    """Pool each sequence over time: its last step, or the mean or maximum over valid steps.

    Sequences of length 0 give zeros.

    Parameters
    ----------
    how : {"last", "mean", "max", "ends"}
        "ends" is for outputs of a bidirectional layer: the first half of the features at the last step and
        the second half at the first step, where each direction has read the whole sequence.
    features : int, optional
        Number of features. In a `Sequential`, inferred from the preceding layer.
    dtype : {"float32", "float64"}
        In a `Sequential`, that of the other layers.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.GRU(3, 8), cylstm.Pooling("mean"), cylstm.Linear(8, 2))
    >>> y, state = model(np.ones((5, 4, 3)), lengths=[5, 2, 0, 1])
    >>> y.shape
    (4, 2)
    """

    pools = True

    def __init__(
        self, how: How = "last", *, features: int | None = None, dtype: DTypeLike = "float32"
    ) -> None:
        super().__init__()
        if how not in get_args(How):
            raise ValueError(f"how: expected one of {', '.join(get_args(How))}, got {shown(how)}")
        self.how = how
        self._set_size(features, dtype)

    def _set_size(self, features: int | None, dtype: Any) -> None:
        super()._set_size(features, dtype)
        if self.how == "ends" and self.input_size % 2:
            raise ValueError(
                f"features: expected two directions of the same size for 'ends', got {self.input_size}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        return {"how": self.how, **self._sizes()}

    def new_workspace(self, training: bool, in_place: bool = False) -> "_Workspace":
        """Buffers of one forward pass, and of its backward pass in training."""
        return _Workspace()

    def forward_batch(self, workspace: "_Workspace", batch: Batch, state: None) -> tuple[Array, None]:
        """y of a batch, as rows of the workspace, and the final state."""
        from cylstm._engine import _rows

        packing = batch.packing
        x, pooled, y = workspace.prepare(packing, self)
        batch.into(x)
        if self.how in ("last", "ends"):
            nonempty = packing.last >= packing.B  # sequences of at least one step
            pooled[...] = 0
            pooled[nonempty] = x[packing.last[nonempty] - packing.B]
            if self.how == "ends":
                first = _second_half(x[: np.count_nonzero(nonempty)])
                _second_half(pooled[: len(first)])[...] = first
        elif self.how == "mean":
            _rows.sum_steps(pooled, x, packing.rows)
            pooled /= _steps(packing, self.dtype)
        else:
            _rows.max_steps(pooled, workspace.place, x, packing.rows)
        y[_order(packing)] = pooled
        return y, None

    def backward_batch(
        self, workspace: "_Workspace", dy: Batch, dstate: None, need_dx: bool
    ) -> tuple[Array | None, None]:
        """dx of the last forward pass and the gradient of its initial state; adds to the gradients."""
        from cylstm._engine import _rows

        if not need_dx:
            return None, None
        packing = workspace.packing
        x, pooled, y = workspace.prepare(packing, self)
        dy.into(y)
        pooled[...] = y[_order(packing)]
        if self.how in ("last", "ends"):
            nonempty = packing.last >= packing.B
            x[...] = 0
            x[packing.last[nonempty] - packing.B] = pooled[nonempty]
            if self.how == "ends":
                first = _second_half(pooled[: np.count_nonzero(nonempty)]).copy()
                _second_half(x)[...] = 0
                _second_half(x[: len(first)])[...] = first
        elif self.how == "mean":
            pooled /= _steps(packing, self.dtype)
            _rows.spread_steps(x, pooled, packing.rows)
        else:
            _rows.put_at(x, workspace.place, pooled)
        return x, None


def _second_half(rows: Array) -> Array:
    """Return a view of the second half of the features."""
    return rows[:, rows.shape[1] // 2 :]


def _order(packing: Packing) -> Any:
    return slice(None) if packing.order is None else packing.order


def _steps(packing: Packing, dtype: "np.dtype[Any]") -> Array:
    """Return the number of valid steps of each sequence in packed order, at least 1; (B, 1)."""
    steps: Array = np.maximum(packing.lengths[_order(packing)], 1).astype(dtype)[:, None]
    return steps


class _Workspace:
    """Buffers for the rows (N, F), and for one row per sequence, in packed and in the caller's order."""

    def __init__(self) -> None:
        self._arena = Arena()
        self.packing = Packing(0, 0)
        self.place: NDArray[np.intp] = np.empty((0, 0), np.intp)  # rows of the maxima

    def prepare(self, packing: Packing, layer: Pooling) -> tuple[Array, Array, Array]:
        per_sequence = (packing.B, layer.input_size)
        if self.place.shape != per_sequence and layer.how == "max":
            self.place = np.empty(per_sequence, np.intp)
        self.packing = packing
        shapes = {"x": (packing.N, layer.input_size), "pooled": per_sequence, "y": per_sequence}
        views = self._arena.cut(shapes, layer.dtype)
        return views["x"], views["pooled"], views["y"]
