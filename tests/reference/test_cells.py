"""The reference has checks of its own: finite differences and PyTorch."""

import numpy as np
import pytest
import tolerances
from differences import gradient

from cylstm import reference
from cylstm.cells import CELLS

WEIGHTS = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}


def problem(rng, cell, T, B, I, H):
    draw, states, gates = rng.standard_normal, CELLS[cell].states, len(CELLS[cell].gates) * H
    inputs = {"x": draw((T, B, I)), **{f"{s}_0": draw((B, H)) for s in states}}
    inputs |= {"w_ih": draw((gates, I)), "w_hh": draw((gates, H)), "b_ih": draw(gates), "b_hh": draw(gates)}
    return inputs, [draw((T, B, H)), *(draw((B, H)) for _ in states)]


def test_every_cell_has_a_reference():
    assert list(reference.CELLS) == list(CELLS)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(4, 3, 2, 5), (1, 1, 1, 1), (3, 1, 4, 2)])
def test_gradients_agree_with_finite_differences(rng, cell, sizes):
    forward, backward = reference.CELLS[cell]
    inputs, upstream = problem(rng, cell, *sizes)

    def loss():
        *outputs, _ = forward(*inputs.values())
        return sum(np.vdot(a, b) for a, b in zip(upstream, outputs, strict=True))

    gradients = backward(*upstream, forward(*inputs.values())[-1])
    for name, array in inputs.items():
        step, limits = tolerances.differences(cell)
        np.testing.assert_allclose(gradients[f"d{name}"], gradient(loss, array, step), **limits, err_msg=name)


@pytest.mark.parametrize("cell", ["lstm", "rnn_tanh", "rnn_relu", "gru"])
def test_agrees_with_torch(rng, torch, cell):
    inputs, upstream = problem(rng, cell, 6, 4, 3, 5)
    make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
    options = {"nonlinearity": cell[4:]} if cell.startswith("rnn") else {}
    layer = make(3, 5, dtype=torch.float64, **options)
    layer.load_state_dict({theirs: torch.tensor(inputs[ours]) for ours, theirs in WEIGHTS.items()})
    states = [f"{s}_0" for s in CELLS[cell].states]
    tensors = {name: torch.tensor(inputs[name], requires_grad=True) for name in ("x", *states)}
    state = tuple(tensors[name][None] for name in states)
    y, final = layer(tensors["x"], state if len(state) > 1 else state[0])
    theirs = [y, *(part[0] for part in (final if len(state) > 1 else [final]))]
    torch.autograd.backward(theirs, [torch.tensor(a) for a in upstream])

    forward, backward = reference.CELLS[cell]
    *outputs, saved = forward(*inputs.values())
    for a, b in zip(outputs, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), **tolerances.TORCH)
    gradients = backward(*upstream, saved)
    grads = {name: tensor.grad for name, tensor in tensors.items()}
    grads |= {ours: getattr(layer, name).grad for ours, name in WEIGHTS.items()}
    for name, value in grads.items():
        np.testing.assert_allclose(gradients[f"d{name}"], value.numpy(), **tolerances.TORCH, err_msg=name)
