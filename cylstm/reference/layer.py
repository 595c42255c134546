"""One layer in one direction: a cell unrolled over time, with the options that all cells share.

T time steps, B batch, I input size, H units, P width of h.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layer_forward(
    cell: tuple[Any, Any], x: Array, state: Sequence[Array], p: dict[str, Array], clip: float = np.inf,
    mask_h: Any = 1.0, zoneout: Sequence[Any] = (0.0, 0.0),
) -> tuple[Array, tuple[Array, ...], dict[str, Any]]:  # fmt: skip
    """Compute hidden states (T, B, P), the last states, and values saved for the backward pass.

    Parameters
    ----------
    cell : pair of functions
        A row of `CELLS`.
    x : (T, B, I)
    state : sequence of arrays
        h_0 (B, P), and c_0 (B, H) if the cell has it.
    p : dict
        The cell's parameters; w_hr (P, H) if h is projected (Sak et al. 2014).
    clip : float
        Bound on the pre-activations of the gates.
    mask_h : (B, P) or 1
        Dropout mask of h in the recurrent product (Gal and Ghahramani 2016).
    zoneout : sequence
        For each state (T, B, ...) or a number: the fraction of the previous state (Krueger et al. 2017).
    """
    states, y, steps = tuple(state), np.empty((len(x), *state[0].shape)), []
    fractions = [
        np.broadcast_to(fraction, (len(x), *s.shape)) for fraction, s in zip(zoneout, states, strict=False)
    ]
    for t, x_t in enumerate(x):
        new, saved = cell[0](x_t, states[0] * mask_h, states, p, clip)
        m = new[0]
        if "w_hr" in p:
            new = (m @ p["w_hr"].T, *new[1:])
        states = tuple((1 - s[t]) * a + s[t] * b for s, a, b in zip(fractions, new, states, strict=True))
        y[t] = states[0]
        steps.append((saved, m))
    return y, states, {"x": x, "p": p, "steps": steps, "mask_h": mask_h, "fractions": fractions, "cell": cell}


def layer_backward(
    dy: Array, dstate: Sequence[Array], saved: Mapping[str, Any]
) -> tuple[Array, tuple[Array, ...], dict[str, Array]]:
    """Compute dx, gradients of the initial states, and parameter gradients by name."""
    p, fractions = saved["p"], saved["fractions"]
    gradients = {name: np.zeros_like(value) for name, value in p.items()}
    dx, dstates = np.empty_like(saved["x"]), tuple(dstate)
    for t in reversed(range(len(dx))):
        step, m = saved["steps"][t]
        dstates = (dstates[0] + dy[t], *dstates[1:])
        passed = [s[t] * d for s, d in zip(fractions, dstates, strict=True)]
        new = tuple((1 - s[t]) * d for s, d in zip(fractions, dstates, strict=True))
        if "w_hr" in p:
            gradients["w_hr"] += new[0].T @ m
            new = (new[0] @ p["w_hr"], *new[1:])
        dx[t], dh, before = saved["cell"][1](new, step, p, gradients)
        if "w_hr" in p:
            before = (np.zeros_like(dh), *before[1:])
        dstates = tuple(a + b for a, b in zip(passed, before, strict=True))
        dstates = (dstates[0] + dh * saved["mask_h"], *dstates[1:])
    return dx, dstates, gradients
