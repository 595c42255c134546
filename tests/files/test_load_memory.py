"""Loading and copying draw no initial parameters, and take little more memory than the parameters."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from memory import peak_of

import cylstm
from cylstm.layers.base import LAYER_TYPES

MOST = 2.2  # times the bytes of the parameters
DRAWN = {
    "Embedding": lambda **options: cylstm.Embedding(2000, 250, **options),
    "LSTM": lambda **options: cylstm.LSTM(300, 200, bidirectional=True, **options),
    "GRU": lambda **options: cylstm.GRU(400, 250, layer_norm=False, **options),
    "RNN": lambda **options: cylstm.RNN(600, 500, **options),
    "Linear": lambda **options: cylstm.Linear(700, 700, **options),
    "AdditiveAttention": lambda **options: cylstm.AdditiveAttention(400, 700, **options),
    "MultiHeadAttention": lambda **options: cylstm.MultiHeadAttention(360, 4, **options),
    "nested": lambda **options: cylstm.Sequential(
        cylstm.Embedding(1000, 300, **options),
        cylstm.Sequential(cylstm.Residual(cylstm.LSTM(300, 300, **options)), cylstm.Linear(300, 300)),
    ),
}


def bytes_of(model):
    return sum(array.nbytes for array in model.parameters.values())


@pytest.mark.parametrize("name", DRAWN)
def test_loading_and_copying_take_little_memory(name, tmp_path):
    model, path = DRAWN[name](seed=0), tmp_path / "m.safetensors"
    size = bytes_of(model)
    assert size > 1e6
    cylstm.save(model, path)
    pickled = pickle.dumps(model)
    results = []
    ways = {
        "load": lambda: results.append(cylstm.load(path)),
        "copy": lambda: results.append(copy.copy(model)),
        "deepcopy": lambda: results.append(copy.deepcopy(model)),
        "pickle": lambda: results.append(pickle.loads(pickled)),
    }
    for way, call in ways.items():
        assert peak_of(call) < MOST * size, way
        assert results[-1].training == model.training
        for parameter, value in results.pop().parameters.items():
            np.testing.assert_array_equal(value, model.parameters[parameter])


def test_session_of_a_model_takes_a_copy_and_packed_weights(monkeypatch):
    model = cylstm.LSTM(400, 400, seed=0)
    assert peak_of(lambda: cylstm.Session(model, threads=1)) < 2.5 * bytes_of(model)


def test_from_torch_takes_little_memory(tmp_path):
    model, path = (
        cylstm.Sequential(cylstm.LSTM(300, 200, seed=0), cylstm.Linear(200, 500, seed=1)),
        tmp_path / "w",
    )
    cylstm.convert.to_safetensors(model, path, names=["lstm", "fc"])
    found = []
    assert peak_of(lambda: found.append(cylstm.from_torch(path))) < 3.2 * bytes_of(
        model
    )  # with the state dict
    for name, value in found[0].parameters.items():
        np.testing.assert_array_equal(value, model.parameters[name])


def test_loading_draws_no_random_numbers(tmp_path, monkeypatch):
    model, path = DRAWN["nested"](seed=0), tmp_path / "m.safetensors"
    cylstm.save(model, path)

    def drawn(*_):
        raise AssertionError("initial parameters were drawn")

    monkeypatch.setattr("cylstm.layers.parameters.fill_random", drawn)
    for module in ("recurrent.base", "layers.linear", "layers.embedding"):
        monkeypatch.setattr(f"cylstm.{module}.fill_random", drawn)
    copy.deepcopy(cylstm.load(path))
    with pytest.raises(AssertionError, match="initial parameters were drawn"):
        cylstm.Linear(2, 3)


@pytest.mark.parametrize("kind", ["Embedding", "LSTM", "Linear", "AdditiveAttention"])
def test_initial_parameters_are_independent_of_block_size(kind, monkeypatch):
    expected = DRAWN[kind](seed=3).state_dict()
    monkeypatch.setattr("cylstm.layers.parameters.DRAW_CHUNK", 999)
    for name, value in DRAWN[kind](seed=3).parameters.items():
        np.testing.assert_array_equal(value, expected[name])


def test_inference_allocates_no_gradients():
    model = cylstm.Sequential(cylstm.LSTM(30, 40, seed=0), cylstm.Linear(40, 5, seed=1))
    size = bytes_of(model)
    model = copy.copy(model)
    assert (
        peak_of(lambda: [model.gradients, model.zero_grad()]) >= size
    )  # which are there once they are asked for
    model = copy.copy(model)
    model(np.zeros((2, 1, 30)))  # packs its weights
    assert peak_of(lambda: model(np.zeros((2, 1, 30)))) < size


def test_every_layer_with_drawn_parameters_has_a_case():
    drawn = {"Embedding", "LSTM", "GRU", "RNN", "Linear", "AdditiveAttention", "MultiHeadAttention"}
    plain = {
        "Activation",
        "Dropout",
        "LayerNorm",
        "Masked",
        "Pooling",
        "MultiplicativeAttention",
        "Sequential",
        "Residual",
    }
    activated = {name for name in LAYER_TYPES if name.startswith("Activated")}
    ours = {name for name, kind in LAYER_TYPES.items() if kind.__module__.startswith("cylstm.")}
    assert ours == drawn | plain | activated
    assert drawn <= set(DRAWN)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize(
    "call",
    [
        "cylstm.load(path)",
        "cylstm.from_torch(weights)",
        "cylstm.training.checkpoints.read(checkpoint)",
        "cylstm.save(model, path)",
    ],
)
def test_too_little_memory_is_a_memory_error(call, tmp_path):
    script = f"""
import os, resource
import numpy as np
import cylstm, cylstm.convert, cylstm.training.checkpoints
model = cylstm.Linear(5000, 5000, seed=0)
path, weights, checkpoint = [os.path.join({str(tmp_path)!r}, name) for name in "pwc"]
cylstm.save(model, path)
cylstm.convert.to_safetensors(cylstm.Sequential(cylstm.Linear(5000, 5000)), weights)
cylstm.training.checkpoints.write(checkpoint, {{"a": np.zeros(25_000_000, "f4")}}, {{}})
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (taken + 50_000_000, taken + 50_000_000))
try:
    {call}
except MemoryError as error:
    print("MemoryError")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (result.stdout, result.returncode) == ("MemoryError\n", 0), result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "p", "w"]
