"""Constructors of layers: unknown options, options without effect, and who is warned of them."""

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest

import cylstm

RECURRENT = [cylstm.LSTM, cylstm.GRU, cylstm.RNN]


class Own(cylstm.GRU):
    pass


@pytest.mark.parametrize("layer", [*RECURRENT, Own])
def test_unknown_option_suggests_closest_name(layer):
    for wrong, right in {"hiden_size": "hidden_size", "units": "hidden_size", "use_bias": "bias"}.items():
        with pytest.raises(
            TypeError, match=f"^{layer.__name__}: no option {wrong}; did you mean {right}\\?$"
        ):
            layer(3, 4, **{wrong: 5})
    with pytest.raises(
        TypeError, match=f"^{layer.__name__}: no option stateful; options are batch_first, bias,"
    ):
        layer(3, 4, stateful=True)


def test_another_activation_is_an_option_of_rnn_only():
    with pytest.raises(TypeError, match=r"^RNN: no option activation; did you mean nonlinearity\?$"):
        cylstm.RNN(3, 4, activation="relu")
    with pytest.raises(TypeError, match=r"^LSTM: no option activation; options are ") as error:
        cylstm.LSTM(3, 4, activation="relu")
    assert "peephole" in str(error.value)
    assert "nonlinearity" not in str(error.value)


@pytest.mark.parametrize("layer", RECURRENT)
def test_errors_and_signature_are_those_of_the_class(layer):
    with pytest.raises(TypeError, match=rf"^{layer.__name__}.__init__\(\) missing 2 required"):
        layer()
    with pytest.raises(TypeError, match=rf"^{layer.__name__}.__init__\(\) takes from 3 to 9 positional"):
        layer(1, 2, 3, True, False, 0, False, 0, "float32")
    assert list(inspect.signature(layer).parameters)[:3] == ["input_size", "hidden_size", "num_layers"]


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, caught


@pytest.mark.parametrize("layer", RECURRENT)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"reverse": True}])
def test_dropout_of_one_layer_warns_at_the_caller_s_line(layer, options):
    _, (warning,) = warnings_of(lambda: layer(3, 4, dropout=0.5, **options))
    assert str(warning.message).startswith("dropout: 0.5 has no effect: it acts between layers")
    assert warning.category is UserWarning
    assert warning.filename == __file__
    assert not warnings_of(lambda: layer(3, 4, 2, dropout=0.5, **options))[1]


def test_a_causal_query_of_the_last_step_warns():
    for make in (
        lambda: cylstm.MultiplicativeAttention(4, "last", True),
        lambda: cylstm.AdditiveAttention(4, 3, "last", causal=True),
        lambda: cylstm.MultiHeadAttention(4, 2, "last", causal=True),
    ):
        _, (warning,) = warnings_of(make)
        assert str(warning.message).startswith("causal: True has no effect: ")
        assert warning.filename == __file__


def test_a_norm_of_one_number_warns():
    layer, (warning,) = warnings_of(lambda: cylstm.LayerNorm(1))
    assert str(warning.message).startswith("features: with 1 feature the normalised value is always 0")
    assert warning.filename == __file__
    assert layer(np.array([[3.0], [5.0]])).tolist() == [[0.0], [0.0]]
    assert not warnings_of(lambda: copy.copy(layer))[1]
    assert not warnings_of(lambda: cylstm.LayerNorm(2))[1]


def test_copies_pickles_and_files_do_not_warn(tmp_path):
    layer, _ = warnings_of(lambda: cylstm.LSTM(3, 4, dropout=0.5, seed=0))
    model = cylstm.Sequential(layer, cylstm.Linear(4, 1, seed=0))

    def restored():
        cylstm.save(model, tmp_path / "m.safetensors")
        return (
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            cylstm.load(tmp_path / "m.safetensors"),
        )

    others, caught = warnings_of(restored)
    assert not caught
    assert [other.layers[0].dropout for other in others] == [0.5] * 3


def test_defaults_of_tasks_do_not_warn():
    from cylstm.classification import network
    from cylstm.text import CharacterModel

    seeds = iter(range(9))
    model, caught = warnings_of(lambda: network.build(2, 3, seeds.__next__))
    assert not caught
    assert model.layers[1].dropout == 0.3
    model = CharacterModel(hidden_size=4, num_layers=1, dropout=0.5)
    _, caught = warnings_of(lambda: model.fit("ab" * 200, epochs=1, batch_size=2, length=4, progress=False))
    assert not caught


def test_a_model_of_pytorch_does_not_warn_again(torch):
    module, _ = warnings_of(lambda: torch.nn.LSTM(3, 4, dropout=0.5))
    layer, caught = warnings_of(lambda: cylstm.from_torch(module))
    assert not caught
    x = np.ones((2, 1, 3), np.float32)
    np.testing.assert_allclose(layer(x)[0], module(torch.tensor(x))[0].detach().numpy(), atol=1e-6)


def test_a_warning_after_a_quiet_construction_is_given():
    copy.copy(cylstm.LSTM(3, 4))
    with pytest.warns(UserWarning, match="dropout: 0.1 has no effect"):
        cylstm.GRU(3, 4, dropout=0.1)
