"""What connects layers: concatenation of both directions, reversal, and dropout."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.layers.masks import Masks
from cylstm.recurrent.spec import StackSpec
from cylstm.recurrent.stack_buffers import StackBuffers
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class OutputDropout:
    """Drops outputs of a layer, independently at every step."""

    def __init__(self, masks: Masks, p: float, mask: Array) -> None:
        self.masks, self.p, self.mask = masks, p, mask

    def up(self, x: Array) -> None:
        """Draw a mask and apply it."""
        self.masks.keep(self.mask, self.p)
        x *= self.mask

    def down(self, dx: Array) -> None:
        """Apply the mask of the last `up`."""
        dx *= self.mask


class InputDropout:
    """Drops inputs of a layer, the same at every step of a sequence (Gal and Ghahramani 2016)."""

    def __init__(self, masks: Masks, p: float, mask: Array, rows: Array) -> None:
        from cylstm._engine import _rows

        self.masks, self.p, self.mask, self.rows, self._apply = masks, p, mask, rows, _rows.mask_steps

    def up(self, x: Array) -> None:
        """Draw a mask and apply it."""
        self.masks.keep(self.mask, self.p)
        self._apply(x, self.rows, self.mask)

    def down(self, dx: Array) -> None:
        """Apply the mask of the last `up`."""
        self._apply(dx, self.rows, self.mask)


class Directions:
    """Both directions of a layer; each has its rows in the order in which it reads them.

    Parameters
    ----------
    packing : Packing
    P : int
        Features of h of one direction.
    """

    def __init__(self, packing: Packing, P: int) -> None:
        self.P, self.to_reverse, self.to_forward = P, packing.forward_to_reverse, packing.reverse_to_forward

    def copy_reversed(self, x: list[Array]) -> None:
        """x[1] from x[0]."""
        np.take(x[0], self.to_reverse, axis=0, out=x[1], mode="clip")

    def add(self, dx: list[Array], out: Array) -> None:
        """The sum of the gradients of both."""
        np.take(dx[1], self.to_forward, axis=0, out=out, mode="clip")
        out += dx[0]

    def join(self, h: list[Array], out: Array) -> None:
        """Side by side, (N, 2P)."""
        out[:, : self.P] = h[0]
        out[self.to_reverse, self.P :] = h[1]

    def split(self, dout: Array, dy: list[Array]) -> None:
        """The gradients of both from those of `join`."""
        dy[0][...] = dout[:, self.P :]
        np.take(dy[0], self.to_reverse, axis=0, out=dy[1], mode="clip")
        dy[0][...] = dout[:, : self.P]


class _End:
    """What an entrance, a connection and an exit have in common."""

    def __init__(self, spec: StackSpec, packing: Packing, buffers: StackBuffers) -> None:
        self.packing, self.buffers, self.reverse = packing, buffers, spec.reverse
        D = spec.num_directions
        self.both = Directions(packing, spec.state_size) if D == 2 else None
        self.dropouts: list[OutputDropout | InputDropout] = []
        if buffers.training:
            self.dy = [buffers.arrays[f"dy{d}"] for d in range(D)]


class Entrance(_End):
    """Between a caller's batch and the first layer."""

    def __init__(self, spec: StackSpec, packing: Packing, buffers: StackBuffers, masks: Masks) -> None:
        super().__init__(spec, packing, buffers)
        self.x = [buffers.input(0, d) for d in range(spec.num_directions)]
        if buffers.plan.input_dropout:
            self.dropouts = [InputDropout(masks, spec.input_dropout, buffers.arrays["mask_x0"], packing.rows)]

    def up(self, batch: Batch) -> list[Array]:
        """x of each direction."""
        batch.into(self.x[0], self.reverse)
        for dropout in self.dropouts:
            dropout.up(self.x[0])
        if self.both is not None:
            self.both.copy_reversed(self.x)
        return self.x

    def down(self) -> Array:
        """Rows of dL/dx for the caller, a view, from those that overwrote x."""
        dx = self.x[0]
        if self.both is not None:
            dx = self.buffers.arrays["dx"]
            self.both.add(self.x, dx)
        for dropout in self.dropouts:
            dropout.down(dx)
        if not self.reverse:
            return dx
        out = self.buffers.arrays["dx"]
        np.take(dx, self.packing.reverse_to_forward, axis=0, out=out, mode="clip")
        return out


class Connection(_End):
    """Between layer l and the next one."""

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

    def up(self, h: list[Array]) -> list[Array]:
        """x of the next layer, of each direction, from h of this one."""
        if self.both is not None:
            self.both.join(h, self.x[0])
        elif self.copies:
            self.x[0][...] = h[0]
        for dropout in self.dropouts:
            dropout.up(self.x[0])
        if self.both is not None:
            self.both.copy_reversed(self.x)
        return self.x

    def down(self, dx: list[Array]) -> list[Array]:
        """dL/dy of this layer, of each direction, from dL/dx of the next one."""
        dout = dx[0]
        if self.both is not None:
            dout = self.buffers.arrays["dout"]
            self.both.add(dx, dout)
        for dropout in reversed(self.dropouts):
            dropout.down(dout)
        if self.both is not None:
            self.both.split(dout, self.dy)
        return self.dy


class Exit(_End):
    """Between the last layer and the caller."""

    def up(self, h: list[Array]) -> Array:
        """Rows of y, (N, D.P), a view, in the caller's order."""
        if self.both is not None:
            self.both.join(h, self.buffers.arrays["out"])
            return self.buffers.arrays["out"]
        if not self.reverse:
            return h[0]
        out = self.buffers.arrays["out"]
        np.take(h[0], self.packing.reverse_to_forward, axis=0, out=out, mode="clip")
        return out

    def down(self, dy: Batch) -> list[Array]:
        """dL/dy of the last layer, of each direction."""
        if self.both is None:
            dy.into(self.dy[0], self.reverse)
        else:
            dy.into(self.buffers.arrays["dout"])
            self.both.split(self.buffers.arrays["dout"], self.dy)
        return self.dy
