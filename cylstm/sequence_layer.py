"""How callers' sequences reach a layer: layouts, initial and final states, results of their own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.layer import Layer

Array = NDArray[Any]


class SequenceLayer(Layer, abstract=True):
    """A layer called as `y, state = layer(x, state)` on sequences in any of three layouts.

    A subclass also gives `_checked_state(name, state, B)`, None or a state in the
    caller's form to internal batched arrays, and `_state_for_caller(state, unbatched)` back.
    """

    def _checked_state(self, name: str, state: Any, B: int | None) -> Any:
        raise NotImplementedError

    def _state_for_caller(self, state: Any, unbatched: bool) -> Any:
        raise NotImplementedError

    def _time_major(self, name: str, value: Any, features: int) -> tuple[Array, bool]:
        """(T,B,features) from any layout, a view; and whether it came without a batch."""
        array = _checks.real_array(name, value)
        if array.ndim not in (2, 3) or array.shape[-1] != features:
            batched = "(B, T, {})" if self.batch_first else "(T, B, {})"
            raise ValueError(
                f"{name}: expected {batched.format(features)} or (T, {features}), got {array.shape}"
            )
        if array.ndim == 2:
            return array[:, None, :], True
        return array.swapaxes(0, 1) if self.batch_first else array, False

    def _as_caller(self, array: Array, unbatched: bool) -> Array:
        """A time-major array in the caller's layout; a view."""
        if unbatched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def _checked_call(self, x: Any, state: Any, lengths: Any) -> tuple[Array, bool, Any, Array | None]:
        """Time-major x, whether it came without a batch, the internal state, and lengths."""
        steps, unbatched = self._time_major("x", x, self.input_size)
        T, B = steps.shape[:2]
        if lengths is not None:
            if unbatched:
                raise ValueError(
                    "lengths: expected a batch of sequences, got one without a batch; cut it instead"
                )
            lengths = _checks.sequence_lengths(lengths, T, B)
        return steps, unbatched, self._checked_state("state", state, None if unbatched else B), lengths

    def __call__(
        self, x: Any, state: Any = None, *, lengths: Any = None, out: Array | None = None
    ) -> tuple[Array, Any]:
        """Run over whole sequences.

        Parameters
        ----------
        x : array of real numbers
            (T, B, I), or (B, T, I) if `batch_first`, or one sequence (T, I). Converted to
            the layer's dtype. T or B may be 0.
        state : optional
            The state before the first step, as an earlier call returned it. Zeros by default.
        lengths : array of int, optional
            (B,), the real steps of each sequence, in any order; what follows them in x is not read, and
            y is 0 there. Final states are those after each sequence's own last step.
        out : ndarray, optional
            Written with y and returned instead of a new array: y's shape, the layer's dtype.

        Returns
        -------
        y : ndarray
            Outputs of every step, in the layout of x.
        state
            The state after the last step.

        Raises
        ------
        ValueError, TypeError
            If a shape, a dtype or the form of the state is not as above.
        """
        steps, unbatched, initial, lengths = self._checked_call(x, state, lengths)
        T, B = steps.shape[:2]
        shape = self._as_caller(np.broadcast_to(0, (T, B, self.output_size)), unbatched).shape
        y = np.empty(shape, self.dtype) if out is None else _checks.output("out", out, shape, self.dtype)

        self._y_shape = shape

        def result(steps_out: Array, final: Any) -> tuple[Array, Any]:
            y[...] = self._as_caller(steps_out, unbatched)
            return y, self._state_for_caller(final, unbatched)

        value: tuple[Array, Any] = self._run(steps, initial, lengths, result)
        return value

    def backward(self, dy: Any, ds_n: Any = None, *, need_dx: bool = True) -> tuple[Array | None, Any]:
        """Go back through the last training forward pass, adding to `gradients`.

        Parameters
        ----------
        dy : array of real numbers
            dL/dy, in the shape of y.
        ds_n : optional
            dL/d(final state), in the form of the state. Zeros by default.
        need_dx : bool
            Whether to compute dL/dx.

        Returns
        -------
        dx : ndarray or None
            dL/dx, in the shape of x.
        ds_0
            dL/d(initial state).

        Raises
        ------
        RuntimeError
            Without a training forward pass before it, after a second call, or after the
            parameters were changed in between.
        ValueError, TypeError
            If a shape or dtype is not as above.
        """
        workspace = self._workspace_to_go_back()
        steps, unbatched = self._time_major("dy", _checks.shaped("dy", dy, self._y_shape), self.output_size)
        B = steps.shape[1]
        final = self._checked_state("ds_n", ds_n, None if unbatched else B)
        dx, initial = self._go_back(workspace, steps, final, need_dx)
        if dx is not None:
            dx = self._as_caller(dx, unbatched).copy()
        return dx, self._state_for_caller(initial, unbatched)
