"""Losses: a value, and its gradient with respect to the outputs."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks

Array = NDArray[Any]


class MSE:
    """Mean squared error over all elements that count.

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

    def __init__(self, steps: Literal["all", "last"] = "all", batch_first: bool = False) -> None:
        if steps not in ("all", "last"):
            raise ValueError(f"steps: expected 'all' or 'last', got {steps!r}")
        self.steps, self.batch_first = steps, bool(batch_first)
        self._dy = np.empty(0)

    def __call__(self, y: Any, target: Any) -> tuple[float, Array]:
        """Value and dL/dy.

        Parameters
        ----------
        y : array
            (T, B, V), (B, T, V) if `batch_first`, or (T, V).
        target : array
            y's shape, without the time axis for `steps="last"`.

        Returns
        -------
        value : float
        dy : ndarray
            In y's shape and dtype, overwritten by the next call.
        """
        from cylstm._engine import _optim

        y = _checks.real_array("y", y)
        if y.ndim not in (2, 3) or 0 in y.shape:
            raise ValueError(f"y: expected (T, B, V), (B, T, V) or (T, V), no size being 0, got {y.shape}")
        if self._dy.shape != y.shape or self._dy.dtype != y.dtype:
            self._dy = np.zeros(y.shape, y.dtype if y.dtype.kind == "f" else np.float64)
        counted: tuple[Any, ...] = (slice(None),)
        if self.steps == "last":
            counted = (slice(None), -1) if self.batch_first and y.ndim == 3 else (-1,)
        outputs, residual = y[counted], self._dy[counted]
        np.subtract(
            outputs, _checks.shaped("target", target, outputs.shape), out=residual, casting="same_kind"
        )
        value = _optim.sum_of_squares(self._dy.reshape(-1)) / residual.size  # dy is 0 at other steps
        residual *= 2 / residual.size
        return value, self._dy
