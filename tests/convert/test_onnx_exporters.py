"""ONNX files of other libraries' exporters: cylstm computes what they compute."""

import warnings

import numpy as np
import pytest
import tolerances

import cylstm
from cylstm import convert

pytestmark = pytest.mark.peer

pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are read with it")
T, B, I, H, V = 7, 4, 3, 6, 11


def modules(torch):
    """Modules by name, with what each gets besides x: "states", "lengths"."""
    nn = torch.nn

    class Tagger(nn.Module):
        def __init__(self, kind="LSTM", layers=2, batch_first=True, bidirectional=True):
            super().__init__()
            self.words = nn.Embedding(V, I)
            self.rnn = getattr(nn, kind)(I, H, layers, batch_first=batch_first, bidirectional=bidirectional)
            self.norm = nn.LayerNorm((1 + bidirectional) * H)
            self.fc = nn.Linear((1 + bidirectional) * H, 2)

        def forward(self, x):
            return torch.log_softmax(self.fc(self.norm(self.rnn(self.words(x))[0])), -1)

    class Classifier(nn.Module):
        def __init__(self, how, kind="LSTM", bidirectional=False):
            super().__init__()
            self.how = how
            self.rnn = getattr(nn, kind)(I, H, 2, batch_first=True, bidirectional=bidirectional)
            self.fc = nn.Linear((1 + bidirectional) * H, 5)
            self.out = nn.Linear(5, 3, bias=False)

        def forward(self, x):
            y, state = self.rnn(x)
            h = state[0] if isinstance(state, tuple) else state
            pooled = {
                "last": lambda: y[:, -1],
                "mean": lambda: y.mean(1),
                "max": lambda: torch.amax(y, 1),
                "h": lambda: h[-1],
                "ends": lambda: torch.cat([h[-2], h[-1]], 1),
            }[self.how]()
            return torch.softmax(self.out(torch.relu(self.fc(pooled))), 1)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.above, self.fc = nn.GRU(I, H), nn.GRU(H, H), nn.Linear(H, 2)

        def forward(self, x):
            y = self.below(x)[0]
            return self.fc(nn.functional.gelu(y + self.above(y)[0]) * 0.5 + 1)

    class Stateful(nn.Module):
        def __init__(self, kind, layers, bidirectional=False):
            super().__init__()
            self.rnn = getattr(nn, kind)(I, H, layers, bidirectional=bidirectional)

        def forward(self, x, *state):
            y, final = self.rnn(x, state if len(state) == 2 else state[0])
            return (y, *(final if isinstance(final, tuple) else (final,)))

    return {
        "lstm": nn.LSTM(I, H),
        "gru": nn.GRU(I, H, 2, bidirectional=True),
        "rnn": nn.RNN(I, H, 2, batch_first=True, bias=False),
        "relu": nn.RNN(I, H, nonlinearity="relu", bidirectional=True, batch_first=True),
        "tagger": Tagger(),
        "tagger gru": Tagger("GRU", 1, False, False),
        "last": Classifier("last"),
        "mean": Classifier("mean", "GRU"),
        "max": Classifier("max", "RNN", True),
        "h": Classifier("h"),
        "h gru": Classifier("h", "GRU"),
        "ends": Classifier("ends", bidirectional=True),
        "ends gru": Classifier("ends", "GRU", True),
        "residual": Residual(),
        "silu": nn.Sequential(nn.Linear(I, H), nn.SiLU(), nn.Linear(H, 2, bias=False), nn.ELU(0.5)),
        "stateful lstm": Stateful("LSTM", 2, True),
        "stateful gru": Stateful("GRU", 3),
    }


NAMES = [
    "lstm", "gru", "rnn", "relu", "tagger", "tagger gru", "last", "mean", "max", "h", "h gru", "ends",
    "ends gru", "residual", "silu", "stateful lstm", "stateful gru",
]  # fmt: skip


def exported(torch, module, arguments, path, dynamo, dynamic):
    """The file of a module, for any T and B if it is dynamic."""
    options = {"input_names": ["x", "h_0", "c_0"][: len(arguments)], "opset_version": 18}
    if dynamic and dynamo:
        steps, batch = torch.export.Dim("steps", min=2), torch.export.Dim("batch", min=2)
        outer = {0: batch, 1: steps} if getattr(module, "batch", False) else {0: steps, 1: batch}
        shapes = [outer, *[{1: batch}] * (len(arguments) - 1)]
        varied = any(p.kind == p.VAR_POSITIONAL for p in signature(module))
        options["dynamic_shapes"] = (shapes[0], tuple(shapes[1:])) if varied else tuple(shapes)
    elif dynamic:
        names = {0: "batch", 1: "steps"} if getattr(module, "batch", False) else {0: "steps", 1: "batch"}
        options["dynamic_axes"] = {"x": names, "h_0": {1: "batch"}, "c_0": {1: "batch"}}
        options["dynamic_axes"] = {name: options["dynamic_axes"][name] for name in options["input_names"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), arguments, path, dynamo=dynamo, verbose=False, **options)


def signature(module):
    import inspect

    return inspect.signature(module.forward).parameters.values()


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_exports_of_torch(rng, torch, name, dynamo, dynamic, tmp_path, monkeypatch):
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed; torch's new exporter needs it")
    torch.manual_seed(0)
    module = modules(torch)[name]
    layers = [layer for layer in module.modules() if getattr(layer, "batch_first", False)]
    module.batch = bool(layers)
    shape = (B, T) if layers else (T, B)
    x = rng.integers(0, V, shape) if "tagger" in name else rng.standard_normal((*shape, I)).astype("float32")
    states = []
    if "stateful" in name:
        rnn = module.rnn
        rows = rnn.num_layers * (2 if rnn.bidirectional else 1)
        count = 2 if "lstm" in name else 1
        states = [rng.standard_normal((rows, B, H)).astype("float32") for _ in range(count)]
    path = tmp_path / "m.onnx"
    exported(torch, module, tuple(map(torch.tensor, (x, *states))), path, dynamo, dynamic)
    if dynamo and name in ("relu", "max"):  # torch unrolls these, and their directions are no chain
        with pytest.raises(convert.ConversionError, match="cylstm's layers are a chain"):
            cylstm.from_onnx(path)
        return
    model = cylstm.from_onnx(path)
    with torch.no_grad():
        expected = module(*map(torch.tensor, (x, *states)))
    expected = expected if isinstance(expected, tuple) else (expected,)
    state = None if not states else tuple(states) if len(states) > 1 else states[0]
    y, (final, *_) = model(x, None if state is None else (state,))
    limits = tolerances.float32(I + 2 * H, T, 1.0)
    np.testing.assert_allclose(y, expected[0].detach(), **limits)
    if states:
        finals = final if isinstance(final, tuple) else (final,)
        for value, other in zip(finals, expected[1:], strict=True):
            np.testing.assert_allclose(value, other, **limits)
    convert.to_onnx(model, tmp_path / "again.onnx")
    again = cylstm.from_onnx(tmp_path / "again.onnx")
    np.testing.assert_array_equal(again(x, None if state is None else (state,))[0], y)
