"""Models that mask steps by the values of x, as `mask_zero` and `Masking` of Keras do."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm.layers.base import Layer
from cylstm.layers.pooling import Pooling
from cylstm.layers.sequence_layer import Call, SequenceLayer
from cylstm.layers.sequential import Sequential
from cylstm.sequences.packed import PackedSequences
from cylstm.sequences.packing import Batch, MaskedPacking, Packing

Array = NDArray[Any]


class Masked(Sequential):
    """A `Sequential` that masks steps in which all features of x equal a value.

    `cylstm.from_keras` converts models with `Embedding(mask_zero=True)` or `Masking` to it. Recurrent layers
    carry their state over masked steps, and pooling ignores them. Sequences may therefore be padded on the
    left, as `keras.utils.pad_sequences` does, on the right, or in between.

    Parameters
    ----------
    *layers : Layer
        As for `Sequential`; nested `Sequential` and attention layers are not supported.
    value : float
        The index, or the value of all features, of masked steps.
    repeats : bool
        The value of y at masked steps. If true, y repeats that of the last valid step; before the first valid
        step, it is the output of the layers after the last recurrent one for zeros, as in Keras. If false, it
        is the latter at all masked steps, as in Keras after `Bidirectional` layers.
    batch_first : bool, optional
        As for `Sequential`.

    Notes
    -----
    With `lengths`, steps after the end of each sequence are masked as well, and y is 0 there. Gradients of
    masked steps are 0. Pooling a fully masked sequence gives zeros.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> layers = cylstm.Embedding(9, 3, seed=0), cylstm.LSTM(3, 4, batch_first=True), cylstm.Pooling("last")
    >>> model = cylstm.Masked(*layers)
    >>> left, right = model(np.array([[0, 0, 5, 7], [5, 7, 0, 0]]))[0]
    >>> bool((left == right).all())
    True
    """

    nests = False

    def __init__(
        self, *layers: Layer, value: float = 0.0, repeats: bool = True, batch_first: bool | None = None
    ) -> None:
        super().__init__(*layers, batch_first=batch_first)
        for position, layer in enumerate(layers):
            supported = layer.is_recurrent or isinstance(layer, Pooling)
            if isinstance(layer, SequenceLayer) and not supported:
                raise TypeError(
                    f"layer {position}: expected a layer that supports masking, got {type(layer).__name__}"
                )
        self.value = _checks.number("value", value, -float("inf"))
        if not isinstance(repeats, bool):
            raise TypeError(f"repeats: expected True or False, got {shown(repeats)}")
        self.repeats = repeats

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        return {**super().config, "value": self.value, "repeats": self.repeats}

    def __repr__(self) -> str:
        """Show the constructor call."""
        inner = super().__repr__().removeprefix("Sequential(").removesuffix(")")
        return f"Masked({inner}, value={self.value}, repeats={self.repeats})"

    @property
    def causal(self) -> bool:
        """False: masks are computed for whole sequences."""
        return False

    def checked_call(self, x: Any, state: Any, lengths: Any) -> Call:
        """A call's arguments, checked, as a batch and an internal state."""
        call = super().checked_call(x, state, lengths)
        values, packing = call.batch.values, call.batch.packing
        if call.packed:  # unpack it, because masking changes the packing
            steps = np.full((packing.T, packing.B, values.shape[-1]), self.value, self._x_dtype())
            packing.scatter(values, steps)
            values = steps
        valid = (values.astype(self._x_dtype()) != self._x_dtype().type(self.value)).any(axis=2)
        inside = np.arange(packing.T)[:, None] < packing.lengths
        if (valid | ~inside).all():
            return call
        return call._replace(batch=Batch(values, MaskedPacking(valid & inside, packing)))

    def _x_dtype(self) -> "np.dtype[Any]":
        return np.dtype(np.intp) if self.reads_indices else self.dtype

    def y_for_caller(self, rows: Array, call: Call, out: Array | None = None) -> Any:
        """The rows of y in the form of the call."""
        packing = call.batch.packing
        if self.pools or not isinstance(packing, MaskedPacking):
            return super().y_for_caller(rows, call, out)
        if call.packed:
            steps = np.empty((packing.T, packing.B, rows.shape[1]), rows.dtype)
            packing.scatter(rows, steps)
            self._fill(steps, packing)
            index = packing.given_packing.index(reverse=False)
            flat = steps.reshape(-1, rows.shape[1])
            return PackedSequences(flat if index is None else flat[index], packing.given_packing)
        y = super().y_for_caller(rows, call, out)
        self._fill(self.to_time_major("y", y, rows.shape[1])[0], packing)
        return y

    def _fill(self, steps: Array, packing: MaskedPacking) -> None:
        """Write y at masked steps; `steps` (T, B, O) is a view."""
        t, b = np.nonzero(packing.skipped)
        before = packing.last_valid[t, b] if self.repeats else np.full(len(t), -1)
        steps[t, b] = np.where(before[:, None] >= 0, steps[before, b], self._output_for_zeros())

    def _output_for_zeros(self) -> Array:
        """Compute the output of the layers after the last recurrent one for zeros, (O,)."""
        recurrent = [k for k, layer in enumerate(self.layers) if layer.is_recurrent]
        first = recurrent[-1] + 1 if recurrent else 0
        size = self.layers[first - 1].output_size if recurrent else self.input_size
        rows, packing = np.zeros((1, size), self.dtype if first else self._x_dtype()), Packing(1, 1)
        for layer in self.layers[first:]:
            rows, _ = layer.forward_batch(layer.new_workspace(False), Batch(rows, packing), None)
        y: Array = rows[0].astype(self.dtype)
        return y

    def backward(
        self, dy: Any, ds_n: Any = None, *, need_dx: bool = True, threads: int | None = None
    ) -> tuple[Any, Any]:
        """Run the backward pass as in `SequenceLayer`; dx is 0 at masked steps."""
        call: Call | None = getattr(self, "_call", None)
        if call is not None and call.packed and isinstance(call.batch.packing, MaskedPacking):
            raise ValueError("backward: expected a batch (T, B, I) with lengths, got packed sequences")
        return super().backward(dy, ds_n, need_dx=need_dx, threads=threads)
