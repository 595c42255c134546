import numpy as np
import pytest
from problems import make

import cylstm
from cylstm.init import initialize
from cylstm.layers.base import describe
from cylstm.recurrent.cells import CELLS


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
    for layer in (lstm, bare):
        initialize(layer, forget_bias=2.0, seed=0)
    with pytest.warns(
        UserWarning, match="forget_bias: 2.0 has no effect: there is no LSTM with a forget gate"
    ):
        initialize(gru, forget_bias=2.0, seed=0)
    np.testing.assert_array_equal(lstm.parameters["bias_ih_l0"], [0] * 4 + [2] * 4 + [0] * 8)
    assert not lstm.parameters["bias_hh_l0"].any()
    assert not gru.parameters["bias_ih_l0"].any()


def test_other_kinds_and_seeds():
    one, two, other = cylstm.RNN(3, 100), cylstm.RNN(3, 100), cylstm.RNN(3, 100)
    for layer, seed in ((one, 1), (two, 1), (other, 2)):
        initialize(layer, "uniform", "glorot", seed=seed)
    np.testing.assert_array_equal(describe(one).store.data, describe(two).store.data)
    assert not np.array_equal(describe(one).store.data, describe(other).store.data)
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
    with pytest.raises(TypeError, match="layer: expected a layer, got dict"):
        initialize({})
    with pytest.raises(ValueError, match="embedding_std: expected a number in"):
        initialize(cylstm.Embedding(3, 4), embedding_std=-1)


def test_non_weights_are_initialized_to_zero(rng):
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


def every_layer():
    """A layer of every type, with parameters that are not those of the start."""
    parts = [
        cylstm.Embedding(40, 12), cylstm.Residual(cylstm.Linear(12, 12), cylstm.Dropout(0.5)),
        cylstm.GRU(12, 12), cylstm.LSTM(12, 10, peephole=True), cylstm.Linear(10, 12), cylstm.LayerNorm(12),
        cylstm.MultiHeadAttention(12, 3), cylstm.MultiplicativeAttention(12), cylstm.AdditiveAttention(12, 6),
        cylstm.Activation("relu"), cylstm.Pooling("max"), cylstm.Linear(12, 2, bias=False),
    ]  # fmt: skip
    return cylstm.Sequential(*parts)


def test_every_layer_of_a_model_is_drawn(rng):
    model = every_layer()
    model.load_state_dict({name: rng.uniform(2, 3, value.shape) for name, value in model.parameters.items()})
    initialize(model, seed=0)
    p = model.parameters
    assert all(np.abs(value).max() < 2 for value in p.values())
    matrices = {name for name, value in p.items() if value.ndim == 2}
    assert all(np.abs(p[name]).max() > 0 for name in matrices)
    gains = {name for name in p if name == "5.weight"}
    forget = {"3.bias_ih_l0"}
    for name in set(p) - matrices:
        values = np.unique(p[name]).tolist()
        assert values == ([1] if name in gains else [0, 1] if name in forget else [0]), name


@pytest.mark.parametrize(
    "layer, name, block, bound",
    [
        (cylstm.Linear(30, 50), "weight", np.s_[:], (6 / 80) ** 0.5),
        (cylstm.MultiHeadAttention(40, 2), "in_proj_weight", np.s_[:40], (6 / 80) ** 0.5),
        (cylstm.MultiHeadAttention(40, 2), "in_proj_weight", np.s_[80:], (6 / 80) ** 0.5),
        (cylstm.AdditiveAttention(40, 20), "key_weight", np.s_[:], (6 / 60) ** 0.5),
    ],
)
def test_matrices_of_other_layers_have_glorot_s_bound(layer, name, block, bound):
    initialize(layer, seed=0)
    assert 0.95 * bound < np.abs(layer.parameters[name][block]).max() <= bound
    initialize(layer, "uniform", seed=0)
    bound = layer.input_size**-0.5
    assert 0.95 * bound < np.abs(layer.parameters[name][block]).max() <= bound


def test_embedding_std():
    for options, std in (({}, 0.1), ({"std": 0.5}, 0.5)):
        layer = cylstm.Embedding(1000, 20, seed=0, **options)
        assert layer.parameters["weight"].std() == pytest.approx(std, rel=0.02)
    initialize(layer, embedding_std=1.0, seed=0)
    assert layer.parameters["weight"].std() == pytest.approx(1, rel=0.02)


def test_a_model_is_drawn_alike_from_the_same_seed():
    one, two = every_layer(), every_layer()
    for model in (one, two):
        initialize(model, seed=3)
    np.testing.assert_array_equal(describe(one).store.data, describe(two).store.data)


def test_unknown_parameters_are_named_and_nothing_changes():
    class Mystery(cylstm.layers.row_layer.RowLayer, abstract=True):
        def __init__(self):
            super().__init__()
            self.input_size = self.output_size = 4
            self._store = cylstm.layers.parameters.ParameterStore({"gain": (4,)}, np.dtype("float32"))

    model = cylstm.Sequential(cylstm.Linear(3, 4, seed=0), Mystery())
    before = model.state_dict()
    with pytest.raises(TypeError, match=r"expected layers of cylstm.*got Mystery"):
        initialize(model, seed=1)
    assert all((before[name] == value).all() for name, value in model.parameters.items())
