"""Diagnostics of recurrent layers: the flow of gradients through time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.recurrent.base import RecurrentLayer
from cylstm.sequences.packing import Batch

Array = NDArray[Any]


def gradient_flow(layer: RecurrentLayer, x: Any, dy: Any = None, state: Any = None) -> Array:
    """Norm of dL/dh_t over time; the layer cannot learn from steps where it is near 0.

    Hochreiter (1991) and Bengio et al. (1994) describe how it vanishes or explodes;
    `plotting.plot_gradient_flow` draws it. The layer's gradients are not changed.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    x : array of real numbers
        As in a call of the layer, of at least one step.
    dy : array, optional
        dL/dy. By default that of the sum of each sequence's outputs at its last step.
    state : optional
        The state before the first step.

    Returns
    -------
    ndarray
        (L·D, T): for every layer and direction, the norm over batch and units.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> x = np.random.default_rng(0).standard_normal((50, 4, 3))
    >>> norms = cylstm.diagnostics.gradient_flow(cylstm.RNN(3, 8, seed=0), x)
    >>> norms.shape, bool(norms[0, 0] < 1e-6 * norms[0, -1])
    ((1, 50), True)
    """
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN layer, got {type(layer).__name__}")
    call = layer.checked_call(x, state, None)
    packing, unbatched = call.batch.packing, call.unbatched
    T, B = packing.T, packing.B
    if T == 0:
        raise ValueError(f"x: expected at least one step, got {np.shape(x)}")
    if dy is None:
        upstream = np.zeros((T, B, layer.output_size), layer.dtype)
        (nonempty,) = np.nonzero(packing.lengths)
        upstream[packing.lengths[nonempty] - 1, nonempty] = 1
    else:
        upstream, unbatched_dy = layer.to_time_major("dy", dy, layer.output_size)
        if upstream.shape[:2] != (T, B) or unbatched_dy != unbatched:
            raise ValueError(f"dy: expected T, B = {T}, {B} as in x, got {upstream.shape[:2]}")
    workspace = layer.inspect(call.batch, call.state)
    workspace.backward(Batch(upstream, packing), None, need_dx=False)
    flows = [workspace.scatter_steps("dh_steps", l, d) for l, d in workspace.directions]
    norms: Array = np.sqrt(np.sum(np.square(flows, dtype=np.float64), axis=(2, 3)))
    return norms
