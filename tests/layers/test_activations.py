"""Activation functions at their bends, at infinities and at NaN."""

import numpy as np
import pytest

import cylstm
from cylstm.layers.activation import FUNCTIONS

# Slopes where a function has two, or would have: PyTorch's choice, by kind, parameters and x.
SLOPES = [
    ("relu", (), 0.0, 0.0),
    ("leaky_relu", (0.25,), 0.0, 0.25),
    ("leaky_relu", (-0.5,), 0.0, -0.5),
    ("elu", (2.0,), 0.0, 2.0),
    ("selu", (), 0.0, 1.6732632423543772 * 1.0507009873554805),
    ("hard_sigmoid", (0.5, 0.5), -1.0, 0.0),
    ("hard_sigmoid", (0.5, 0.5), 1.0, 0.0),
    ("thresholded_relu", (2.0,), 2.0, 0.0),
    ("softsign", (), 0.0, 1.0),
]
POINTS = np.array([0.0, -0.0, 1, -1, 3, -3, 1e-320, -1e-320, 0.5, -0.5, 20, -20, 800, -800, np.inf, -np.inf])


def value_and_slope(kind, parameters, x, dy=1.0):
    layer = cylstm.Activation(kind, *parameters, features=1, dtype="float64").train()
    y = layer(np.reshape(x, (-1, 1)))
    return y[:, 0], layer.backward(np.full_like(y, dy))[:, 0]


@pytest.mark.parametrize("kind, parameters, x, slope", SLOPES)
def test_slope_at_a_bend(kind, parameters, x, slope):
    for zero in (x, -x) if x == 0 else (x,):
        np.testing.assert_allclose(value_and_slope(kind, parameters, zero)[1], [slope], rtol=1e-15)


@pytest.mark.parametrize("kind", [kind for kind in FUNCTIONS if "softmax" not in kind])
def test_nan_passes_through(kind):
    assert np.isnan(value_and_slope(kind, (), [np.nan])[0]).all()


@pytest.mark.parametrize("kind, x", [("relu", -1.0), ("thresholded_relu", 0.5), ("hard_sigmoid", 4.0)])
@pytest.mark.parametrize("dy", [np.inf, np.nan])
def test_flat_parts_have_no_gradient_whatever_that_of_the_output(kind, x, dy):
    assert value_and_slope(kind, (), [x], dy)[1] == 0


@pytest.mark.parametrize("kind", ["sigmoid", "silu"])
def test_the_lower_tail_of_the_sigmoid_keeps_its_digits(kind):
    x = np.array([-20.0, -40.0, -600.0])
    expected = np.exp(x) / (1 + np.exp(x)) * (x if kind == "silu" else 1)
    np.testing.assert_allclose(value_and_slope(kind, (), x)[0], expected, rtol=1e-14)


def test_values_and_slopes_are_those_of_pytorch(torch):
    F = torch.nn.functional
    theirs = {
        ("relu",): F.relu,
        ("tanh",): torch.tanh,
        ("sigmoid",): torch.sigmoid,
        ("leaky_relu", 0.3): lambda x: F.leaky_relu(x, 0.3),
        ("elu", 2.0): lambda x: F.elu(x, 2.0),
        ("selu",): F.selu,
        ("gelu",): F.gelu,
        ("silu",): F.silu,
        ("softplus",): F.softplus,
        ("hard_sigmoid", 1 / 6, 0.5): F.hardsigmoid,
        ("thresholded_relu", 1.0): lambda x: F.threshold(x, 1.0, 0.0),
    }
    for (kind, *parameters), function in theirs.items():
        x = torch.tensor(POINTS, requires_grad=True)
        y = function(x)
        y.backward(torch.ones_like(y))
        value, slope = value_and_slope(kind, parameters, POINTS)
        np.testing.assert_allclose(value, y.detach().numpy(), rtol=1e-7, atol=1e-80, err_msg=kind)
        np.testing.assert_allclose(slope, x.grad.numpy(), rtol=1e-7, atol=1e-80, err_msg=kind)
