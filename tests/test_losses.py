import numpy as np
import pytest
import tolerances
from differences import gradient

import cylstm
from cylstm import reference


@pytest.mark.parametrize("shape", [(5, 2, 3), (4, 1)])
def test_mse_of_all_steps_agrees_with_reference_and_differences(rng, shape):
    y, target = rng.standard_normal((2, *shape))
    loss = cylstm.losses.MSE()
    value, dy = loss(y, target)
    expected, dy_expected = reference.mse(y, target)
    np.testing.assert_allclose(value, expected, **tolerances.FLOAT64)
    np.testing.assert_allclose(dy, dy_expected, **tolerances.FLOAT64)
    np.testing.assert_allclose(dy.copy(), gradient(lambda: loss(y, target)[0], y), **tolerances.DIFFERENCES)


@pytest.mark.parametrize("batch_first", [False, True])
def test_mse_of_the_last_step_has_no_gradient_elsewhere(rng, batch_first):
    y, target = rng.standard_normal((5, 2, 3)), rng.standard_normal((2, 3))
    expected, last = reference.mse(y[-1], target)
    dy_expected = np.zeros_like(y)
    dy_expected[-1] = last
    if batch_first:
        y, dy_expected = y.swapaxes(0, 1), dy_expected.swapaxes(0, 1)
    value, dy = cylstm.losses.MSE("last", batch_first)(y, target)
    np.testing.assert_allclose(value, expected, **tolerances.FLOAT64)
    np.testing.assert_allclose(dy, dy_expected, **tolerances.FLOAT64)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("steps", ["all", "last"])
def test_mse_of_a_ragged_batch_counts_real_steps_only(rng, steps, batch_first):
    lengths = np.array([5, 0, 2])
    y, target = rng.standard_normal((2, 5, 3, 2))
    real = [(t, b) for b, n in enumerate(lengths) for t in range(n) if steps == "all" or t == n - 1]
    t, b = np.array(real).T
    wanted = target if steps == "all" else target[0]
    expected, residual = reference.mse(y[t, b], target[t, b] if steps == "all" else wanted[b])
    dy_expected = np.zeros_like(y)
    dy_expected[t, b] = residual
    y[3:, 2] = np.nan  # padding has no influence
    y[:, 1] = np.nan
    if batch_first:
        y, dy_expected = y.swapaxes(0, 1), dy_expected.swapaxes(0, 1)
        wanted = wanted.swapaxes(0, 1) if steps == "all" else wanted
    value, dy = cylstm.losses.MSE(steps, batch_first)(y, wanted, lengths)
    np.testing.assert_allclose(value, expected, **tolerances.FLOAT64)
    np.testing.assert_allclose(dy, dy_expected, **tolerances.FLOAT64)
    nothing, dy = cylstm.losses.MSE(steps, batch_first)(y, wanted, [0, 0, 0])
    assert nothing == 0
    assert not dy.any()


def test_mse_does_not_mind_what_a_caller_did_to_the_gradient(rng):
    y, target = rng.standard_normal((4, 2, 3)), rng.standard_normal((2, 3))
    loss = cylstm.losses.MSE("last")
    first, dy = loss(y, target)
    dy += 1
    second, dy = loss(y, target)
    assert first == second
    assert not dy[:-1].any()


def test_mse_agrees_with_torch(rng, torch):
    y, target = rng.standard_normal((2, 6, 3, 2))
    theirs = torch.tensor(y, requires_grad=True)
    value = torch.nn.functional.mse_loss(theirs, torch.tensor(target))
    value.backward()
    ours, dy = cylstm.losses.MSE()(y, target)
    np.testing.assert_allclose(ours, value.item(), **tolerances.TORCH)
    np.testing.assert_allclose(dy, theirs.grad.numpy(), **tolerances.TORCH)


def test_mse_keeps_the_dtype_and_reuses_its_buffer(rng):
    loss = cylstm.losses.MSE()
    y = rng.standard_normal((5, 2, 3)).astype(np.float32)
    _, dy = loss(y, np.zeros((5, 2, 3)))
    assert dy.dtype == np.float32
    assert loss(y, y)[1] is dy


def test_mse_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="steps: expected 'all' or 'last', got 'first'"):
        cylstm.losses.MSE("first")
    with pytest.raises(ValueError, match=r"target: expected \(5, 2, 3\), got \(2, 3\)"):
        cylstm.losses.MSE()(np.zeros((5, 2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="lengths: expected 2 ints"):
        cylstm.losses.MSE()(np.zeros((5, 2, 3)), np.zeros((5, 2, 3)), [5])
    with pytest.raises(ValueError, match="lengths: expected y to be a batch"):
        cylstm.losses.MSE()(np.zeros((5, 3)), np.zeros((5, 3)), [5])
    with pytest.raises(ValueError, match=r"y: expected .* got \(0, 2, 3\)"):
        cylstm.losses.MSE()(np.zeros((0, 2, 3)), np.zeros((0, 2, 3)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, bool, np.int64])
def test_mse_computes_in_float64_what_is_no_float_of_ours(dtype):
    y, target = np.array([[0, 1, 0]], dtype), np.array([[1, 1, 1]], dtype)
    value, dy = cylstm.losses.MSE()(y, target)
    assert value == pytest.approx(2 / 3)
    assert dy.dtype == np.float64
    np.testing.assert_allclose(dy, [[-2 / 3, 0, -2 / 3]])


def test_mse_of_its_own_gradient(rng):
    loss = cylstm.losses.MSE()
    _, dy = loss(rng.standard_normal((3, 2, 1)), rng.standard_normal((3, 2, 1)))
    expected = np.mean(dy**2)
    assert loss(dy, np.zeros((3, 2, 1)))[0] == pytest.approx(expected)
    _, dy = loss(rng.standard_normal((3, 2, 1)), rng.standard_normal((3, 2, 1)))
    assert loss(np.zeros((3, 2, 1)), dy)[0] == pytest.approx(np.mean(dy**2))
