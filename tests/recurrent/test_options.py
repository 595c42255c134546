"""What a recurrent layer may have besides its cell: every option with every cell that has it."""

import numpy as np
import pytest
import tolerances
from differences import along
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    DIRECTIONS,
    GRID,
    LAYERS,
    LSTM_OPTIONS,
    OPTIONS,
    assert_agrees_with_reference,
    for_caller,
    make,
    options_of,
    parts_of,
    problem,
    run_reference,
    run_reference_back,
)

import cylstm
from cylstm.layers.base import describe
from cylstm.recurrent.cells import CELLS

LENGTHS = [None, [3, 4, 0]]  # of 5 steps, which no sequence has


@pytest.mark.parametrize("cell, option", GRID)
@pytest.mark.parametrize(
    "direction, dtype", [*((direction, "float64") for direction in DIRECTIONS), ("both", "float32")]
)
def test_agrees_with_reference(rng, cell, option, dtype, direction):
    for lengths in LENGTHS:
        layer = make(cell, 3, 17, 2, dtype=dtype, seed=1, **options_of(option), **DIRECTIONS[direction])
        lengths = None if lengths is None else np.array(lengths)
        assert_agrees_with_reference(layer, *problem(rng, layer, 5, 3), lengths, learned=layer.learn_state)


@pytest.mark.parametrize("cell, option", GRID)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradients_agree_with_finite_differences(rng, cell, option, direction):
    layer = make(
        cell, 2, 4, 2, dtype="float64", seed=1, **options_of(option), **DIRECTIONS[direction]
    ).train()
    x, state, dy, dstate = problem(rng, layer, 3, 2)
    state = None if layer.learn_state else state
    drawn = layer.masks.state

    def loss():
        layer.masks.state = drawn  # the same masks every time
        with describe(layer).store.writing():
            pass  # the differences write to it
        y, final = layer(x, state and for_caller(state), lengths=[3, 2])
        return np.vdot(dy, y) + sum(np.vdot(a, b) for a, b in zip(dstate, parts_of(final), strict=True))

    dy[2:, 1] = 0
    loss()
    dx, initial = layer.backward(dy, for_caller(dstate))
    pairs = [(describe(layer).store.grad.copy(), describe(layer).store.data), (dx, x)]
    pairs += zip(parts_of(initial), state or (), strict=False)
    step, limits = tolerances.differences(cell, layer.clip)
    for ours, array in pairs:
        for _ in range(4):  # random directions, each with a part of every element
            direction = rng.standard_normal(array.shape)
            direction /= np.linalg.norm(direction)
            np.testing.assert_allclose(
                np.vdot(ours, direction), along(loss, array, direction, step), **limits
            )


@pytest.mark.slow
@given(data=st.data(), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_combination_agrees_with_reference(data, seed):
    cell, direction = data.draw(st.sampled_from(list(LAYERS))), data.draw(st.sampled_from(list(DIRECTIONS)))
    names = sorted({name for option in OPTIONS.values() for name in option})
    share, H = st.floats(0, 0.9), data.draw(st.integers(1, 40), "H")
    values = {"learn_state": st.booleans(), "clip": st.none() | st.floats(0.1, 10)}
    options = {name: data.draw(values.get(name, share), name) for name in names}
    if cell.startswith("lstm"):
        options |= {"proj_size": data.draw(st.integers(0, H - 1)), "zoneout_cell": data.draw(share)}
    sizes = {"input_size": st.integers(1, 20), "num_layers": st.integers(1, 3)}
    sizes = {name: data.draw(values, name) for name, values in sizes.items()}
    if sizes["num_layers"] == 1:
        options["dropout"] = 0.0  # it would have no effect
    dtype, bias = data.draw(st.sampled_from(["float32", "float64"])), data.draw(st.booleans())
    layer = make(
        cell, hidden_size=H, dtype=dtype, bias=bias, seed=seed, **sizes, **options, **DIRECTIONS[direction]
    )
    T, B, rng = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 6)), np.random.default_rng(seed)
    lengths = rng.integers(0, T + 1, B) if data.draw(st.booleans()) else None
    assert_agrees_with_reference(layer, *problem(rng, layer, T, B), lengths, learned=layer.learn_state)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_is_inclusive(rng, cell, dtype):
    layer = make(cell, 3, 20, clip=0.5, dtype=dtype, seed=1)
    state = {name: value * name.startswith("norm_c") for name, value in layer.state_dict().items()}
    bias = next(name for name in state if name.startswith("bias_") and "c" not in name)
    state[bias] = rng.choice([-0.5, 0.5, 0.4], state[bias].shape)
    layer.load_state_dict(state)
    x, first, dy, last = problem(rng, layer, 4, 2)
    assert_agrees_with_reference(layer, x, first, dy, last)
    saved = run_reference(layer, x, first)[2]
    for gradients in (layer.gradients, run_reference_back(layer, x, dy, last, saved)[2]):
        assert not gradients[bias][abs(state[bias]) == 0.5].any()
        assert gradients[bias].any()


@pytest.mark.parametrize("cell, option", GRID)
def test_evaluation_is_deterministic_and_training_is_seeded(rng, cell, option):
    one, two = (make(cell, 3, 8, 2, seed=4, **options_of(option)) for _ in range(2))
    x = rng.standard_normal((5, 2, 3))
    np.testing.assert_array_equal(one(x)[0], one(x)[0])
    np.testing.assert_array_equal(one(x)[0], two(x)[0])
    first, second = one.train()(x)[0], one(x)[0]
    np.testing.assert_array_equal(two.train()(x)[0], first)
    np.testing.assert_array_equal(two(x)[0], second)
    random = {"dropout", "input_dropout", "recurrent_dropout", "zoneout", "zoneout_cell"}
    assert np.array_equal(first, second) != bool(random & set(options_of(option)))


@pytest.mark.parametrize("cell, option", GRID)
def test_it_goes_through_a_file_and_a_copy(rng, tmp_path, cell, option):
    layer = make(cell, 3, 8, 2, seed=4, **options_of(option))
    x = rng.standard_normal((5, 2, 3))
    cylstm.save(layer, tmp_path / "m")
    loaded = cylstm.load(tmp_path / "m")
    assert loaded.config == layer.config
    np.testing.assert_array_equal(loaded(x)[0], layer(x)[0])


def test_mask_rate_mean_and_lifetime():
    layer = cylstm.LSTM(
        30, 50, 2, input_dropout=0.3, recurrent_dropout=0.4, zoneout=0.2, zoneout_cell=0.6, seed=0
    ).train()
    layer(np.zeros((20, 40, 30)))
    buffers = describe(layer).training_workspace.buffers.arrays
    for name, p in [("mask_x0", 0.3), ("mask_x1", 0.3), ("mask_h0_0", 0.4), ("mask_h1_0", 0.4)]:
        mask = buffers[name]
        assert len(mask) == 40  # one row a sequence
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - p)], rtol=1e-6)
        assert abs(mask.mean() - 1) < 0.08
    for name, p in [("zone_h0_0", 0.2), ("zone_c1_0", 0.6)]:
        mask = buffers[name]
        assert len(mask) == 20 * 40  # one row a step
        assert set(np.unique(mask)) == {0, 1}
        assert abs(mask.mean() - p) < 0.01
    assert not np.array_equal(buffers["mask_h0_0"], buffers["mask_h1_0"])


def test_zoneout_keeps_the_state_before(rng):
    layer = cylstm.LSTM(3, 6, zoneout=0.5, zoneout_cell=0.5, dtype="float64", seed=0).train()
    x, (h_0, c_0), *_ = problem(rng, layer, 4, 2)
    _, (h, c) = layer(x[:1], (h_0, c_0))
    for name, before, after in (("zone_h0_0", h_0, h), ("zone_c0_0", c_0, c)):
        kept = describe(layer).training_workspace.buffers.arrays[name].astype(bool)
        np.testing.assert_array_equal(after[0][kept], before[0][kept])
        assert not np.isclose(after[0][~kept], before[0][~kept]).any()


def test_learned_initial_state_is_default(rng):
    layer = make("gru", 3, 4, learn_state=True, seed=0)
    plain = make("gru", 3, 4, seed=0)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k in plain.parameters})
    x = rng.standard_normal((5, 2, 3))
    h_0 = np.broadcast_to(layer.parameters["h_0_l0"], (1, 2, 4))
    np.testing.assert_array_equal(layer(x)[0], plain(x, h_0)[0])
    np.testing.assert_array_equal(layer(x, np.zeros((1, 2, 4)))[0], plain(x)[0])
    stream = cylstm.Stream(layer, 2)
    np.testing.assert_allclose(stream.run(x), layer(x)[0], **tolerances.float32(7, 5, 1.0))
    stream.reset([1])
    np.testing.assert_array_equal(stream.state[0, 1], layer.parameters["h_0_l0"])
    layer.train()
    y, _ = layer(x, np.zeros((1, 2, 4)))
    layer.backward(y)
    assert not layer.gradients["h_0_l0"].any()


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layer_normalization_agrees_with_torch(rng, torch, lengths, bidirectional):
    """Step by step from torch's own layer_norm, forward and back by its autograd."""
    layer = make("lstm_norm", 3, 5, bidirectional=bidirectional, dtype="float64", seed=0).train()
    x, (h_0, c_0), dy, _ = problem(rng, layer, 5, 3)
    norm = torch.nn.functional.layer_norm
    p = {name: torch.tensor(value, requires_grad=True) for name, value in layer.state_dict().items()}
    inputs, outputs = torch.tensor(x, requires_grad=True), torch.zeros(dy.shape, dtype=torch.float64)
    for d, b in np.ndindex(layer.num_directions, 3):
        end = "_l0_reverse" if d else "_l0"
        h, c = torch.tensor(h_0[d, b]), torch.tensor(c_0[d, b])
        steps = range(5 if lengths is None else lengths[b])
        for t in reversed(steps) if d else steps:
            z = norm(p["weight_ih" + end] @ inputs[t, b], (20,), p["norm_ih" + end], p["bias" + end])
            z = z + norm(p["weight_hh" + end] @ h, (20,), p["norm_hh" + end])
            i, f, g, o = z.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * norm(c, (5,), p["norm_c" + end], p["bias_c" + end]).tanh()
            outputs[t, b, d * 5 : d * 5 + 5] = h
    outputs.backward(torch.tensor(dy))
    y, _ = layer(x, (h_0, c_0), lengths=lengths)
    dx, _ = layer.backward(dy)
    np.testing.assert_allclose(y, outputs.detach().numpy(), **tolerances.TORCH)
    np.testing.assert_allclose(dx, inputs.grad.numpy(), **tolerances.TORCH)
    for name, value in p.items():
        np.testing.assert_allclose(
            layer.gradients[name], value.grad.numpy(), **tolerances.TORCH, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_projections_wider_than_a_panel_agree_with_reference(rng, dtype):
    for threads in (1, 3):
        layer = make("lstm", 30, 80, dtype=dtype, proj_size=70, zoneout=0.1, seed=1)
        with cylstm.num_threads(threads):
            assert_agrees_with_reference(layer, *problem(rng, layer, 20, 5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_normalization_of_sums_far_from_zero(rng, dtype):
    """What all sums have in common, the mean takes out: no sum of squares may lose the rest beside it."""
    eps = float(np.finfo(dtype).eps)
    layer = cylstm.LSTM(3, 5, layer_norm=True, dtype=dtype, seed=0)
    state = layer.state_dict()
    state["weight_ih_l0"][:] = rng.integers(-9, 10, (20, 3))
    state["weight_ih_l0"][:, 2] = 2.0 ** (np.finfo(dtype).nmant // 2 + 1)  # every sum is exact
    layer.load_state_dict(state)
    y, _ = layer([[[1, 2, 0]]])
    far, _ = layer([[[1, 2, 1]]])
    # The mean of 20 sums is rounded by up to half of eps times them, which their deviation divides.
    np.testing.assert_allclose(far, y, rtol=0, atol=np.sqrt(eps))


def test_more_layers_learn_states_and_project(rng):
    layer = cylstm.LSTM(3, 6, 2, bidirectional=True, proj_size=4, learn_state=True, seed=0)
    assert layer.output_size == 8
    assert layer.parameters["weight_ih_l1_reverse"].shape == (24, 8)
    assert layer.parameters["weight_hr_l1"].shape == (4, 6)
    assert layer.parameters["c_0_l1_reverse"].shape == (6,)
    y, (h, c) = layer(rng.standard_normal((5, 2, 3)))
    assert (y.shape, h.shape, c.shape) == ((5, 2, 8), (4, 2, 4), (4, 2, 6))


@pytest.mark.parametrize(
    ("make_layer", "options", "message"),
    [
        (cylstm.GRU, {"proj_size": 2}, "proj_size: expected 0, because GRU has no such option; got 2"),
        (
            cylstm.RNN,
            {"peephole": True},
            "peephole: expected False, because RNN has no such option; got True",
        ),
        (cylstm.LSTM, {"nonlinearity": "relu"}, "nonlinearity: expected 'tanh', because LSTM has no such"),
        (cylstm.LSTM, {"proj_size": 4}, "proj_size: expected less than hidden_size, 4, got 4"),
        (cylstm.LSTM, {"proj_size": -1}, "proj_size: expected an int, 0 or more, got -1"),
        (cylstm.LSTM, {"proj_size": 1.5}, "proj_size: expected an int, 0 or more, got 1.5"),
        (cylstm.LSTM, {"zoneout": 1.0}, r"zoneout: expected a number in \[0, 1\), got 1"),
        (cylstm.LSTM, {"recurrent_dropout": -0.1}, r"recurrent_dropout: expected a number in \[0, 1\)"),
        (cylstm.LSTM, {"clip": 0}, "clip: expected a number above 0, got 0"),
        (cylstm.LSTM, {"clip": 10**400}, "clip: expected a number, got one too large for a float"),
        (cylstm.LSTM, {"clip": float("nan")}, r"clip: expected a number in \[0, inf\), got nan"),
        (cylstm.LSTM, {"layer_norm": True, "coupled": True}, "layer_norm: expected False with peephole or"),
        (cylstm.LSTM, {"layer_norm": True, "bias": False}, "bias: expected True with layer_norm"),
        (cylstm.RNN, {"nonlinearity": "sine"}, "nonlinearity: expected 'tanh' or 'relu', got 'sine'"),
    ],
)
def test_impossible_options_are_refused(make_layer, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_layer(3, 4, **options)


def test_states_of_a_projection_have_two_widths():
    layer = cylstm.LSTM(3, 4, proj_size=2)
    with pytest.raises(ValueError, match=r"state h: expected \(1, 2, 2\), got \(1, 2, 4\)"):
        layer(np.zeros((5, 2, 3)), (np.zeros((1, 2, 4)), np.zeros((1, 2, 4))))
    with pytest.raises(TypeError, match=r"tuple \(h, c\) of arrays \(1, 2, 2\) and \(1, 2, 4\), got ndarray"):
        layer(np.zeros((5, 2, 3)), np.zeros((1, 2, 2)))


def test_every_cell_is_in_the_grid():
    assert {cell for cell, _ in GRID} == set(CELLS)
    assert {option for cell, option in GRID if cell == "lstm"} == set(OPTIONS | LSTM_OPTIONS)
