import numpy as np
import pytest
from problems import make

import cylstm
from cylstm.cells import CELLS
from cylstm.init import initialize


@pytest.mark.parametrize("cell", CELLS)
def test_each_gate_has_a_matrix_of_its_own(cell):
    layer = make(cell, 30, 20, 2, bidirectional=True, dtype="float64")
    initialize(layer, seed=0)
    for name, value in layer.parameters.items():
        if not name.startswith(("weight_ih", "weight_hh")):
            continue
        blocks = value.reshape(len(CELLS[cell].gates), 20, -1)
        for block in blocks:
            if name.startswith("weight_hh"):
                np.testing.assert_allclose(block @ block.T, np.eye(20), atol=1e-12)
            elif name.startswith("weight_ih"):
                bound = (6 / sum(block.shape)) ** 0.5
                assert 0.95 * bound < np.abs(block).max() <= bound
        if len(blocks) > 1:
            assert not np.allclose(blocks[0], blocks[1])


def test_only_the_forget_gate_of_an_lstm_starts_open():
    lstm, gru, bare = cylstm.LSTM(3, 4), cylstm.GRU(3, 4), cylstm.LSTM(3, 4, bias=False)
    for layer in (lstm, gru, bare):
        initialize(layer, forget_bias=2.0, seed=0)
    np.testing.assert_array_equal(lstm.parameters["bias_ih_l0"], [0] * 4 + [2] * 4 + [0] * 8)
    assert not lstm.parameters["bias_hh_l0"].any()
    assert not gru.parameters["bias_ih_l0"].any()


def test_other_kinds_and_seeds():
    one, two, other = cylstm.RNN(3, 100), cylstm.RNN(3, 100), cylstm.RNN(3, 100)
    for layer, seed in ((one, 1), (two, 1), (other, 2)):
        initialize(layer, "uniform", "glorot", seed=seed)
    np.testing.assert_array_equal(one._store.data, two._store.data)
    assert not np.array_equal(one._store.data, other._store.data)
    assert 0.095 < np.abs(one.parameters["weight_ih_l0"]).max() <= 0.1
    bound = (6 / 200) ** 0.5
    assert 0.98 * bound < np.abs(one.parameters["weight_hh_l0"]).max() <= bound


def test_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match=r"weights: expected one of \['glorot', 'uniform'\], got 'orthogonal'"
    ):
        initialize(cylstm.LSTM(3, 4), "orthogonal")
    with pytest.raises(ValueError, match="recurrent: expected one of"):
        initialize(cylstm.LSTM(3, 4), recurrent="zeros")
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN layer, got Linear"):
        initialize(cylstm.Linear(3, 4))


def test_what_is_no_weight_begins_as_nothing(rng):
    norm = cylstm.LSTM(3, 4, layer_norm=True, learn_state=True)
    norm.load_state_dict({name: rng.uniform(size=value.shape) for name, value in norm.parameters.items()})
    initialize(norm, forget_bias=2.0, seed=0)
    np.testing.assert_array_equal(norm.parameters["bias_l0"], [0] * 4 + [2] * 4 + [0] * 8)
    assert (norm.parameters["norm_hh_l0"] == 1).all()
    assert not norm.parameters["h_0_l0"].any()
    peephole = cylstm.LSTM(3, 4, peephole=True, coupled=True, proj_size=2)
    initialize(peephole, seed=0)
    assert not peephole.parameters["weight_ci_l0"].any()
    gate = peephole.parameters["weight_hh_l0"][:4]  # (4, 2): orthogonal columns
    np.testing.assert_allclose(gate.T @ gate, np.eye(2), atol=1e-6)
    assert 0 < np.abs(peephole.parameters["weight_hr_l0"]).max() <= 1
