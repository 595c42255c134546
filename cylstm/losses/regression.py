"""Elementwise losses: regression, quantiles, and binary cross-entropy."""

from typing import Any

import numpy as np

from cylstm import _checks
from cylstm._checks import shown
from cylstm.losses.base import Array, Index, Layout, Loss, Steps, weights


class _Elementwise(Loss, abstract=True):
    """Base class of means over all outputs of all counted steps.

    A subclass sets `_kind`, the kind of `_engine._losses.elementwise`; `_parameter`, one number, or (W, Q)
    for V = W Q outputs; and `_per_column`, the number Q of outputs for each column of the target."""

    _kind: str
    _parameter: Any = 0.0
    _per_column = 1

    def _targets(self, target: Any, layout: Layout) -> Array:
        columns, rest = divmod(layout.V, self._per_column)
        if rest:
            raise ValueError(f"y: expected a multiple of {self._per_column} outputs, got {layout.V}")
        target = _checks.shaped("target", target, layout.target_shape(columns))
        return layout.broadcast(self._converted(target, layout.dtype))

    def _compute(self, dy: Array, y: Array, targets: Any, begin: Index, end: Index) -> tuple[float, float]:
        from cylstm._engine import _losses, isa

        counted = float((end - begin).sum()) * y.shape[2]
        shape = (*targets.shape, self._per_column)
        dy, y, target = dy.reshape(shape), y.reshape(shape), np.broadcast_to(targets[..., None], shape)
        contiguous = all(array.flags.c_contiguous for array in (dy, y, target))
        if contiguous and counted == y.size and np.size(self._parameter) == 1:  # fast path: one long row
            shape, begin, end = (1, 1, y.size, 1), np.zeros(1, np.intp), np.ones(1, np.intp)
            dy, y, target = dy.reshape(shape), y.reshape(shape), target.reshape(shape)
        parameter = np.broadcast_to(np.asarray(self._parameter, y.dtype), shape[2:])
        value = _losses.elementwise(
            self._kind, dy, y, target, parameter, begin, end, 1 / counted, isa.selected()
        )
        return value / counted, counted

    def row_shape(self, outputs: int) -> tuple[int, ...]:
        """Targets have one axis, the columns."""
        columns, rest = divmod(outputs, self._per_column)
        if rest:
            raise ValueError(f"outputs: expected a multiple of {self._per_column}, got {outputs}")
        return (columns,)

    def _check(self, target: Any, outputs: int, name: str) -> int:
        array = _checks.real_array(name, target)
        (columns,) = self.row_shape(outputs)
        if array.shape[-1:] != (columns,):
            raise ValueError(f"{name}: expected (..., {columns}), got {array.shape}")
        self._check_values(array, name)
        return array.size

    def _check_values(self, array: Array, name: str) -> None:
        _check_no_invalid(array, ~np.isfinite(array), "finite numbers", name)


class MSE(_Elementwise):
    """Mean squared error, (y - target)^2.

    The target has y's shape, without the time axis for `steps="last"`.

    Parameters
    ----------
    steps : {"all", "last"}
        Average over all time steps, or use only the last one; then the target has no time axis.
    batch_first : bool
        Whether the time axis of a batch is axis 1 instead of axis 0. A single sequence (T, V) always has it
        in axis 0.

    Examples
    --------
    >>> import numpy as np
    >>> y, target = np.zeros((4, 1, 2)), np.ones((1, 2))
    >>> value, dy = MSE(steps="last")(y, target)
    >>> value, dy[:, 0, 0]
    (1.0, array([ 0.,  0.,  0., -1.]))
    """

    _kind = "square"


class MAE(_Elementwise):
    """Mean absolute error, the mean of `abs(y - target)`; the gradient is 0 where they are equal.

    The target has y's shape, without the time axis for `steps="last"`.

    Parameters
    ----------
    steps, batch_first
        As in `MSE`.

    Examples
    --------
    >>> import numpy as np
    >>> MAE()(np.array([[1.0, 2.0]]), np.array([[3.0, 2.0]]))
    (1.0, array([[-0.5,  0. ]]))
    """

    _kind = "absolute"


class Huber(_Elementwise):
    """Huber loss: quadratic for small errors, linear for large ones, robust to outliers (Huber 1964).

    With d = `abs(y - target)`, d^2 / 2 up to delta, and delta (d - delta / 2) above it. The target has y's
    shape, without the time axis for `steps="last"`.

    Parameters
    ----------
    delta : float
        Error at which the loss becomes linear; above 0.
    steps, batch_first
        As in `MSE`.

    Examples
    --------
    >>> import numpy as np
    >>> Huber()(np.array([[0.5, 4.0]]), np.zeros((1, 2)))
    (1.8125, array([[0.25, 0.5 ]]))
    """

    _kind = "huber"

    def __init__(self, delta: float = 1.0, steps: Steps = "all", batch_first: bool = False) -> None:
        super().__init__(steps, batch_first)
        self.delta = self._parameter = _checks.above("delta", delta, 0)


class Quantile(_Elementwise):
    """Pinball loss for one or more quantiles of each target (Koenker and Bassett 1978).

    For quantile q and error d, q d if the output is below the target, and (1 - q) d if it is above. With Q
    quantiles, a model has Q outputs for each column of the target: output v Q + k is quantile k of column v.
    The target has y's layout with V / Q columns, without the time axis for `steps="last"`.

    Parameters
    ----------
    quantiles : sequence of float
        Each between 0 and 1, exclusive.
    steps, batch_first
        As in `MSE`.

    Examples
    --------
    >>> import numpy as np
    >>> value, dy = Quantile([0.1, 0.5])(np.array([[0.0, 0.0]]), np.array([[4.0]]))
    >>> round(value, 3), dy  # outputs that are too low cost little for a low quantile
    (1.2, array([[-0.05, -0.25]]))
    """

    _kind = "pinball"

    def __init__(self, quantiles: Any, steps: Steps = "all", batch_first: bool = False) -> None:
        super().__init__(steps, batch_first)
        values = _checks.real_array("quantiles", quantiles)
        if values.ndim != 1 or values.size == 0 or not ((values > 0) & (values < 1)).all():
            raise ValueError(
                f"quantiles: expected one or more numbers between 0 and 1, got {shown(quantiles)}"
            )
        self.quantiles = tuple(float(q) for q in values)
        self._parameter, self._per_column = np.array(self.quantiles), len(self.quantiles)


class BinaryCrossEntropy(_Elementwise):
    """Binary cross-entropy of each output, from logits: the loss includes the sigmoid.

    -p z log sigmoid(y) - (1 - z) log sigmoid(-y) for a target z from 0 to 1 and p = `pos_weight`. The target
    has y's shape, without the time axis for `steps="last"`. Equivalent to `torch.nn.BCEWithLogitsLoss`.

    Parameters
    ----------
    pos_weight : float or sequence of float, optional
        Weight of positive targets, for all outputs or for each. By default 1.
    steps, batch_first
        As in `MSE`.

    Examples
    --------
    >>> import numpy as np
    >>> value, dy = BinaryCrossEntropy()(np.zeros((1, 2)), np.array([[1.0, 0.0]]))
    >>> round(value, 4), dy
    (0.6931, array([[-0.25,  0.25]]))
    """

    _kind = "logistic"

    def __init__(self, pos_weight: Any = None, steps: Steps = "all", batch_first: bool = False) -> None:
        super().__init__(steps, batch_first)
        self.pos_weight: Any = None if pos_weight is None else weights("pos_weight", pos_weight, scalar=True)
        self._parameter = np.reshape(1.0 if self.pos_weight is None else self.pos_weight, (-1, 1))

    def _targets(self, target: Any, layout: Layout) -> Array:
        self._check_weight(layout.V)
        return super()._targets(target, layout)

    def _check(self, target: Any, outputs: int, name: str) -> int:
        self._check_weight(outputs)
        return super()._check(target, outputs, name)

    def _check_values(self, array: Array, name: str) -> None:
        _check_no_invalid(array, ~((array >= 0) & (array <= 1)), "numbers from 0 to 1", name)

    def _check_weight(self, outputs: int) -> None:
        if len(self._parameter) not in (1, outputs):
            raise ValueError(f"pos_weight: expected one number, or {outputs}, got {len(self._parameter)}")


def _check_no_invalid(array: Array, invalid: Array, expected: str, name: str) -> None:
    """Raise a ValueError that names the first invalid value of an array."""
    if invalid.any():
        place = tuple(int(i) for i in np.argwhere(invalid)[0])
        raise ValueError(f"{name}: expected {expected}, got {array[place]} at {place}")
