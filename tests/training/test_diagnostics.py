import numpy as np
import pytest
import tolerances
from differences import gradient
from memory import peak_of
from problems import DIRECTIONS, make, problem

import cylstm
from cylstm.diagnostics import gradient_flow
from cylstm.layers.base import describe
from cylstm.plotting import plot_gradient_flow
from cylstm.recurrent.cells import CELLS


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_traced_hidden_states_are_the_outputs(rng, cell, direction):
    layer = make(cell, 3, 5, 2, dropout=0.5, seed=0, **DIRECTIONS[direction])
    x = rng.standard_normal((6, 4, 3))
    y, _ = layer(x, lengths=[4, 2, 0, 5])
    traced = layer.trace(x, lengths=[4, 2, 0, 5])
    assert set(traced) == {*CELLS[cell].gates, *CELLS[cell].states}
    assert all(value.shape == (2 * layer.num_directions, 6, 4, 5) for value in traced.values())
    np.testing.assert_array_equal(np.concatenate(traced["h"][-layer.num_directions :], axis=-1), y)


def test_traced_gates_obey_the_equations_and_the_layout(rng):
    layer = cylstm.LSTM(3, 5, batch_first=True, dtype="float64", seed=0)
    x = rng.standard_normal((4, 6, 3))
    t = {name: value[0] for name, value in layer.trace(x).items()}
    assert t["i"].shape == (4, 6, 5)
    before = np.concatenate([np.zeros((4, 1, 5)), t["c"][:, :-1]], axis=1)
    np.testing.assert_allclose(t["c"], t["f"] * before + t["i"] * t["g"], **tolerances.FLOAT64)
    np.testing.assert_allclose(t["h"], t["o"] * np.tanh(t["c"]), **tolerances.FLOAT64)
    one = layer.trace(x[1])
    np.testing.assert_allclose(one["f"][0], t["f"][1], **tolerances.FLOAT64)
    gru = cylstm.GRU(3, 5, dtype="float64", seed=0)
    t = {name: value[0] for name, value in gru.trace(x).items()}
    before = np.concatenate([np.zeros((1, 6, 5)), t["h"][:-1]])
    np.testing.assert_allclose(t["h"], (1 - t["z"]) * t["n"] + t["z"] * before, **tolerances.FLOAT64)


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "rnn_tanh"])
def test_gradient_flow_agrees_with_finite_differences(rng, cell):
    """dL/dh_t by starting again from step t+1, with h_t as a state that can be moved."""
    layer = make(cell, 3, 4, dtype="float64", seed=0)
    x, _, dy, _ = problem(rng, layer, 5, 2)
    norms = gradient_flow(layer, x, dy)
    assert norms.shape == (1, 5)
    for t in range(4):
        _, state = layer(x[: t + 1])
        h = state[0] if isinstance(state, tuple) else state

        def loss(t=t, h=h, state=state):
            rest, _ = layer(x[t + 1 :], (h, state[1]) if isinstance(state, tuple) else h)
            return np.vdot(dy[t + 1 :], rest) + np.vdot(dy[t], h[0])

        np.testing.assert_allclose(norms[0, t], np.linalg.norm(gradient(loss, h)), **tolerances.DIFFERENCES)
    np.testing.assert_allclose(norms[0, 4], np.linalg.norm(dy[4]), **tolerances.FLOAT64)


def test_gradients_vanish_faster_in_rnn_than_in_lstm(rng):
    x = rng.standard_normal((100, 8, 3))
    lstm, rnn = cylstm.LSTM(3, 16, seed=0), cylstm.RNN(3, 16, seed=0)
    state = lstm.state_dict()
    state["bias_ih_l0"][16:32] = 4  # forget gates open
    lstm.load_state_dict(state)
    reach = {name: gradient_flow(layer, x)[0] for name, layer in (("lstm", lstm), ("rnn", rnn))}
    assert reach["rnn"][0] < 1e-12 * reach["rnn"][-1]
    assert reach["lstm"][0] > 1e-4 * reach["lstm"][-1]


def test_looking_changes_nothing(rng):
    layer = cylstm.LSTM(3, 4, 2, bidirectional=True, seed=0).train()
    x = rng.standard_normal((5, 2, 3))
    y, _ = layer(x)
    layer.backward(y)
    before = describe(layer).store.grad.copy()
    y, _ = layer(x)
    assert gradient_flow(layer, x).shape == (4, 5)
    layer.trace(x)
    np.testing.assert_array_equal(describe(layer).store.grad, before)
    layer.backward(y)  # the pass before is still there


def test_wrong_arguments_are_named():
    layer = cylstm.LSTM(3, 4)
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN layer, got Linear"):
        gradient_flow(cylstm.Linear(3, 4), np.zeros((5, 2, 3)))
    with pytest.raises(ValueError, match="x: expected at least one step"):
        gradient_flow(layer, np.zeros((0, 2, 3)))
    with pytest.raises(ValueError, match="dy: expected T, B = 5, 2"):
        gradient_flow(layer, np.zeros((5, 2, 3)), np.zeros((4, 2, 4)))


def test_flows_are_drawn(tmp_path, rng):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the picture")
    x = rng.standard_normal((30, 4, 3))
    flows = {t.__name__: gradient_flow(t(3, 8, seed=0), x) for t in (cylstm.RNN, cylstm.GRU, cylstm.LSTM)}
    plot_gradient_flow(tmp_path / "flow.png", flows)
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_the_flow_of_packed_sequences_starts_at_their_own_ends(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    norms = gradient_flow(layer, cylstm.data.pack([rng.standard_normal((n, 3)) for n in (5, 2, 0)]))
    alone = [gradient_flow(layer, np.zeros((n, 1, 3)))[0, -1] for n in (5, 2)]
    assert norms[0, 4] == pytest.approx(alone[0]) == 2.0  # the root of 4 units
    assert norms[0, 1] > 2.0


def test_looking_takes_the_memory_of_one_gradient(rng):
    """And, on the packed path, of the weights in panels for both ways through the layer."""
    layer = cylstm.LSTM(32, 32, num_layers=16, seed=0)
    x = np.zeros((1, 1, 32))
    layer.trace(x)
    assert peak_of(lambda: layer.trace(x)) < 5 * describe(layer).store.data.nbytes
