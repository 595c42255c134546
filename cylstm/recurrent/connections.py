"""Connections between layers: concatenation of directions, reversal, and dropout."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.layers.masks import Masks
from cylstm.recurrent.spec import StackSpec
from cylstm.recurrent.stack_buffers import StackBuffers
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class OutputDropout:
    """Dropout of a layer's outputs, independent at every step."""

    def __init__(self, masks: Masks, p: float, mask: Array) -> None:
        self.masks, self.p, self.mask = masks, p, mask

    def forward(self, x: Array) -> None:
        """Draw a mask and apply it."""
        self.masks.draw_dropout(self.mask, self.p)
        x *= self.mask

    def backward(self, dx: Array) -> None:
        """Apply the mask of the last forward pass."""
        dx *= self.mask


class InputDropout:
    """Dropout of a layer's inputs, with one mask for all steps of a sequence (Gal and Ghahramani 2016)."""

    def __init__(self, masks: Masks, p: float, mask: Array, rows: Array) -> None:
        from cylstm._engine import _rows

        self.masks, self.p, self.mask, self.rows, self._apply = masks, p, mask, rows, _rows.mask_steps

    def forward(self, x: Array) -> None:
        """Draw a mask and apply it."""
        self.masks.draw_dropout(self.mask, self.p)
        self._apply(x, self.rows, self.mask)

    def backward(self, dx: Array) -> None:
        """Apply the mask of the last forward pass."""
        self._apply(dx, self.rows, self.mask)


class Bidirectional:
    """The two directions of a layer, each with its rows in the order in which it reads them.

    Parameters
    ----------
    packing : Packing
    P : int
        Number of features of h in one direction.
    """

    def __init__(self, packing: Packing, P: int) -> None:
        self.P, self.to_reverse, self.to_forward = P, packing.forward_to_reverse, packing.reverse_to_forward

    def copy_reversed(self, x: list[Array]) -> None:
        """Copy x[0] to x[1] in reverse order."""
        np.take(x[0], self.to_reverse, axis=0, out=x[1], mode="clip")

    def add(self, dx: list[Array], out: Array) -> None:
        """Add the gradients of both directions."""
        np.take(dx[1], self.to_forward, axis=0, out=out, mode="clip")
        out += dx[0]

    def join(self, h: list[Array], out: Array) -> None:
        """Concatenate the features of both directions, (N, 2P)."""
        out[:, : self.P] = h[0]
        out[self.to_reverse, self.P :] = h[1]

    def split(self, dout: Array, dy: list[Array]) -> None:
        """Split the gradient of `join` into those of both directions."""
        dy[0][...] = dout[:, self.P :]
        np.take(dy[0], self.to_reverse, axis=0, out=dy[1], mode="clip")
        dy[0][...] = dout[:, : self.P]


class _Connection:
    """Base class of connections."""

    def __init__(self, spec: StackSpec, packing: Packing, buffers: StackBuffers) -> None:
        self.packing, self.buffers, self.reverse = packing, buffers, spec.reverse
        D = spec.num_directions
        self.bidirectional = Bidirectional(packing, spec.state_size) if D == 2 else None
        self.dropouts: list[OutputDropout | InputDropout] = []
        if buffers.training:
            self.dy = [buffers.arrays[f"dy{d}"] for d in range(D)]


class InputConnection(_Connection):
    """The connection from the caller's batch to the first layer."""

    def __init__(self, spec: StackSpec, packing: Packing, buffers: StackBuffers, masks: Masks) -> None:
        super().__init__(spec, packing, buffers)
        self.x = [buffers.input(0, d) for d in range(spec.num_directions)]
        if buffers.plan.input_dropout:
            self.dropouts = [InputDropout(masks, spec.input_dropout, buffers.arrays["mask_x0"], packing.rows)]

    def forward(self, batch: Batch) -> list[Array]:
        """Return x of each direction."""
        batch.into(self.x[0], self.reverse)
        for dropout in self.dropouts:
            dropout.forward(self.x[0])
        if self.bidirectional is not None:
            self.bidirectional.copy_reversed(self.x)
        return self.x

    def backward(self) -> Array:
        """Return the rows of dL/dx, a view, in the caller's order; the layer's dL/dx has overwritten x."""
        dx = self.x[0]
        if self.bidirectional is not None:
            dx = self.buffers.arrays["dx"]
            self.bidirectional.add(self.x, dx)
        for dropout in self.dropouts:
            dropout.backward(dx)
        if not self.reverse:
            return dx
        out = self.buffers.arrays["dx"]
        np.take(dx, self.packing.reverse_to_forward, axis=0, out=out, mode="clip")
        return out


class HiddenConnection(_Connection):
    """The connection from layer l to the next one."""

    def __init__(
        self, spec: StackSpec, packing: Packing, buffers: StackBuffers, masks: Masks, l: int
    ) -> None:
        super().__init__(spec, packing, buffers)
        self.copies = buffers.plan.has_input(l + 1)
        self.x = [buffers.input(l + 1, d) for d in range(spec.num_directions)]
        if buffers.plan.dropout:
            self.dropouts += [OutputDropout(masks, spec.dropout, buffers.arrays[f"mask{l}"])]
        if buffers.plan.input_dropout:
            mask = buffers.arrays[f"mask_x{l + 1}"]
            self.dropouts += [InputDropout(masks, spec.input_dropout, mask, packing.rows)]

    def forward(self, h: list[Array]) -> list[Array]:
        """Return x of each direction of the next layer, from h of this one."""
        if self.bidirectional is not None:
            self.bidirectional.join(h, self.x[0])
        elif self.copies:
            self.x[0][...] = h[0]
        for dropout in self.dropouts:
            dropout.forward(self.x[0])
        if self.bidirectional is not None:
            self.bidirectional.copy_reversed(self.x)
        return self.x

    def backward(self, dx: list[Array]) -> list[Array]:
        """Return dL/dy of each direction of this layer, from dL/dx of the next one."""
        dout = dx[0]
        if self.bidirectional is not None:
            dout = self.buffers.arrays["dout"]
            self.bidirectional.add(dx, dout)
        for dropout in reversed(self.dropouts):
            dropout.backward(dout)
        if self.bidirectional is not None:
            self.bidirectional.split(dout, self.dy)
        return self.dy


class OutputConnection(_Connection):
    """The connection from the last layer to the caller."""

    def forward(self, h: list[Array]) -> Array:
        """Return the rows of y, (N, D.P), a view, in the caller's order."""
        if self.bidirectional is not None:
            self.bidirectional.join(h, self.buffers.arrays["out"])
            return self.buffers.arrays["out"]
        if not self.reverse:
            return h[0]
        out = self.buffers.arrays["out"]
        np.take(h[0], self.packing.reverse_to_forward, axis=0, out=out, mode="clip")
        return out

    def backward(self, dy: Batch) -> list[Array]:
        """Return dL/dy of each direction of the last layer."""
        if self.bidirectional is None:
            dy.into(self.dy[0], self.reverse)
        else:
            dy.into(self.buffers.arrays["dout"])
            self.bidirectional.split(self.buffers.arrays["dout"], self.dy)
        return self.dy
