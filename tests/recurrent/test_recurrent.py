"""Recurrent layers of every cell against the reference, finite differences and PyTorch."""

import numpy as np
import pytest
import tolerances
from differences import gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    DIRECTIONS,
    LAYERS,
    assert_agrees_with_reference,
    for_caller,
    make,
    parts_of,
    problem,
)

import cylstm
from cylstm._engine import isa
from cylstm.layers.base import describe
from cylstm.recurrent.cells import CELLS

# T, B, I, H all different, and sizes around the widths of vectors.
SIZES = [(7, 3, 5, 4), (1, 2, 3, 4), (5, 1, 2, 3), (4, 3, 1, 2), (3, 4, 2, 1), (1, 1, 1, 1)]
WIDTHS = [(3, 2, 4, H) for H in (5, 7, 8, 9, 15, 16, 17, 31, 32, 33)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("num_layers, bias", [(1, True), (3, False)])
def test_agrees_with_reference(rng, cell, dtype, direction, num_layers, bias):
    for T, B, I, H in SIZES:
        options = {"num_layers": num_layers, "bias": bias, "dtype": dtype, "seed": 1, **DIRECTIONS[direction]}
        layer = make(cell, I, H, **options)
        assert_agrees_with_reference(layer, *problem(rng, layer, T, B))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("instruction_set", isa.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_instruction_set_agrees_with_reference(rng, monkeypatch, cell, instruction_set, dtype):
    monkeypatch.setattr(isa, "selected", lambda: isa.NAMES.index(instruction_set))
    for T, B, I, H in WIDTHS:
        layer = make(cell, I, H, 2, dtype=dtype, seed=1)
        assert_agrees_with_reference(layer, *problem(rng, layer, T, B))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_of_many_rows_agree_with_reference(rng, cell, dtype):
    """From 16 rows on x enters step by step, from 49 on inference takes them in pieces, from 129 on a step's
    gradients are a block or more (pass.h)."""
    for T, B in (3, 17), (2, 50), (3, 130), (2, 300):
        layer = make(cell, 3, 5, dtype=dtype, seed=1)
        assert_agrees_with_reference(layer, *problem(rng, layer, T, B))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ragged_batches_equal_each_sequence_alone(rng, cell, dtype, direction):
    ragged = [3, 7, 1, 7, 0], [1, 2, 3], [7], [0, 0], [4, 4, 4], [4, 3, 4]
    gaps = [5, 3, 5], [6, 3, 3, 6]  # of one and two rows between the states that a gradient reads
    for lengths in (*ragged, *gaps):
        layer = make(cell, 5, 4, 2, dtype=dtype, seed=1, **DIRECTIONS[direction])
        x, state, dy, dstate = problem(rng, layer, 7, len(lengths))
        for b, n in enumerate(lengths):
            x[n:, b] = np.nan  # padding has no influence, whatever it is
            dy[n:, b] = np.nan
        assert_agrees_with_reference(layer, x, state, dy, dstate, np.array(lengths))


@given(
    cell=st.sampled_from(list(CELLS)), direction=st.sampled_from(list(DIRECTIONS)), ragged=st.booleans(),
    T=st.integers(0, 10), B=st.integers(0, 7), I=st.integers(1, 20), H=st.integers(1, 40),
    L=st.integers(1, 3), bias=st.booleans(), dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_agrees_with_reference_for_any_sizes_and_options(
    cell, direction, ragged, T, B, I, H, L, bias, dtype, seed
):
    rng = np.random.default_rng(seed)
    layer = make(cell, I, H, L, bias=bias, dtype=dtype, seed=seed, **DIRECTIONS[direction])
    lengths = rng.integers(0, T + 1, B) if ragged else None
    assert_agrees_with_reference(layer, *problem(rng, layer, T, B), lengths)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("lengths", [None, [5, 2, 0, 4]])
def test_gradients_agree_with_finite_differences(rng, cell, direction, lengths):
    layer = make(cell, 3, 2, 2, dtype="float64", seed=1, **DIRECTIONS[direction])
    x, state, dy, dstate = problem(rng, layer, 5, 4)

    def loss():
        with describe(layer).store.writing():
            pass  # the differences write to it
        y, final = layer(x, for_caller(state), lengths=lengths)
        return np.vdot(dy, y) + sum(np.vdot(a, b) for a, b in zip(dstate, parts_of(final), strict=True))

    layer.train()
    loss()
    dx, initial = layer.backward(dy, for_caller(dstate))
    layer.eval()
    store = describe(layer).store
    pairs = [(store.grad, store.data), (dx, x), *zip(parts_of(initial), state, strict=True)]
    for ours, array in pairs:
        step, limits = tolerances.differences(cell)
        np.testing.assert_allclose(ours, gradient(loss, array, step), **limits)


@pytest.mark.parametrize(
    "cell, options",
    [("lstm", {}), ("lstm", {"proj_size": 2}), ("rnn_tanh", {}), ("rnn_relu", {}), ("gru", {})],
)
@pytest.mark.parametrize(
    "num_layers, bias, batch_first", [(1, True, False), (3, True, True), (2, False, False)]
)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [2, 6, 3, 1]])
def test_agrees_with_torch(rng, torch, cell, options, num_layers, bias, batch_first, bidirectional, lengths):
    T, B, I, H = 6, 4, 3, 5
    layer_type, own = LAYERS[cell]
    theirs = getattr(torch.nn, layer_type.__name__)(
        I,
        H,
        num_layers,
        bias=bias,
        batch_first=batch_first,
        bidirectional=bidirectional,
        dtype=torch.float64,
        **own,
        **options,
    )
    ours = make(
        cell, I, H, num_layers, bias, batch_first, bidirectional=bidirectional, dtype="float64", **options
    ).train()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x, state, dy, dstate = problem(rng, ours, T, B)
    for b, n in enumerate(lengths or []):
        dy[n:, b] = 0
    if batch_first:
        x, dy = x.swapaxes(0, 1).copy(), dy.swapaxes(0, 1).copy()
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, *state)]
    packed, rnn = inputs[0], torch.nn.utils.rnn
    if lengths:
        packed = rnn.pack_padded_sequence(packed, lengths, batch_first, enforce_sorted=False)
    outputs, final = theirs(packed, for_caller(inputs[1:]))
    if lengths:
        outputs = rnn.pad_packed_sequence(outputs, batch_first)[0]
    torch.autograd.backward([outputs, *parts_of(final)], [torch.tensor(a) for a in (dy, *dstate)])

    y, final_ours = ours(x, for_caller(state), lengths=lengths)
    dx, initial = ours.backward(dy, for_caller(dstate))
    for a, b in zip((y, *parts_of(final_ours)), (outputs, *parts_of(final)), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), **tolerances.TORCH)
    for a, b in zip((dx, *parts_of(initial)), inputs, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), **tolerances.TORCH)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            ours.gradients[name], parameter.grad.numpy(), **tolerances.TORCH, err_msg=name
        )


def test_layouts_are_the_same_numbers(rng):
    layer = cylstm.LSTM(3, 5, 2, dtype="float64", seed=0)
    twin = cylstm.LSTM(3, 5, 2, batch_first=True, dtype="float64", seed=0)
    x, state, dy, dstate = problem(rng, layer, 6, 4)
    y, final = layer.train()(x, state)
    y_twin, final_twin = twin.train()(x.swapaxes(0, 1), state)
    np.testing.assert_array_equal(y, y_twin.swapaxes(0, 1))
    np.testing.assert_array_equal(final, final_twin)
    np.testing.assert_array_equal(
        layer.backward(dy, dstate)[0], twin.backward(dy.swapaxes(0, 1), dstate)[0].swapaxes(0, 1)
    )

    one = (state[0][:, 1], state[1][:, 1])
    y_one, final_one = layer(x[:, 1], one)
    assert y_one.shape == (6, 5)
    assert final_one[0].shape == (2, 5)
    np.testing.assert_allclose(y_one, y[:, 1], **tolerances.FLOAT64)
    dx, initial = layer.backward(dy[:, 1])
    assert dx.shape == (6, 3)
    assert initial[1].shape == (2, 5)


@pytest.mark.parametrize("T, B", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_empty_batches_give_empty_results(rng, T, B, mode):
    layer = cylstm.LSTM(2, 4, 2, seed=0)
    getattr(layer, mode)()
    x, state, dy, dstate = problem(rng, layer, T, B)
    y, final = layer(x, state)
    assert y.shape == (T, B, 4)
    np.testing.assert_array_equal(final, state)
    if mode == "train":
        dx, initial = layer.backward(dy, dstate)
        assert dx.shape == (T, B, 2)
        np.testing.assert_array_equal(initial, dstate)
        assert not describe(layer).store.grad.any()


def test_training_and_inference_modes_compute_the_same(rng):
    layer = cylstm.LSTM(3, 6, 3, seed=0)
    x, state, *_ = problem(rng, layer, 9, 2)
    y, final = layer(x, state)
    y_train, final_train = layer.train()(x, state)
    np.testing.assert_array_equal(y, y_train)
    np.testing.assert_array_equal(final, final_train)


def test_state_defaults_to_zeros(rng):
    layer = cylstm.LSTM(3, 4, 2, seed=0)
    x = rng.standard_normal((5, 2, 3))
    layer(np.ones((5, 2, 3)))  # leaves something in the buffers
    np.testing.assert_array_equal(layer(x)[0], layer(x, (np.zeros((2, 2, 4)), np.zeros((2, 2, 4))))[0])


def test_gradients_accumulate_until_they_are_set_to_zero(rng):
    layer = cylstm.LSTM(3, 4, seed=0, dtype="float64").train()
    x, _, dy, _ = problem(rng, layer, 5, 2)
    layer(x)
    layer.backward(dy)
    once = describe(layer).store.grad.copy()
    layer(x)
    layer.backward(dy)
    np.testing.assert_allclose(describe(layer).store.grad, 2 * once, **tolerances.FLOAT64)
    layer.zero_grad()
    assert not describe(layer).store.grad.any()


def test_need_dx_does_not_affect_other_gradients(rng):
    layer = cylstm.LSTM(3, 4, 2, seed=0).train()
    x, _, dy, _ = problem(rng, layer, 5, 2)
    layer(x)
    layer.backward(dy)
    with_dx = describe(layer).store.grad.copy()
    layer.zero_grad()
    layer(x)
    assert layer.backward(dy, need_dx=False)[0] is None
    np.testing.assert_array_equal(describe(layer).store.grad, with_dx)


def test_results_belong_to_the_caller(rng):
    layer = cylstm.LSTM(3, 4, seed=0).train()
    x, state, dy, _ = problem(rng, layer, 5, 2)
    y, final = layer(x, state)
    dx, initial = layer.backward(dy)
    kept = [a.copy() for a in (y, *final, dx, *initial, x, *state, dy)]
    layer(x * 2)
    layer.backward(dy * 2)
    for before, after in zip(kept, (y, *final, dx, *initial, x, *state, dy), strict=True):
        np.testing.assert_array_equal(before, after)


def test_inputs_of_any_real_kind_and_layout_are_taken(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    x = rng.integers(-3, 4, (5, 2, 3))
    expected = layer(x.astype(np.float32))[0]
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    strided = np.repeat(x.astype(float), 2, axis=2)[:, :, ::2]
    others = [
        x,
        x.astype(np.float64),
        x.astype(">f4"),
        np.asfortranarray(x),
        read_only,
        strided,
        x.tolist(),
        x[::-1][::-1],
    ]
    for other in others:
        np.testing.assert_array_equal(layer(other)[0], expected)


def test_out_is_written_and_returned(rng):
    layer = cylstm.LSTM(3, 4, batch_first=True, seed=0)
    x = rng.standard_normal((2, 5, 3))
    expected = layer(x)[0]
    out = np.full((2, 5, 8), np.nan, np.float32)[:, :, ::2]
    y, _ = layer(x, out=out)
    assert y is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((5, 2, 4))}, r"x: expected \(T, B, 3\) or \(T, 3\), got \(5, 2, 4\)"),
        ({"x": np.zeros(3)}, r"x: expected .*, got \(3,\)"),
        ({"x": np.zeros((5, 2, 3), complex)}, "x: expected real numbers, got dtype complex128"),
        ({"x": np.full((5, 2, 3), "a")}, "x: expected real numbers"),
        ({"x": [[[0.0] * 3], [[0.0] * 2]]}, "x: expected a rectangular array"),
        (
            {"state": np.zeros((1, 2, 4))},
            r"state: expected a tuple \(h, c\) of arrays \(1, 2, 4\), got ndarray",
        ),
        ({"state": (np.zeros((1, 2, 4)),)}, r"state: expected a tuple \(h, c\)"),
        (
            {"state": (np.zeros((1, 2, 4)), np.zeros((1, 3, 4)))},
            r"state c: expected \(1, 2, 4\), got \(1, 3, 4\)",
        ),
        (
            {"out": np.zeros((5, 2, 4))},
            r"out: expected an array \(5, 2, 4\) float32, got \(5, 2, 4\) float64",
        ),
        ({"out": np.zeros((5, 2, 3), np.float32)}, r"out: expected an array \(5, 2, 4\) float32"),
        ({"lengths": [5]}, r"lengths: expected 2 ints, one per sequence, got int64 \(1,\)"),
        ({"lengths": [5.0, 1.0]}, "lengths: expected 2 ints, one per sequence, got float64"),
        ({"lengths": [6, 1]}, "lengths: expected 0 to T = 5, got 1 to 6"),
        ({"lengths": [-1, 1]}, "lengths: expected 0 to T = 5, got -1 to 1"),
        ({"x": np.zeros((5, 3)), "lengths": [5]}, "lengths: expected a batch of sequences"),
        ({"out": [0.0]}, "out: expected an array .* got list"),
        ({"out": np.broadcast_to(np.float32(0), (5, 2, 4))}, "out: expected a writable array"),
    ],
)
def test_errors_name_argument_expected_and_given_value(arguments, message):
    layer = cylstm.LSTM(3, 4)
    with pytest.raises((ValueError, TypeError), match=message):
        layer(**{"x": np.zeros((5, 2, 3)), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, "input_size: expected a positive int, got 0"),
        ({"hidden_size": -1}, "hidden_size: expected a positive int, got -1"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1"),
        ({"reverse": True, "bidirectional": True}, "reverse: expected False with bidirectional=True"),
        ({"num_layers": 1.5}, "num_layers: expected a positive int, got 1.5"),
        ({"dtype": "float16"}, "dtype: expected 'float32' or 'float64', got 'float16'"),
        ({"dtype": None}, "dtype: expected 'float32' or 'float64', got None"),
    ],
)
def test_impossible_layers_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cylstm.LSTM(**{"input_size": 3, "hidden_size": 4, **arguments})


def test_backward_needs_one_training_forward_of_its_own():
    layer = cylstm.LSTM(3, 4)
    x, dy = np.zeros((5, 2, 3)), np.zeros((5, 2, 4))
    layer(x)
    with pytest.raises(RuntimeError, match="expected a training forward pass"):
        layer.backward(dy)
    layer.train()
    layer(x)
    layer.backward(dy)
    with pytest.raises(RuntimeError, match="expected a training forward pass"):
        layer.backward(dy)
    layer(x)
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="parameters were changed"):
        layer.backward(dy)
    layer(x)
    with pytest.raises(ValueError, match=r"dy: expected \(5, 2, 4\), got \(4, 2, 4\)"):
        layer.backward(dy[:4])
    assert layer.backward(dy)[0].shape == (5, 2, 3)  # a refused call uses nothing up
    layer(x)
    cylstm.Sequential(layer)  # moves the parameters
    with pytest.raises(RuntimeError, match="parameters were changed"):
        layer.backward(dy)
    layer(x)
    layer.eval()
    with pytest.raises(RuntimeError, match="expected a training forward pass"):
        layer.backward(dy)


def test_nan_and_infinity_go_through_as_ieee_says(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((6, 2, 3))
    clean = layer(x)[0]
    x[3, 1, 0] = np.nan
    y = layer(x)[0]
    np.testing.assert_array_equal(y[:, 0], clean[:, 0])
    np.testing.assert_array_equal(y[:3, 1], clean[:3, 1])
    assert np.isnan(y[3:, 1]).all()
    saturated = cylstm.LSTM(1, 4, seed=0)(np.full((6, 2, 1), np.inf))[0]
    assert np.isfinite(saturated).all()


@pytest.mark.parametrize("H", [4, 37])
@pytest.mark.parametrize("cell", ["lstm", "rnn_tanh", "gru"])
def test_what_pads_the_units_has_no_gradient(cell, H):
    """Saturated gates have none, so dx is 0; in the padding there is the NaN of 0 times infinity."""
    layer = make(cell, 1, H, seed=0).train()
    layer(np.full((6, 2, 1), np.inf))
    dx, _ = layer.backward(np.ones((6, 2, H)))
    np.testing.assert_array_equal(dx, np.zeros((6, 2, 1)))


def test_gradients_go_through_infinite_activations_of_relu(torch):
    layer = cylstm.RNN(1, 1, bias=False, nonlinearity="relu").train()
    layer.load_state_dict({"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.zeros((1, 1))})
    theirs = torch.nn.RNN(1, 1, bias=False, nonlinearity="relu")
    theirs.load_state_dict({"weight_ih_l0": torch.ones(1, 1), "weight_hh_l0": torch.zeros(1, 1)})
    for value in (np.inf, 3.0, 0.0, -3.0, -np.inf, np.nan):
        x = torch.full((1, 1, 1), value, requires_grad=True)
        theirs(x)[0].backward(torch.ones(1, 1, 1))
        layer(np.full((1, 1, 1), value))
        dx, _ = layer.backward(np.ones((1, 1, 1)))
        np.testing.assert_array_equal(dx, x.grad.numpy())
