"""The reference has checks of its own: finite differences and PyTorch."""

import numpy as np
import pytest
import tolerances
from differences import gradient

from cylstm import reference


def problem(rng, T, B, I, H):
    draw = rng.standard_normal
    inputs = {
        "x": draw((T, B, I)), "h_0": draw((B, H)), "c_0": draw((B, H)),
        "w_ih": draw((4 * H, I)), "w_hh": draw((4 * H, H)), "b_ih": draw(4 * H), "b_hh": draw(4 * H),
    }  # fmt: skip
    return inputs, {"dy": draw((T, B, H)), "dh_n": draw((B, H)), "dc_n": draw((B, H))}


@pytest.mark.parametrize("sizes", [(4, 3, 2, 5), (1, 1, 1, 1), (3, 1, 4, 2)])
def test_gradients_agree_with_finite_differences(rng, sizes):
    inputs, upstream = problem(rng, *sizes)

    def loss():
        y, h_n, c_n, _ = reference.lstm_forward(**inputs)
        return np.vdot(upstream["dy"], y) + np.vdot(upstream["dh_n"], h_n) + np.vdot(upstream["dc_n"], c_n)

    *_, saved = reference.lstm_forward(**inputs)
    gradients = reference.lstm_backward(**upstream, saved=saved)
    for name, array in inputs.items():
        np.testing.assert_allclose(
            gradients[f"d{name}"], gradient(loss, array), **tolerances.DIFFERENCES, err_msg=name
        )


def test_agrees_with_torch(rng, torch):
    inputs, upstream = problem(rng, 6, 4, 3, 5)
    layer = torch.nn.LSTM(3, 5, dtype=torch.float64)
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    layer.load_state_dict({theirs: torch.tensor(inputs[ours]) for ours, theirs in names.items()})
    x, h_0, c_0 = (torch.tensor(inputs[name], requires_grad=True) for name in ("x", "h_0", "c_0"))
    y, (h_n, c_n) = layer(x, (h_0[None], c_0[None]))
    loss = sum(
        (a * torch.tensor(b)).sum() for a, b in zip((y, h_n[0], c_n[0]), upstream.values(), strict=True)
    )
    loss.backward()

    y_ours, _, c_n_ours, saved = reference.lstm_forward(**inputs)
    np.testing.assert_allclose(y_ours, y.detach().numpy(), **tolerances.TORCH)
    np.testing.assert_allclose(c_n_ours, c_n[0].detach().numpy(), **tolerances.TORCH)
    gradients = reference.lstm_backward(**upstream, saved=saved)
    theirs = {"dx": x.grad, "dh_0": h_0.grad, "dc_0": c_0.grad}
    theirs |= {f"d{ours}": getattr(layer, name).grad for ours, name in names.items()}
    for name, value in theirs.items():
        np.testing.assert_allclose(gradients[name], value.numpy(), **tolerances.TORCH, err_msg=name)
