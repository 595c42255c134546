"""Models from PyTorch and back: the same values and gradients in float64, refusals by name."""

import pickle
import re

import numpy as np
import pytest
import tolerances

import cylstm
from cylstm import convert
from cylstm.convert import _state_dict
from cylstm.convert._common import GATES, reordered

pytestmark = pytest.mark.peer

T, B, I, H, V = 7, 4, 3, 5, 11


def modules(torch):
    nn = torch.nn
    return {
        "lstm": nn.LSTM(I, H, 2, bidirectional=True, dropout=0.1),
        "projected": nn.Sequential(nn.LSTM(I, H, 2, proj_size=2, batch_first=True)),
        "gru": nn.GRU(I, H, batch_first=True),
        "rnn": nn.RNN(I, H, bias=False),
        "relu": nn.RNN(I, H, 2, nonlinearity="relu"),
        "words": nn.Sequential(
            nn.Embedding(V, I, padding_idx=0), nn.Dropout(0.3), nn.LayerNorm(I), nn.LSTM(I, H)
        ),
        "dense": nn.Sequential(
            nn.Linear(I, H, bias=False), nn.LayerNorm(H, 1e-3, bias=False), nn.Tanh(), nn.Identity(),
            nn.Sequential(nn.Linear(H, 2), nn.LogSoftmax(dim=-1)),
        ),
    }  # fmt: skip


ACTIVATIONS = {
    "ReLU": {}, "Tanh": {}, "Sigmoid": {}, "Softmax": {"dim": -1}, "LogSoftmax": {"dim": -1}, "SiLU": {},
    "LeakyReLU": {"negative_slope": 0.3}, "ELU": {"alpha": 0.6}, "SELU": {}, "GELU": {}, "Softplus": {},
    "Softsign": {}, "Hardsigmoid": {},
}  # fmt: skip


def random_weights(module, torch):
    """float64, and none left at the 0 or 1 at which some begin."""
    generator = torch.Generator().manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator, dtype=torch.float64) * 0.3)
    return module.train(False)


def by_torch(module, x, torch):
    """y of a module, whose recurrent layers give a tuple."""
    for layer in module if isinstance(module, torch.nn.Sequential) else [module]:
        x = by_torch(layer, x, torch) if isinstance(layer, torch.nn.Sequential) else layer(x)
        x = x[0] if isinstance(x, tuple) else x
    return x


@pytest.mark.parametrize("name", ["lstm", "projected", "gru", "rnn", "relu", "words", "dense"])
def test_values_and_gradients_are_those_of_torch(rng, torch, name):
    module = random_weights(modules(torch)[name], torch)
    if name == "words":
        with pytest.warns(UserWarning, match="Embedding: padding_idx=0 has no equivalent in cylstm"):
            model = cylstm.from_torch(module).train()
    else:
        model = cylstm.from_torch(module).train()
    for layer in model.layers:
        layer.dropout = 0.0
        if isinstance(layer, cylstm.Dropout):
            layer.p = 0.0
    x = rng.integers(0, V, (T, B)) if model.reads_indices else rng.standard_normal((T, B, I))
    x_torch = torch.tensor(x, requires_grad=not model.reads_indices)
    expected = by_torch(module, x_torch, torch)
    y, _ = model(x)
    assert model.dtype == np.float64
    np.testing.assert_allclose(y, expected.detach().numpy(), **tolerances.TORCH)
    dy = rng.standard_normal(y.shape)
    dx, _ = model.backward(dy)
    expected.backward(torch.tensor(dy))
    if dx is not None:
        np.testing.assert_allclose(dx, x_torch.grad.numpy(), **tolerances.TORCH)
    theirs = [value.grad.numpy() for value in module.parameters()]
    if name == "words":
        theirs[0][0] = model.gradients["0.weight"][0]  # PyTorch leaves the padding's vector as it is
    ours = [value for key, value in model.gradients.items() if not (name == "dense" and key == "1.bias")]
    assert len(ours) == len(theirs) > 0
    for value, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(value, other, **tolerances.TORCH)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_those_of_torch(rng, torch, kind):
    module = torch.nn.Sequential(torch.nn.Linear(I, H), getattr(torch.nn, kind)(**ACTIVATIONS[kind])).double()
    x = rng.standard_normal((T, I)) * 4
    expected = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(cylstm.from_torch(module)(x)[0], expected, **tolerances.TORCH)


def tagger(torch):
    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(V, I)
            self.lstm = torch.nn.LSTM(I, H, bidirectional=True, batch_first=True)
            self.fc = torch.nn.Linear(2 * H, 2)

        def forward(self, x):
            return self.fc(self.lstm(self.words(x))[0])

    return Tagger()


def test_custom_module_is_converted_in_registration_order(rng, torch):
    module, x = tagger(torch), rng.integers(0, V, (B, T))
    with pytest.warns(
        UserWarning, match="Tagger: its forward cannot be read; .* registered: words, lstm, fc"
    ):
        model = cylstm.from_torch(module)
    expected = module(torch.tensor(x)).detach().numpy()
    limits = tolerances.float32(I + 2 * H, T, 1.0)
    assert model.dtype == np.float32
    np.testing.assert_allclose(model(x)[0], expected, **limits)
    again = cylstm.from_torch(module.state_dict(), batch_first=True)
    np.testing.assert_array_equal(again(x)[0], model(x)[0])


def test_files_of_torch_are_read_and_written(tmp_path, rng, torch):
    from safetensors.torch import load_file, save_file

    module, x = tagger(torch), rng.integers(0, V, (B, T))
    save_file(module.state_dict(), tmp_path / "tagger.safetensors")  # in another order
    model = cylstm.from_torch(tmp_path / "tagger.safetensors", batch_first=True)
    convert.to_safetensors(model, tmp_path / "back.safetensors", names=["words", "lstm", "fc"])
    other = tagger(torch)
    other.load_state_dict(load_file(tmp_path / "back.safetensors"))
    np.testing.assert_array_equal(other(torch.tensor(x)).detach(), module(torch.tensor(x)).detach())
    numbered = torch.nn.Sequential(torch.nn.Linear(H, H), torch.nn.Tanh(), torch.nn.Linear(H, H)).half()
    save_file(numbered.state_dict(), tmp_path / "numbered.safetensors")
    with pytest.warns(UserWarning, match="Linear layers without an activation in between: 0, 2"):
        read = cylstm.from_torch(tmp_path / "numbered.safetensors")
    np.testing.assert_array_equal(read.parameters["1.weight"], numbered[2].weight.detach().numpy())


def test_orders_of_gates():
    blocks = {name: np.arange(6).reshape(2, 3) + 10 * ord(name) for name in "ifgo"}
    onnx = np.concatenate([blocks[gate] for gate in GATES["onnx"]["LSTM"]])
    ours = reordered(onnx, GATES["onnx"]["LSTM"], GATES["torch"]["LSTM"])
    np.testing.assert_array_equal(ours, np.concatenate([blocks[gate] for gate in "ifgo"]))
    for kind in ("LSTM", "GRU", "RNN"):
        assert len({"".join(sorted(GATES[library][kind])) for library in GATES}) == 1


def weights(**shapes):
    return {name.replace("__", "."): np.ones(shape) for name, shape in shapes.items()}


LSTM_WEIGHTS = {"lstm__weight_ih_l0": (20, 3), "lstm__weight_hh_l0": (20, 5)}


@pytest.mark.parametrize(
    "state, message",
    [
        ({}, "expected 1 to 200 layers, got 0"),
        (weights(fc__weight=(3, 3)), "can be read in more than one way; give order="),
        (weights(bn__running_mean=(3,)), "bn: expected the weights of LSTM, GRU"),
        (weights(fc__weight=(2, 3), fc__bias=(2,), gc__weight=(2, 3), gc__bias=(2,)), "no order of its"),
        (weights(lstm__weight_ih_l0=(20, 3), lstm__weight_hh_l0=(9, 5)), "lstm: expected 4, 3 or 1 blocks"),
        (weights(lstm__weight_ih_l0=(20, 3), lstm__weight_hh_l0=(0, 0)), "lstm: expected 4, 3 or 1 blocks"),
        (weights(**LSTM_WEIGHTS, lstm__weight_hh_l7=(20, 5)), "LSTM lstm: expected the weights of 8 layers"),
        (weights(**LSTM_WEIGHTS, lstm__bias_ih_l0=(20,)), r"LSTM lstm: state: missing \['bias_hh_l0'\]"),
        ({"fc.weight": np.ones((2, 3), int)}, "fc.weight: expected floating-point numbers, got int64"),
    ],
)  # fmt: skip
def test_state_dicts_that_are_refused(state, message):
    with pytest.raises(convert.ConversionError, match=message):
        cylstm.from_torch(state)


def test_a_square_matrix_needs_an_order_or_a_neighbour():
    state = weights(words__weight=(V, 3), **LSTM_WEIGHTS)
    assert type(cylstm.from_torch(state).layers[0]) is cylstm.Embedding
    with pytest.raises(ValueError, match="order: expected each of"):
        cylstm.from_torch(state, order=["lstm"])
    swapped = dict(reversed(state.items()))
    with pytest.raises(convert.ConversionError, match="no order of its layers fits"):
        cylstm.from_torch(swapped)
    assert type(cylstm.from_torch(swapped, order=["words", "lstm"]).layers[0]) is cylstm.Embedding


def test_modules_that_are_refused(torch):
    nn = torch.nn
    shared = nn.Linear(3, 3)
    own = tagger(torch)
    own.scale = nn.Parameter(torch.ones(3))
    for module, message in [
        (nn.Sequential(nn.Conv1d(3, 3, 1)), "Conv1d 0: cylstm has no such layer"),
        (nn.Sequential(shared, shared), "Linear 1: is used twice"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1)), "Softmax 1: dim: expected -1, got 1"),
        (nn.Sequential(nn.Linear(3, 3), nn.GELU(approximate="tanh")), "GELU 1: approximate: expected 'none'"),
        (nn.Embedding(3, 3, max_norm=1.0), "Embedding: max_norm: expected None, got 1.0"),
        (nn.ModuleList([nn.Linear(3, 3)]), "ModuleList: cylstm has no such layer"),
        (nn.LSTMCell(3, 3), "LSTMCell: cylstm has no such layer"),
        (own, r"Tagger: has weights of its own, \['scale'\]"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)),
            "layer 1: expected to read the 4 outputs .*1 Linear 1",
        ),
    ]:
        with pytest.raises(convert.ConversionError, match=message):
            cylstm.from_torch(module)
    with pytest.raises(
        TypeError, match=r"source: expected a torch\.nn\.Module, a state dict or a path, got int"
    ):
        cylstm.from_torch(3)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, .* got the class LSTM$"):
        cylstm.from_torch(nn.LSTM)
    with pytest.raises(ValueError, match="expected none with a module"):
        cylstm.from_torch(nn.LSTM(3, 4), batch_first=True)


def test_files_that_are_refused(tmp_path, torch):
    torch.save({"weight": torch.ones(3)}, tmp_path / "m.pt")
    np.savez(tmp_path / "m.npz", np.ones(3))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"weight": np.ones(3)}))
    (tmp_path / "m.txt").write_bytes(b"nonsense, but enough of it")
    (tmp_path / "m.bin").write_bytes(bytes(range(256)))
    for name, message in [
        (
            "m.pt",
            "it is a PyTorch file, whose pickle could run arbitrary code; save its weights with safetensors",
        ),
        ("m.npz", "it is a NumPy archive"),
        ("m.pkl", "it is a pickle of NumPy arrays"),
        ("m.txt", "it is a text file"),
        ("m.bin", "not a readable safetensors file: it has no safetensors header"),
    ]:
        with pytest.raises(cylstm.ModelFileError, match=rf"{re.escape(name)}: .*{message}"):
            cylstm.from_torch(tmp_path / name)
    cylstm.save(cylstm.LSTM(3, 4), tmp_path / "ours.safetensors")
    with pytest.raises(cylstm.ModelFileError, match=r"a model of cylstm, which cylstm\.load reads"):
        cylstm.from_torch(tmp_path / "ours.safetensors")
    with pytest.raises(FileNotFoundError):
        cylstm.from_torch(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK"])
def test_a_header_whose_size_looks_like_a_pickle_is_read(start, tmp_path):
    header = b'{"weight":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'
    size, values = int.from_bytes(start, "little"), np.arange(6, dtype=np.float32)
    content = size.to_bytes(8, "little") + header.ljust(size) + values.tobytes()
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.warns(UserWarning, match="LayerNorm with eps=1e-05, not GroupNorm, RMSNorm or another eps"):
        model = cylstm.from_torch(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(model.parameters["0.weight"], values)


@pytest.mark.parametrize(
    "layer, message",
    [
        (
            cylstm.LSTM(3, 4, peephole=True),
            "model: peephole=True of LSTM has no equivalent in a state dict of PyT",
        ),
        (cylstm.Sequential(cylstm.GRU(3, 4, reset_after=False)), "layer 0: reset_after=False of GRU"),
        (cylstm.RNN(3, 4, clip=1.0), "model: clip=1.0 of RNN"),
        (cylstm.AdditiveAttention(3, 4), "model: AdditiveAttention has no equivalent"),
        (cylstm.RNN(3, 4, nonlinearity="relu"), "model: nonlinearity='relu' of RNN has no equivalent"),
        (cylstm.GRU(3, 4, zoneout=0.1), "model: zoneout=0.1 of GRU has no equivalent"),
        (cylstm.LayerNorm(3, 1e-3), "model: eps=0.001 of LayerNorm has no equivalent"),
        (cylstm.Embedding(5, 2, fields=3), "model: fields=3 of Embedding has no equivalent"),
        (
            cylstm.Sequential(cylstm.Sequential(cylstm.Residual(cylstm.GRU(3, 3)))),
            r"layer 0\.0: Residual has no equivalent in a state dict of PyTorch",
        ),
        (cylstm.Sequential(cylstm.GRU(3, 4), cylstm.Pooling("last")), "layer 1: Pooling has no equivalent"),
        (cylstm.Sequential(cylstm.Linear(3, 4), cylstm.Activation("relu")), "layer 1: Activation has no"),
    ],
)
def test_layers_without_torch_equivalent_are_rejected(layer, message, tmp_path):
    with pytest.raises(convert.ConversionError, match=message):
        convert.to_safetensors(layer, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_state_dict_round_trip(tmp_path, rng):
    model = cylstm.Sequential(
        cylstm.Embedding(V, I, seed=0),
        cylstm.Dropout(0.3),
        cylstm.LSTM(I, H, 2, proj_size=2, dropout=0.2, recurrent_dropout=0.1, bidirectional=True, seed=1),
        cylstm.LayerNorm(4),
        cylstm.Sequential(cylstm.RNN(4, 6, bias=False, seed=2), cylstm.Linear(6, 2, seed=3)),
    )
    convert.to_safetensors(model, tmp_path / "m.safetensors")
    x = rng.integers(0, V, (T, B))
    with pytest.warns(UserWarning, match=r"state dict: .* RNN with tanh: 4\.0 .*; LayerNorm with eps=1e-05"):
        again = cylstm.from_torch(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again(x)[0], model(x)[0])


def test_names_of_layers_are_checked(tmp_path):
    model = cylstm.Sequential(cylstm.Linear(3, 3), cylstm.Linear(3, 3))
    with pytest.raises(ValueError, match="names: expected one for each layer of a Sequential"):
        convert.to_safetensors(model, tmp_path / "m.safetensors", names=["a"])
    with pytest.raises(ValueError, match="names: expected another one for each layer"):
        convert.to_safetensors(model, tmp_path / "m.safetensors", names=["a", "a"])


def test_an_order_is_searched_in_bounded_time():
    possible = {f"layer{i}x": [_state_dict.Reading("LayerNorm", 4, 4)] for i in range(60)}
    possible["a"] = possible["b"] = [_state_dict.Reading("Linear", 5, 4)]  # of which one can stand first
    with pytest.raises(convert.ConversionError, match="more than one way"):
        _state_dict._chain(list(possible), possible, free=True)


def test_ambiguous_state_dict_error_names_options(rng, torch):
    """What cannot be known from names and shapes is read in one way, with a warning or as arguments say."""
    nn = torch.nn
    module = nn.RNN(I, H, nonlinearity="relu").double()
    x = rng.standard_normal((T, B, I))
    expected = module(torch.tensor(x))[0].detach().numpy()
    with pytest.warns(UserWarning, match=r"RNN with tanh: the only layer \(nonlinearity='tanh' or 'relu'\)"):
        cylstm.from_torch(module.state_dict())
    model = cylstm.from_torch(module.state_dict(), nonlinearity="relu")
    np.testing.assert_allclose(model(x)[0], expected, **tolerances.TORCH)
    cylstm.from_torch(module.state_dict(), nonlinearity="tanh")
    for layers, message in [
        ({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}, r"layers in their own order, a, b \(order=\); Linear"),
        (
            {"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)},
            "Linear layers without an activation in between: a, b",
        ),
        ({"lstm": nn.LSTM(3, 3), "fc": nn.Linear(3, 3)}, r"layers in their own order, lstm, fc \(order=\)"),
        ({"norm": nn.RMSNorm(3)}, "LayerNorm with eps=1e-05, not GroupNorm, RMSNorm or another eps: norm"),
    ]:
        with pytest.warns(UserWarning, match=message):
            cylstm.from_torch(nn.ModuleDict(layers).state_dict())
    cylstm.from_torch(nn.ModuleDict({"lstm": nn.LSTM(3, 4), "fc": nn.Linear(4, 2)}).state_dict())
    lstm_first = nn.ModuleDict({"lstm": nn.LSTM(3, 3), "fc": nn.Linear(3, 3)}).state_dict()
    cylstm.from_torch(lstm_first, order=["lstm", "fc"])


def test_layout_of_a_model_without_recurrent_layers(rng):
    state = {"words.weight": rng.standard_normal((V, 3)), "fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    model = cylstm.from_torch(state, batch_first=True)
    assert model.batch_first is True
    y, _ = model(rng.integers(0, V, (B, T)), lengths=[T, 1, 3, 2])
    assert (y != 0).all(axis=2).sum(axis=1).tolist() == [T, 1, 3, 2]


def test_options_of_modules_that_have_no_form_are_warned_of(torch):
    nn = torch.nn
    frozen = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    frozen[0].requires_grad_(False)
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda module, x, y: 2 * y)
    for module, message in [
        (
            nn.Embedding(5, 3, padding_idx=0),
            "padding_idx=0 has no equivalent in cylstm: that vector is trained like",
        ),
        (
            nn.Embedding(5, 3, scale_grad_by_freq=True),
            "scale_grad_by_freq=True has no equivalent .* no effect",
        ),
        (
            frozen,
            r"0\.weight, 0\.bias: requires_grad=False has no equivalent in cylstm; training changes them",
        ),
        (nn.Sequential(hooked), "Linear 0: its forward hooks are not read"),
    ]:
        with pytest.warns(UserWarning, match=message):
            cylstm.from_torch(module)
    with pytest.raises(convert.ConversionError, match=r"Softplus 0: threshold: expected 20, got 1"):
        cylstm.from_torch(nn.Sequential(nn.Softplus(threshold=1)))


@pytest.mark.filterwarnings("ignore")  # torch's
def test_quantised_modules_name_the_way_out(torch):
    module = torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.Linear(4, 2))
    quantised = torch.ao.quantization.quantize_dynamic(module, {torch.nn.LSTM, torch.nn.Linear})
    for part in (quantised, quantised[0], quantised[1], quantised[1].state_dict()):
        with pytest.raises(
            convert.ConversionError, match="is quantised; convert the module as it was before"
        ):
            cylstm.from_torch(part)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's
@pytest.mark.parametrize("wrap", ["DataParallel", "compile", "both"])
def test_wrapped_modules_and_their_state_dicts(wrap, rng, torch):
    inner = torch.nn.Sequential(torch.nn.LSTM(3, 4, batch_first=True), torch.nn.Linear(4, 2))
    wrapped = torch.compile(inner) if wrap != "DataParallel" else inner
    wrapped = torch.nn.DataParallel(wrapped) if wrap != "compile" else wrapped
    x = rng.standard_normal((B, T, 3)).astype("f4")
    y, _ = cylstm.from_torch(inner)(x)
    np.testing.assert_array_equal(cylstm.from_torch(wrapped)(x)[0], y)
    np.testing.assert_array_equal(cylstm.from_torch(torch.nn.Sequential(wrapped))(x)[0], y)
    state = wrapped.state_dict()
    assert any(name.startswith(("module.", "_orig_mod.")) for name in state)
    np.testing.assert_array_equal(cylstm.from_torch(state, batch_first=True)(x)[0], y)


def test_checkpoints_name_the_entry_to_pass(torch):
    module = torch.nn.Linear(3, 2)
    state = module.state_dict()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    for source, message in [
        ({"epoch": 3, "model_state_dict": state, "optimizer": optimizer.state_dict()},
         r"got a checkpoint with the keys \['epoch', 'model_state_dict', 'optimizer'\]; pass "
         r"source\['model_state_dict'\]$"),
        ({"model": module, "epoch": 3}, r"pass source\['model'\]$"),
        ({"encoder": state, "decoder": state}, r"pass source\['encoder'\] or source\['decoder'\]$"),
        ({**state, "epoch": 3}, "epoch: expected a tensor, got int; leave it out"),
    ]:  # fmt: skip
        with pytest.raises(convert.ConversionError, match=message):
            cylstm.from_torch(source)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_of_fewer_bits_are_read_exactly(dtype, tmp_path, rng, torch):
    from safetensors.torch import save_file

    module = torch.nn.LSTM(3, 5).to(getattr(torch, dtype))
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    expected = {name: value.float().numpy() for name, value in module.state_dict().items()}
    for source in (module, module.state_dict(), tmp_path / "m.safetensors"):
        parameters = cylstm.from_torch(source).parameters
        for name, value in expected.items():
            np.testing.assert_array_equal(parameters[f"0.{name}"], value)
            assert parameters[f"0.{name}"].dtype == np.float32


def test_files_of_8_bits_are_rejected_by_name(tmp_path, torch):
    from safetensors.torch import save_file

    for dtype, message in [
        (torch.float8_e4m3fn, "F8_E4M3; convert the tensors"),
        (torch.int8, "I8"),
    ]:
        save_file({"fc.weight": torch.ones(2, 3).to(dtype)}, tmp_path / "m.safetensors")
        with pytest.raises(
            convert.ConversionError, match=rf"fc.weight: expected F16, BF16, .* got {message}"
        ):
            cylstm.from_torch(tmp_path / "m.safetensors")


def test_a_stack_is_built_after_its_weights_are_checked():
    """One tensor of a name `_l199` among small ones makes no stack of 200 large layers."""
    state = weights(lstm__weight_ih_l0=(400, 3), lstm__weight_hh_l0=(400, 100))
    state |= {f"lstm.bias_l{k}": np.ones(1) for k in range(300)}
    with pytest.raises(convert.ConversionError, match="weight_hh_l1: expected the weights of 300 layers"):
        cylstm.from_torch(state)
