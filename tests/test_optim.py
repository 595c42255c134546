import numpy as np
import pytest
import tolerances

import cylstm
from cylstm import reference


def with_gradients(rng, dtype="float64"):
    model = cylstm.Sequential(
        cylstm.LSTM(3, 5, dtype=dtype, seed=0), cylstm.Linear(5, 2, dtype=dtype, seed=1)
    )
    model._store.grad[...] = rng.standard_normal(model._store.size)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_agrees_with_reference(rng, dtype, weight_decay):
    model = with_gradients(rng, dtype)
    adam = cylstm.optim.Adam(0.01, (0.8, 0.95), 1e-6, weight_decay)
    p, m, v = model._store.data.astype(float), 0.0, 0.0
    for t in range(1, 6):
        model._store.grad[...] = rng.standard_normal(model._store.size)
        p, m, v = reference.adam(
            p, model._store.grad.astype(float), m, v, 0.01, 0.8, 0.95, 1e-6, weight_decay, t
        )
        adam.step(model)
    limits = tolerances.FLOAT64 if dtype == "float64" else tolerances.float32(2, 5, 1.0)
    np.testing.assert_allclose(model._store.data, p, **limits)


def test_sgd_agrees_with_reference(rng):
    model = with_gradients(rng)
    expected = reference.sgd(model._store.data.copy(), model._store.grad, 0.1)
    cylstm.optim.SGD(0.1).step(model)
    np.testing.assert_allclose(model._store.data, expected, **tolerances.FLOAT64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_clipping_agrees_with_reference(rng, dtype, max_norm):
    model = with_gradients(rng, dtype)
    expected, norm = reference.clip_by_norm(model._store.grad.astype(float), max_norm)
    limits = tolerances.FLOAT64 if dtype == "float64" else {"rtol": 1e-6}
    np.testing.assert_allclose(cylstm.optim.clip_grad_norm(model, max_norm), norm, **limits)
    np.testing.assert_allclose(model._store.grad, expected, **limits)


def test_clipping_leaves_a_norm_that_is_not_finite():
    layer = cylstm.Linear(2, 1, bias=False)
    layer.gradients["weight"][...] = [np.inf, 1]
    assert cylstm.optim.clip_grad_norm(layer, 1.0) == np.inf
    np.testing.assert_array_equal(layer.gradients["weight"], [[np.inf, 1]])


def test_ten_steps_of_adam_follow_torch(rng, torch):
    """The whole training step: forward, loss, backward, Adam with an L2 penalty."""
    lstm, linear = torch.nn.LSTM(3, 6, 2, dtype=torch.float64), torch.nn.Linear(6, 2, dtype=torch.float64)
    ours = cylstm.Sequential(
        cylstm.LSTM(3, 6, 2, dtype="float64"), cylstm.Linear(6, 2, dtype="float64")
    ).train()
    theirs = torch.nn.Sequential(lstm, linear)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    adam, loss = cylstm.optim.Adam(0.01, weight_decay=0.02), cylstm.losses.MSE()
    adam_torch = torch.optim.Adam(theirs.parameters(), 0.01, weight_decay=0.02)
    start = ours._store.data.copy()
    for _ in range(10):
        x, target = rng.standard_normal((7, 4, 3)), rng.standard_normal((7, 4, 2))
        value_torch = torch.nn.functional.mse_loss(linear(lstm(torch.tensor(x))[0]), torch.tensor(target))
        adam_torch.zero_grad()
        value_torch.backward()
        adam_torch.step()
        y, _ = ours(x)
        value, dy = loss(y, target)
        ours.zero_grad()
        ours.backward(dy)
        adam.step(ours)
        np.testing.assert_allclose(value, value_torch.item(), **tolerances.TRAJECTORY)
    assert np.abs(ours._store.data - start).max() > 0.05
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.parameters[name], value.numpy(), **tolerances.TRAJECTORY, err_msg=name
        )


def test_an_optimiser_is_for_one_model():
    adam = cylstm.optim.Adam()
    adam.step(cylstm.Linear(2, 1))
    with pytest.raises(ValueError, match="expected the model of the first step"):
        adam.step(cylstm.Linear(2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cylstm.optim.Adam(lr=-1), r"lr: expected a number in \[0, inf\), got -1"),
        (lambda: cylstm.optim.Adam(lr=float("nan")), "lr: expected a number"),
        (lambda: cylstm.optim.Adam(betas=(0.9, 1.0)), r"betas\[1\]: expected a number in \[0, 1\), got 1"),
        (lambda: cylstm.optim.SGD("fast"), "lr: expected a number, got 'fast'"),
        (lambda: cylstm.optim.clip_grad_norm(cylstm.Linear(1, 1), -1), "max_norm: expected"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_step_that_failed_is_none(rng):
    model, twin = with_gradients(rng), with_gradients(rng)
    twin._store.grad[...] = model._store.grad
    adam, other = cylstm.optim.Adam(), cylstm.optim.Adam()
    adam.lr = "fast"
    with pytest.raises(TypeError):
        adam.step(model)
    adam.lr = other.lr
    adam.step(model)
    other.step(twin)
    np.testing.assert_array_equal(model._store.data, twin._store.data)
