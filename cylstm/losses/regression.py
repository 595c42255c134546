"""Losses of each output by itself: numbers, quantiles, and yes or no."""

from typing import Any

import numpy as np

from cylstm import _checks
from cylstm._checks import shown
from cylstm.losses.base import Array, Index, Layout, Loss, Steps, weights


class _Elementwise(Loss, abstract=True):
    """A mean over all outputs of all steps that count.

    A subclass names the `kind` of `_engine._losses.elementwise`, its parameter, which is one number, or (W,
    Q) for V = W Q outputs, and Q, the outputs of each column of the target."""

    _kind: str
    _parameter: Any = 0.0
    _per_column = 1

    def _targets(self, target: Any, layout: Layout) -> Array:
        columns, rest = divmod(layout.V, self._per_column)
        if rest:
            raise ValueError(f"y: expected a multiple of {self._per_column} outputs, got {layout.V}")
        target = _checks.shaped("target", target, layout.target_shape(columns))
        return layout.spread(self._converted(target, layout.dtype))

    def _compute(self, dy: Array, y: Array, targets: Any, begin: Index, end: Index) -> tuple[float, float]:
        from cylstm._engine import _losses, isa

        counted = float((end - begin).sum()) * y.shape[2]
        shape = (*targets.shape, self._per_column)
        dy, y, target = dy.reshape(shape), y.reshape(shape), np.broadcast_to(targets[..., None], shape)
        contiguous = all(array.flags.c_contiguous for array in (dy, y, target))
        if contiguous and counted == y.size and np.size(self._parameter) == 1:  # one long row, the fastest
            shape, begin, end = (1, 1, y.size, 1), np.zeros(1, np.intp), np.ones(1, np.intp)
            dy, y, target = dy.reshape(shape), y.reshape(shape), target.reshape(shape)
        parameter = np.broadcast_to(np.asarray(self._parameter, y.dtype), shape[2:])
        value = _losses.elementwise(
            self._kind, dy, y, target, parameter, begin, end, 1 / counted, isa.selected()
        )
        return value / counted, counted

    def row_shape(self, outputs: int) -> tuple[int, ...]:
        """The columns of the target of one step."""
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
        _refuse(array, ~np.isfinite(array), "finite numbers", name)


class MSE(_Elementwise):
    """Mean squared error, (y - target)^2.

    The target has y's shape, without the time axis for `steps="last"`.

    Parameters
    ----------
    steps : {"all", "last"}
        Whether every time step counts, or only the last; then the target is that of one step.
    batch_first : bool
        Where to find the time axis of a batch: axis 1 if true, else axis 0. One sequence
        without a batch, (T, V), has it in axis 0.

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
    """Mean absolute error, the mean of `abs(y - target)`; its gradient is 0 where they are equal.

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
    """Squared error near the target, absolute error far from it, so that outliers pull less (Huber 1964).

    d^2 / 2 for d = `abs(y - target)` up to delta, then delta (d - delta / 2). The target has y's shape,
    without the time axis for `steps="last"`.

    Parameters
    ----------
    delta : float
        Where the slope stops growing; above 0.
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
    """Several quantiles of each target at once, by the pinball loss (Koenker and Bassett 1978).

    For the quantile q, q d where the output is below the target by d, and (1 - q) d where it is above. With
    Q quantiles the model has V = Q columns of outputs for each column of the target: output v Q + k is the
    quantile k of column v. The target is laid out as y is, with V / Q columns, without the time axis
    for `steps="last"`.

    Parameters
    ----------
    quantiles : sequence of float
        Each between 0 and 1, both excluded.
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
    """Cross-entropy of yes or no for each output, from logits: y is what a sigmoid would take.

    -p z log sigmoid(y) - (1 - z) log sigmoid(-y) for a target z from 0 to 1, p being `pos_weight`. The
    target has y's shape, without the time axis for `steps="last"`. `torch.nn.BCEWithLogitsLoss` is the same.

    Parameters
    ----------
    pos_weight : float or sequence of float, optional
        What a yes weighs beside a no, for all outputs or for each. None: 1.
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
        self._fits(layout.V)
        return super()._targets(target, layout)

    def _check(self, target: Any, outputs: int, name: str) -> int:
        self._fits(outputs)
        return super()._check(target, outputs, name)

    def _check_values(self, array: Array, name: str) -> None:
        _refuse(array, ~((array >= 0) & (array <= 1)), "numbers from 0 to 1", name)

    def _fits(self, outputs: int) -> None:
        if len(self._parameter) not in (1, outputs):
            raise ValueError(f"pos_weight: expected one number, or {outputs}, got {len(self._parameter)}")


def _refuse(array: Array, bad: Array, expected: str, name: str) -> None:
    """Name the first bad value of an array."""
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}: expected {expected}, got {array[place]} at {place}")
