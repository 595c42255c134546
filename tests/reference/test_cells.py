"""The reference has checks of its own: finite differences and PyTorch."""

import numpy as np
import pytest
import tolerances
from differences import gradient

from cylstm import reference
from cylstm.recurrent.cells import CELLS

WEIGHTS = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}


def problem(rng, cell, T, B, I, H, P=None):
    """x, first states, parameters; dL/dy, dL/d(last states). With P, h is projected."""
    draw, spec = rng.standard_normal, CELLS[cell]
    gates, width = len(spec.gates) * H, P or H
    x, state = draw((T, B, I)), [draw((B, width if name == "h" else H)) for name in spec.states]
    p = {"w_ih": draw((gates, I)), "w_hh": draw((gates, width))}
    p |= {"b_ih": draw(gates), "b_hh": draw(gates)} if spec.biases else {}
    p |= {name: draw(k * H) for name, k in spec.cell_parameters} | ({"w_hr": draw((P, H))} if P else {})
    return (x, state, p), (draw((T, B, width)), [draw(s.shape) for s in state])


def around(rng, cell, T, B, I, H):
    """What may stand around a cell: name, P, options of `layer_forward`."""
    yield "nothing", None, {}
    yield "clip", None, {"clip": 0.7}
    yield "mask", None, {"mask_h": rng.integers(0, 2, (B, H)) * 2.0}
    yield "zoneout in evaluation", None, {"zoneout": (0.3, 0.6)}
    yield "zoneout", None, {"zoneout": [rng.integers(0, 2, (T, B, H)) * 1.0 for _ in CELLS[cell].states]}
    if cell.startswith("lstm"):
        yield "projection", 2, {"zoneout": (0.3, 0.6), "mask_h": rng.integers(0, 2, (B, 2)) * 1.5}


def test_every_cell_has_a_reference():
    assert list(reference.CELLS) == list(CELLS)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(3, 2, 1, 4), (1, 1, 1, 1), (2, 1, 3, 2)])
def test_gradients_agree_with_finite_differences(rng, cell, sizes):
    for name, P, options in around(rng, cell, *sizes):
        (x, state, p), (dy, dstate) = problem(rng, cell, *sizes, P)

        def forward(x=x, state=state, p=p, options=options):
            return reference.layer_forward(reference.CELLS[cell], x, state, p, **options)

        def loss(forward=forward, dy=dy, dstate=dstate):
            y, last, _ = forward()
            return np.vdot(dy, y) + sum(np.vdot(a, b) for a, b in zip(dstate, last, strict=True))

        dx, dfirst, gradients = reference.layer_backward(dy, dstate, forward()[-1])
        step, limits = tolerances.differences(cell, options.get("clip"))
        pairs = [(dx, x), *zip(dfirst, state, strict=True), *((gradients[key], p[key]) for key in p)]
        for ours, array in pairs:
            np.testing.assert_allclose(ours, gradient(loss, array, step), **limits, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, P", [("lstm", None), ("lstm", 2), ("rnn_tanh", None), ("rnn_relu", None), ("gru", None)]
)
def test_agrees_with_torch(rng, torch, cell, P):
    (x, state, p), (dy, dstate) = problem(rng, cell, 6, 4, 3, 5, P)
    make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
    options = {"nonlinearity": cell[4:]} if cell.startswith("rnn") else {"proj_size": P} if P else {}
    layer, names = make(3, 5, dtype=torch.float64, **options), dict(WEIGHTS)
    if P:
        names["w_hr"] = "weight_hr_l0"
    layer.load_state_dict({theirs: torch.tensor(p[ours]) for ours, theirs in names.items()})
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, *(s[None] for s in state))]
    y, final = layer(inputs[0], tuple(inputs[1:]) if len(state) > 1 else inputs[1])
    last = final if len(state) > 1 else [final]
    torch.autograd.backward([y, *last], [torch.tensor(dy), *(torch.tensor(a[None]) for a in dstate)])

    ours, ours_last, saved = reference.layer_forward(reference.CELLS[cell], x, state, p)
    for a, b in zip((ours, *ours_last), (y, *(part[0] for part in last)), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), **tolerances.TORCH)
    dx, dfirst, gradients = reference.layer_backward(dy, dstate, saved)
    pairs = [(dx, inputs[0].grad), *((a, b.grad[0]) for a, b in zip(dfirst, inputs[1:], strict=True))]
    pairs += [(gradients[key], getattr(layer, name).grad) for key, name in names.items()]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), **tolerances.TORCH)
