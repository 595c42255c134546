"""Readers of other libraries meet damaged files: a model, or a refusal; no crash, no hang, no other error."""

import io
import json
import random
import time
import zipfile

import numpy as np
import pytest
from damage import damaged

import cylstm
from cylstm import convert

FILES = 1000  # damaged copies of each; verification/fuzz.py has tens of thousands
SECONDS = 5  # that reading one may take


def model():
    return cylstm.Sequential(
        cylstm.LSTM(3, 4, 2, bidirectional=True, seed=0), cylstm.Pooling("ends"), cylstm.Linear(8, 2, seed=1)
    )


def onnx_file(folder):
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are read with it")
    convert.to_onnx(model(), folder / "good.onnx", states=True)
    return "onnx", (folder / "good.onnx").read_bytes(), cylstm.from_onnx


def torch_file(folder):
    weights = cylstm.Sequential(cylstm.LSTM(3, 4, 2, bidirectional=True, seed=0), cylstm.Linear(8, 2, seed=1))
    convert.to_safetensors(weights, folder / "good.safetensors")
    return "safetensors", (folder / "good.safetensors").read_bytes(), cylstm.from_torch


def weights_file(folder):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; Keras' files are read with it")
    rng, content = np.random.default_rng(0), io.BytesIO()
    with h5py.File(content, "w") as file:
        shapes = {"lstm/cell": [(3, 16), (4, 16), (16,)], "dense": [(4, 2), (2,)]}
        for name, sizes in shapes.items():
            for number, size in enumerate(sizes):
                file[f"layers/{name}/vars/{number}"] = rng.standard_normal(size).astype("float32")
    return content.getvalue()


def config():
    lstm = {"name": "lstm", "units": 4, "activation": "tanh", "recurrent_activation": "sigmoid"}
    lstm |= {"use_bias": True, "return_sequences": False, "dropout": 0.0, "recurrent_dropout": 0.0}
    dense = {"name": "dense", "activation": "linear"}
    layers = [{"class_name": "LSTM", "config": lstm}, {"class_name": "Dense", "config": dense}]
    return json.dumps({"class_name": "Sequential", "config": {"layers": layers}})


def hdf5_file(folder):
    return "h5", weights_file(folder), lambda path: cylstm.from_keras(path, config=config())


def keras_file(folder):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("config.json", config())
        archive.writestr("model.weights.h5", weights_file(folder))
    return "keras", content.getvalue(), cylstm.from_keras


@pytest.mark.slow
@pytest.mark.parametrize("make", [onnx_file, torch_file, hdf5_file, keras_file])
@pytest.mark.filterwarnings("ignore")  # NumPy's, of what damaged weights hold
def test_damaged_files_are_read_or_refused(make, tmp_path):
    suffix, content, read = make(tmp_path)
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content)
    assert isinstance(read(path), cylstm.Sequential)
    rng, refused = random.Random(0), 0
    for _ in range(FILES):
        path.write_bytes(damaged(rng, content))
        start = time.perf_counter()
        try:
            read(path)
        except (cylstm.ModelFileError, convert.ConversionError):
            refused += 1
        assert time.perf_counter() - start < SECONDS
    assert FILES // 4 < refused <= FILES
