import numpy as np
import pytest
import tolerances
from differences import gradient

import cylstm
from cylstm import reference
from cylstm.layers.base import describe
from cylstm.recurrent.activated import ActivatedLSTM


def test_gradients_agree_with_finite_differences(rng):
    model = cylstm.Sequential(
        cylstm.Linear(3, 2, dtype="float64", seed=0),
        cylstm.LSTM(2, 5, 2, dtype="float64", seed=1),
        cylstm.Sequential(cylstm.Linear(5, 4, bias=False, dtype="float64", seed=2)),
        cylstm.LSTM(4, 1, dtype="float64", seed=3),
    )
    x, dy = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 2, 1))
    state = (None, tuple(rng.standard_normal((2, 2, 2, 5))), None, tuple(rng.standard_normal((2, 1, 2, 1))))
    dstate = (None, tuple(rng.standard_normal((2, 2, 2, 5))), None, tuple(rng.standard_normal((2, 1, 2, 1))))

    def loss():
        with describe(model).store.writing():
            pass  # the differences write to it
        y, final = model(x, state)
        parts = [np.vdot(a, b) for i in (1, 3) for a, b in zip(dstate[i], final[i], strict=True)]
        return np.vdot(dy, y) + sum(parts)

    model.train()
    loss()
    dx, initial = model.backward(dy, dstate)
    model.eval()
    pairs = [(describe(model).store.grad, describe(model).store.data), (dx, x)]
    pairs += [(initial[i][k], state[i][k]) for i in (1, 3) for k in (0, 1)]
    for ours, array in pairs:
        np.testing.assert_allclose(ours, gradient(loss, array), **tolerances.DIFFERENCES)


def test_state_carries_on_and_one_sequence_needs_no_batch(rng):
    model = cylstm.Sequential(
        cylstm.LSTM(2, 3, seed=0, dtype="float64"), cylstm.Linear(3, 1, dtype="float64")
    )
    x = rng.standard_normal((6, 2))
    y, _ = model(x)
    assert y.shape == (6, 1)
    first, state = model(x[:4])
    assert state[0][0].shape == (1, 3)
    assert state[1] is None
    second, _ = model(x[4:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), y, **tolerances.FLOAT64)


def test_batch_first_is_that_of_its_recurrent_layers(rng):
    x = rng.standard_normal((2, 6, 3))
    model = cylstm.Sequential(
        cylstm.LSTM(3, 4, batch_first=True, seed=0), cylstm.Linear(4, 2, seed=1)
    ).train()
    twin = cylstm.Sequential(cylstm.LSTM(3, 4, seed=0), cylstm.Linear(4, 2, seed=1)).train()
    np.testing.assert_array_equal(model(x)[0], twin(x.swapaxes(0, 1))[0].swapaxes(0, 1))
    dy = rng.standard_normal((2, 6, 2))
    np.testing.assert_array_equal(model.backward(dy)[0], twin.backward(dy.swapaxes(0, 1))[0].swapaxes(0, 1))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers: expected at least one"),
        (
            [cylstm.LSTM(2, 3), cylstm.Linear(4, 1)],
            "layer 1: expected to read the 3 outputs of layer 0, got input size 4",
        ),
        ([cylstm.LSTM(2, 3), cylstm.Linear(3, 1, dtype="float64")], r"layers: expected one dtype"),
        ([cylstm.LSTM(2, 3), cylstm.LSTM(3, 3, batch_first=True)], "the same batch_first"),
        ([cylstm.LSTM(2, 3), "Linear"], "layer 1: expected a cylstm layer, got str"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cylstm.Sequential(*layers)


def test_a_layer_belongs_to_one_model():
    layer = cylstm.LSTM(2, 2)
    cylstm.Sequential(layer)
    with pytest.raises(ValueError, match="layer 0: already part of a model"):
        cylstm.Sequential(layer)
    other = cylstm.LSTM(2, 2)
    with pytest.raises(ValueError, match="layer 1: already part of a model"):
        cylstm.Sequential(other, other)


def test_a_wrong_state_is_refused():
    model = cylstm.Sequential(cylstm.LSTM(2, 3), cylstm.Linear(3, 1))
    with pytest.raises(TypeError, match="state: expected a tuple of 2 states, one per layer, got list"):
        model(np.zeros((4, 1, 2)), [None])
    with pytest.raises(TypeError, match=r"state\[1\]: expected None, Linear has no state, got str"):
        model(np.zeros((4, 1, 2)), [None, "junk"])
    with pytest.raises(ValueError, match=r"state\[0\] h: expected \(1, 1, 3\), got \(1, 2, 3\)"):
        model(np.zeros((4, 1, 2)), [(np.zeros((1, 2, 3)), np.zeros((1, 1, 3))), None])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (0, 3), (2, 0, 3)])
def test_linear_agrees_with_reference(rng, shape, dtype, bias):
    layer = cylstm.Linear(3, 2, bias, dtype, seed=0).train()
    x, dy = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 2))
    x, dy = x.astype(dtype).astype(float), dy.astype(dtype).astype(float)
    w = layer.parameters["weight"].astype(float)
    b = layer.parameters["bias"].astype(float) if bias else np.zeros(2)
    expected = reference.dense_backward(dy.reshape(-1, 2), x.reshape(-1, 3), w)
    limits = tolerances.FLOAT64 if dtype == "float64" else tolerances.float32(3, 10, 10.0, True)
    np.testing.assert_allclose(layer(x), reference.dense_forward(x, w, b), **limits)
    np.testing.assert_allclose(layer.backward(dy), expected["dx"].reshape(shape), **limits)
    np.testing.assert_allclose(layer.gradients["weight"], expected["dw"], **limits)
    if bias:
        np.testing.assert_allclose(layer.gradients["bias"], expected["db"], **limits)


def test_linear_rejects_invalid_input():
    layer = cylstm.Linear(3, 2).train()
    with pytest.raises(ValueError, match=r"x: expected \(\.\.\., 3\), got \(5, 4\)"):
        layer(np.zeros((5, 4)))
    layer(np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"dy: expected \(5, 2\), got \(4, 2\)"):
        layer.backward(np.zeros((4, 2)))


@pytest.mark.parametrize("layers", ["ll", "lr", "rl", "lrl", "(lr)l"])
def test_a_ragged_batch_equals_each_sequence_alone(rng, layers):
    def build():
        seeds = iter(range(10))

        def make(letter):
            layer_type = {"l": cylstm.Linear, "r": cylstm.GRU}[letter]
            return layer_type(3, 3, dtype="float64", seed=next(seeds))

        if layers.startswith("("):
            inner = cylstm.Sequential(make("l"), make("r"))
            return cylstm.Sequential(inner, make("l")).train()
        return cylstm.Sequential(*map(make, layers)).train()

    ragged, alone = build(), build()
    lengths = [4, 0, 5, 1]  # of 6 steps
    x, dy = rng.standard_normal((2, 6, 4, 3))
    for b, n in enumerate(lengths):
        x[n:, b] = dy[n:, b] = np.nan  # padding has no influence
    y, _ = ragged(x, lengths=lengths)
    dx, _ = ragged.backward(dy)
    for b, n in enumerate(lengths):
        y_alone, _ = alone(x[:n, b : b + 1])
        dx_alone, _ = alone.backward(dy[:n, b : b + 1])
        np.testing.assert_allclose(y[:n, b], y_alone[:, 0], **tolerances.FLOAT64)
        np.testing.assert_allclose(dx[:n, b], dx_alone[:, 0], **tolerances.FLOAT64)
        assert not y[n:, b].any()
        assert not dx[n:, b].any()
    np.testing.assert_allclose(describe(ragged).store.grad, describe(alone).store.grad, **tolerances.FLOAT64)


def test_a_layer_whose_steps_run_in_numpy_stands_before_others(rng):
    recurrent, dense = ActivatedLSTM(3, 4, "hard_sigmoid;tanh;tanh", seed=0), cylstm.Linear(4, 2, seed=1)
    x = rng.standard_normal((5, 2, 3))
    model = cylstm.Sequential(recurrent, dense)
    expected = dense(recurrent(x)[0])
    np.testing.assert_array_equal(model(x)[0], expected)
    np.testing.assert_array_equal(cylstm.Session(model).run(x)[0], expected)
    np.testing.assert_array_equal(cylstm.Stream(model, batch_size=2).run(x), expected)
