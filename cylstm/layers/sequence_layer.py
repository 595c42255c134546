"""The base class of layers over sequences: layouts and argument checks."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._system.threads import call_threads
from cylstm.layers.base import Layer
from cylstm.sequences.packed import PackedSequences
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class Call(NamedTuple):
    """Checked arguments of a call: the sequences, the state in internal form, and the caller's layout."""

    batch: Batch
    state: Any
    unbatched: bool
    packed: bool


class SequenceLayer(Layer, abstract=True):
    """A layer called as `y, state = layer(x, state)`; see `RecurrentLayer` and `Sequential`.

    In addition to what `Layer` requires, a subclass defines `_checked_state(name, state, B)`, which converts
    None or a state in the caller's form to internal form, and the inverse, `state_for_caller`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packing = Packing(0, 0)  # of the last call, reused for calls of the same shape

    def _checked_state(self, name: str, state: Any, B: int | None) -> Any:
        raise NotImplementedError

    def state_for_caller(self, state: Any, unbatched: bool) -> Any:
        """Convert a state from internal form to the caller's."""
        raise NotImplementedError

    def to_time_major(self, name: str, value: Any, features: int) -> tuple[Array, bool]:
        """Return a view (T, B, features) of an array in any layout, and whether it had no batch axis."""
        array = _checks.real_array(name, value)
        if array.ndim not in (2, 3) or array.shape[-1] != features:
            batched = "(B, T, {})" if self.batch_first else "(T, B, {})"
            raise ValueError(
                f"{name}: expected {batched.format(features)} or (T, {features}), got {array.shape}"
            )
        if array.ndim == 2:
            return array[:, None, :], True
        return array.swapaxes(0, 1) if self.batch_first else array, False

    def steps_of(self, x: Any) -> tuple[Array, bool]:
        """Like `to_time_major` for x, which has no feature axis if it contains single indices."""
        if not self.reads_indices:
            return self.to_time_major("x", x, self.input_size)
        array = _checks.index_array("x", x)
        if self.input_size > 1:
            return self.to_time_major("x", array, self.input_size)
        if array.ndim not in (1, 2):
            batched = "(B, T)" if self.batch_first else "(T, B)"
            raise ValueError(f"x: expected indices, {batched} or (T,), got {array.shape}")
        return self.to_time_major("x", array[..., None], 1)

    def _to_caller_layout(self, array: Array, unbatched: bool) -> Array:
        """Return a view of a time-major array in the caller's layout."""
        if unbatched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def checked_call(self, x: Any, state: Any, lengths: Any) -> Call:
        """Check the arguments of a call and convert them to internal form."""
        if not self.input_size:  # to be inferred from x
            if not isinstance(x, PackedSequences):
                x = _checks.real_array("x", x)
            shape = np.shape(x.rows if isinstance(x, PackedSequences) else x)
            self.fit_input(shape[-1] if shape else 0, self.dtype)
        if isinstance(x, PackedSequences):
            if lengths is not None:
                raise ValueError("lengths: expected None with packed sequences, which include them")
            _check_packing("x", x)
            rows = _checks.shaped("x: packed rows", x.rows, (x.packing.N, self.input_size))
            batch, unbatched = Batch(rows, x.packing), False
        else:
            steps, unbatched = self.steps_of(x)
            T, B = steps.shape[:2]
            if lengths is not None:
                if unbatched:
                    raise ValueError(
                        "lengths: expected a batch of sequences, got one without a batch; slice it instead"
                    )
                lengths = _checks.sequence_lengths(lengths, T, B)
            batch = Batch(steps, self._packing_of(T, B, lengths))
        checked = self._checked_state("state", state, None if unbatched else batch.packing.B)
        return Call(batch, checked, unbatched, isinstance(x, PackedSequences))

    def _packing_of(self, T: int, B: int, lengths: Array | None) -> Packing:
        packing = self._packing
        if not packing.is_of(T, B, lengths):
            packing = self._packing = Packing(T, B, lengths)
        return packing

    def _shape_for_caller(
        self, packing: Packing, unbatched: bool, features: int, pooled: bool
    ) -> tuple[int, ...]:
        if pooled:
            return (features,) if unbatched else (packing.B, features)
        if unbatched:
            return packing.T, features
        return (packing.B, packing.T, features) if self.batch_first else (packing.T, packing.B, features)

    def _rows_for_caller(self, rows: Array, call: Call, pooled: bool, out: Array | None = None) -> Any:
        """Copy packed or pooled rows to `out` or a new array, in the caller's layout."""
        packing = call.batch.packing
        if call.packed and not pooled:
            return PackedSequences(rows.copy(), packing)
        if out is None:
            out = np.empty(self._shape_for_caller(packing, call.unbatched, rows.shape[1], pooled), self.dtype)
        if pooled:
            out[...] = rows.reshape(out.shape)
            return out
        steps = out[:, None] if call.unbatched else out.swapaxes(0, 1) if self.batch_first else out
        packing.scatter(rows, steps)
        return out

    def y_for_caller(self, rows: Array, call: Call, out: Array | None = None) -> Any:
        """Copy the rows of y to `out` or a new array in the caller's layout."""
        return self._rows_for_caller(rows, call, self.pools, out)

    def _donated_y(self, workspace: Any, rows: Array, call: Call) -> Any:
        """Return the rows of y in the caller's layout without a copy, if they can be donated; else None."""
        packing = call.batch.packing
        in_order = packing.index(reverse=False) is None and (call.unbatched or not self.batch_first)
        if not (call.packed or in_order) or not self._donate_output(workspace):
            return None
        if call.packed:
            return PackedSequences(rows, packing)
        return rows.reshape(self._shape_for_caller(packing, call.unbatched, rows.shape[1], False))

    def _donate_output(self, workspace: Any) -> bool:
        """Transfer ownership of the rows of y to the caller, if possible; return whether it was."""
        return False

    def check_out(self, out: Any, call: Call) -> None:
        """Raise an error if y cannot be written to `out`."""
        if out is None:
            return
        if call.packed and not self.pools:
            raise ValueError("out: expected None with packed sequences, got an array")
        shape = self._shape_for_caller(call.batch.packing, call.unbatched, self.output_size, self.pools)
        _checks.output("out", out, shape, self.dtype)

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        out: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Any, Any]:
        """Run the layer over whole sequences.

        Parameters
        ----------
        x : array of real numbers, or PackedSequences
            (T, B, I), or (B, T, I) if `batch_first`, or one sequence (T, I); converted to the layer's dtype.
            T or B may be 0. An array of NumPy or another library (see "What data can be" in the
            documentation), or the result of `cylstm.data.pack`. If the first layer is an `Embedding`, ints
            (T, B), (B, T) or (T,), or with fields (T, B, K).
        state : optional
            The initial state, as returned by an earlier call. Zeros by default, or the learned state.
        lengths : array of int, optional
            (B,), the number of valid steps of each sequence, in any order. Padding is not read, and y is 0
            there. Final states are those after the last valid step of each sequence.
        out : ndarray, optional
            Array to write y to, with y's shape and the layer's dtype; it is returned instead of a new array.
        threads : int, optional
            Number of threads of this call, instead of `cylstm.get_num_threads()`.

        Returns
        -------
        y : ndarray or PackedSequences
            Outputs of every step, in the layout of x; (B, O) if a layer pools over time.
        state
            The state after the last step.

        Raises
        ------
        ValueError, TypeError
            If a shape, a dtype or the state is not as above.
        """
        if threads is not None:
            with call_threads(threads):
                return self(x, state, lengths=lengths, out=out)
        call = self.checked_call(x, state, lengths)
        self.check_out(out, call)
        if self.training:
            self._call = call._replace(batch=Batch(np.empty((0, 0)), call.batch.packing), state=None)

        def result(workspace: Any, rows: Array, final: Any) -> tuple[Any, Any]:
            y = self._donated_y(workspace, rows, call) if out is None else None
            if y is None:
                y = self.y_for_caller(rows, call, out)
            return y, self.state_for_caller(final, call.unbatched)

        value: tuple[Any, Any] = self._run(call.batch, call.state, result)
        return value

    def backward(
        self, dy: Any, ds_n: Any = None, *, need_dx: bool = True, threads: int | None = None
    ) -> tuple[Any, Any]:
        """Run the backward pass of the last training forward pass, adding to `gradients`.

        Only the last forward pass is saved, and its backward pass can run once.

        Parameters
        ----------
        dy : array of real numbers, or PackedSequences
            dL/dy, in the layout of y.
        ds_n : optional
            dL/d(final state), in the layout of the state. Zeros by default.
        need_dx : bool
            Whether to compute dL/dx.
        threads : int, optional
            Number of threads of this call, instead of `cylstm.get_num_threads()`.

        Returns
        -------
        dx : ndarray, PackedSequences or None
            dL/dx, in the layout of x; None if x contains indices or `need_dx` is false.
        ds_0
            dL/d(initial state).

        Raises
        ------
        RuntimeError
            If there was no training forward pass, its backward pass has already run, or the parameters have
            changed since.
        ValueError, TypeError
            If a shape or dtype is not as above.
        """
        if threads is not None:
            with call_threads(threads):
                return self.backward(dy, ds_n, need_dx=need_dx)
        workspace = self._workspace_for_backward()
        call = self._call
        gradient = self._checked_gradient(dy, call)
        final = self._checked_state("ds_n", ds_n, None if call.unbatched else call.batch.packing.B)
        dx, initial = self._run_backward(workspace, gradient, final, need_dx)
        dx = None if dx is None else self._rows_for_caller(dx, call, False)
        return dx, self.state_for_caller(initial, call.unbatched)

    def _checked_gradient(self, dy: Any, call: Call) -> Batch:
        """Check dL/dy, which must have the layout of y, and convert it to a batch."""
        packing = call.batch.packing
        if self.pools:
            shape = self._shape_for_caller(packing, call.unbatched, self.output_size, True)
            rows = _checks.shaped("dy", dy, shape).reshape(packing.B, self.output_size)
            return Batch(rows, self._packing_after(packing))
        if call.packed:
            if not isinstance(dy, PackedSequences):
                raise TypeError(f"dy: expected packed sequences, as y is, got {type(dy).__name__}")
            _check_packing("dy", dy)
            if not np.array_equal(dy.lengths, packing.lengths):
                raise ValueError(f"dy: expected the lengths of y, {packing.lengths}, got {dy.lengths}")
            return Batch(_checks.shaped("dy", dy.rows, (packing.N, self.output_size)), packing)
        if isinstance(dy, PackedSequences):
            raise TypeError("dy: expected an array, as y is, got PackedSequences")
        shape = self._shape_for_caller(packing, call.unbatched, self.output_size, False)
        steps, _ = self.to_time_major("dy", _checks.shaped("dy", dy, shape), self.output_size)
        return Batch(steps, packing)


def _check_packing(name: str, packed: PackedSequences) -> None:
    if not isinstance(packed.packing, Packing):
        kind = type(packed.packing).__name__
        raise TypeError(f"{name}: expected what cylstm.data.pack returns, got {kind} as its packing")
