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

    def __call__(self, y: Any, target: Any, lengths: Any = None) -> tuple[float, Array]:
        """Value and dL/dy.

        Parameters
        ----------
        y : array
            (T, B, V), (B, T, V) if `batch_first`, or (T, V).
        target : array
            y's shape, without the time axis for `steps="last"`.
        lengths : array of int, optional
            (B,), the real steps of each sequence: what follows them does not count, and the last
            step is each sequence's own. A sequence of no steps counts for nothing.

        Returns
        -------
        value : float
            0 if nothing counts.
        dy : ndarray
            In y's shape and dtype, overwritten by the next call.
        """
        from cylstm._engine import _optim

        y = _checks.real_array("y", y)
        if y.ndim not in (2, 3) or 0 in y.shape:
            raise ValueError(f"y: expected (T, B, V), (B, T, V) or (T, V), no size being 0, got {y.shape}")
        dtype = y.dtype if y.dtype in (np.float32, np.float64) else np.dtype(np.float64)
        y = y.astype(dtype, copy=False)
        ours = any(np.may_share_memory(self._dy, array) for array in (y, np.asarray(target)))
        if ours or self._dy.shape != y.shape or self._dy.dtype != dtype:
            self._dy = np.empty(y.shape, dtype)
        self._dy[...] = 0
        swap = self.batch_first and y.ndim == 3
        outputs, residuals = _time_major(y, swap), _time_major(self._dy, swap)
        if self.steps == "last":
            target = _checks.shaped("target", target, outputs.shape[1:])
        else:
            target = _time_major(_checks.shaped("target", target, y.shape), swap)
        counted = self._counted(outputs.shape, lengths)
        if counted is None and self.steps == "all":
            np.subtract(outputs, target, out=residuals, casting="same_kind")
        elif counted is None:
            np.subtract(outputs[-1], target, out=residuals[-1], casting="same_kind")
        else:
            t, b = counted
            residuals[t, b] = outputs[t, b] - (target[b] if self.steps == "last" else target[t, b])
        size = residuals[0, 0].size * len(counted[0]) if counted else target.size
        value = _optim.sum_of_squares(self._dy.reshape(-1)) / max(size, 1)  # dy is 0 elsewhere
        self._dy *= 2 / max(size, 1)
        return value, self._dy

    def _counted(self, shape: tuple[int, ...], lengths: Any) -> tuple[Array, Array] | None:
        """Time and row of every step that counts, or None: there are no lengths."""
        if lengths is None:
            return None
        if len(shape) != 3:
            raise ValueError(f"lengths: expected y to be a batch of sequences, got {shape}")
        lengths = _checks.sequence_lengths(lengths, shape[0], shape[1])
        if self.steps == "last":
            (rows,) = np.nonzero(lengths)
            return lengths[rows] - 1, rows
        t, b = np.nonzero(np.arange(shape[0])[:, None] < lengths)
        return t, b


def _time_major(array: Array, swap: bool) -> Array:
    return array.swapaxes(0, 1) if swap else array
