"""The command `cylstm convert`: every kind in and out, errors in one line."""

import json
import pickle

import numpy as np
import pytest

import cylstm
from cylstm import cli, convert
from cylstm.data import StandardScaler


def model():
    return cylstm.Sequential(cylstm.GRU(3, 4, bidirectional=True, seed=0), cylstm.Linear(8, 2, seed=1))


def run(capsys, *arguments):
    status = cli.main(["convert", *map(str, arguments)])
    return status, capsys.readouterr()


def test_to_onnx_and_back_and_to_torch_and_back(tmp_path, rng, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
    x, ours = rng.standard_normal((5, 2, 3)), model()
    cylstm.save(ours, tmp_path / "a.safetensors")
    assert run(capsys, tmp_path / "a.safetensors", tmp_path / "b.onnx")[0] == 0
    status, printed = run(capsys, tmp_path / "b.onnx", tmp_path / "c.safetensors", "--json")
    assert status == 0
    report = json.loads(printed.out)
    assert report["kind"] == "cylstm"
    assert [layer["to"].split("(")[0] for layer in report["layers"]] == ["GRU", "Linear"]
    assert report["layers"][0]["from"].startswith("GRU ")
    status, printed = run(capsys, tmp_path / "c.safetensors", tmp_path / "d.safetensors", "--to", "torch")
    assert status == 0
    assert printed.out.startswith("GRU 0\n  GRU(input_size=3, hidden_size=4")
    assert printed.out.endswith("Saved " + str(tmp_path / "d.safetensors") + "\n")
    assert not cylstm.files.is_model(tmp_path / "d.safetensors")
    assert run(capsys, tmp_path / "d.safetensors", tmp_path / "e.safetensors")[0] == 0
    np.testing.assert_array_equal(cylstm.load(tmp_path / "e.safetensors")(x)[0], ours(x)[0])


def test_options_of_weights_alone(tmp_path, rng, capsys):
    layers = cylstm.Linear(3, 3, seed=0), cylstm.LSTM(3, 3, batch_first=True, seed=1)
    ours = cylstm.Sequential(*layers)
    convert.to_safetensors(ours, tmp_path / "w.safetensors", names=["x", "a"])
    status, printed = run(capsys, tmp_path / "w.safetensors", tmp_path / "m.safetensors")
    assert status == 1
    assert printed.err.startswith("cylstm: state dict: can be read in more than one way; give --order")
    options = ["--batch-first", "--order", "x", "a"]
    assert run(capsys, tmp_path / "w.safetensors", tmp_path / "m.safetensors", *options)[0] == 0
    x = rng.standard_normal((2, 5, 3))
    np.testing.assert_array_equal(cylstm.load(tmp_path / "m.safetensors")(x)[0], ours(x)[0])


def trained(path, **extra):
    """As `cylstm train` saves a network; scaled and with an extra."""
    ours = model()
    ours.scalers["x"] = StandardScaler().fit(np.arange(12.0).reshape(4, 3))
    ours.scalers["y"] = StandardScaler().fit(np.eye(2))
    cylstm.save(ours, path, extra=extra)
    return ours


CLASSES = "the names of the classes and of the columns"


def test_unwritten_outputs_are_reported(tmp_path, rng, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
    path = tmp_path / "a.safetensors"
    ours = trained(path, classifier={"classes": ["a", "b"], "columns": []}, note=1)
    y = "the scaling of y (StandardScaler, 2 features)"
    status, printed = run(capsys, path, tmp_path / "a.onnx")
    assert status == 0
    assert printed.out.splitlines()[-2] == f"Not in the file: {CLASSES}; the extra 'note'"
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    expected = ours.scalers["y"].inverse(ours(ours.scalers["x"].transform(x))[0])
    np.testing.assert_allclose(cylstm.from_onnx(tmp_path / "a.onnx")(x)[0], expected, rtol=1e-4, atol=1e-5)
    status, printed = run(capsys, path, tmp_path / "w.safetensors", "--to", "torch", "--json")
    x_too = "the scaling of x (StandardScaler, 3 features)"
    assert (status, json.loads(printed.out)["not_in_the_file"]) == (
        0,
        [x_too, y, CLASSES, "the extra 'note'"],
    )
    status, printed = run(capsys, tmp_path / "w.safetensors", tmp_path / "b.safetensors")
    assert (status, "Not in the file" in printed.out) == (0, False)


@pytest.mark.filterwarnings("ignore:state dict")
def test_the_nonlinearity_of_weights_is_an_option(tmp_path, rng, capsys):
    rnn = cylstm.RNN(3, 4, seed=0)
    convert.to_safetensors(rnn, tmp_path / "w.safetensors")
    for options, expected in [((), "tanh"), (("--nonlinearity", "relu"), "relu")]:
        status, _ = run(capsys, tmp_path / "w.safetensors", tmp_path / "m.safetensors", *options)
        assert status == 0
        assert cylstm.load(tmp_path / "m.safetensors").layers[0].nonlinearity == expected


def test_a_layer_by_itself_keeps_its_scaler(tmp_path, capsys):
    layer = cylstm.RNN(1, 2)
    layer.scalers["x"] = StandardScaler().fit([1.0, 2.0])
    cylstm.save(layer, tmp_path / "a.safetensors")
    status, printed = run(capsys, tmp_path / "a.safetensors", tmp_path / "w.safetensors", "--to", "torch")
    assert status == 0
    assert "Not in the file: the scaling of x (StandardScaler, 1 features)\n" in printed.out


def test_a_model_of_cylstm_is_not_written_again(tmp_path, capsys):
    trained(tmp_path / "a.safetensors", classifier={})
    status, printed = run(capsys, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert status == 1
    assert printed.err.endswith("a.safetensors: already a model file of cylstm; copy it\n")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        (
            "a.safetensors",
            "w.safetensors",
            ["--to", "torch", "--lengths"],
            "--lengths: only for ONNX as output",
        ),
        ("w.safetensors", "b.safetensors", ["--states"], "--states: only for ONNX as output"),
        ("a.safetensors", "a.onnx", ["--config", "c.json"], "--config: only for files of Keras"),
        ("w.safetensors", "b.safetensors", ["--config", ""], "--config: only for files of Keras"),
        ("a.safetensors", "a.onnx", ["--order", "x"], "--order: only for weights with PyTorch's names"),
        (
            "a.onnx",
            "b.safetensors",
            ["--batch-first"],
            "--batch-first: only for weights with PyTorch's names",
        ),
        (
            "a.keras",
            "b.safetensors",
            ["--batch-first"],
            "--batch-first: only for weights with PyTorch's names",
        ),
    ],
)
def test_options_that_do_not_belong_are_refused(source, target, options, message, tmp_path, capsys):
    cylstm.save(model(), tmp_path / "a.safetensors")
    convert.to_safetensors(model(), tmp_path / "w.safetensors")
    before = sorted(tmp_path.iterdir())
    status, printed = run(capsys, tmp_path / source, tmp_path / f"new.{target}", *options)
    assert (status, printed.err) == (1, f"cylstm: {message}; leave it out\n")
    assert sorted(tmp_path.iterdir()) == before


def refused(capsys, source, target, message):
    status, printed = run(capsys, source, target)
    assert (status, printed.out) == (1, "")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert target == source or not target.exists()


def test_conversion_error_is_one_line(tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
    cylstm.save(cylstm.LSTM(3, 4, proj_size=2), tmp_path / "p.safetensors")
    message = "layer 0: proj_size=2 of LSTM has no form in ONNX"
    refused(capsys, tmp_path / "p.safetensors", tmp_path / "p.onnx", message)


def test_a_pipe_is_a_line(pipe, tmp_path, capsys):
    pipe = pipe.rename(tmp_path / "pipe.safetensors")
    refused(capsys, pipe, tmp_path / "m.safetensors", "pipe.safetensors: not a regular file")


def test_faults_are_one_line(tmp_path, capsys):
    cylstm.save(cylstm.LSTM(3, 4, proj_size=2), tmp_path / "p.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    (tmp_path / "x.pt").write_bytes(b"PK")
    for source, target, message in [
        ("bad.safetensors", "m.safetensors", "not a readable safetensors file"),
        ("x.pt", "m.safetensors", "expected a name that ends in .onnx, .keras, .weights.h5 or .safetensors"),
        ("p.safetensors", "m.keras", "expected a name that ends in .onnx or .safetensors"),
        ("missing.safetensors", "m.safetensors", "No such file or directory"),
        ("p.safetensors", "p.safetensors", "would be overwritten"),
    ]:
        refused(capsys, tmp_path / source, tmp_path / target, message)


def test_messages_name_options_of_the_command(tmp_path, capsys):
    layers = cylstm.Linear(3, 3, seed=0), cylstm.LSTM(3, 3, seed=1)
    convert.to_safetensors(cylstm.Sequential(*layers), tmp_path / "w.safetensors", names=["x", "a"])
    status, printed = run(capsys, tmp_path / "w.safetensors", tmp_path / "m.safetensors")
    assert status == 1
    assert printed.err.startswith(
        "cylstm: state dict: can be read in more than one way; give --order; kinds and"
    )
    assert "order=" not in printed.err
    assert "module itself" not in printed.err


def test_a_file_of_another_kind_is_named(tmp_path, capsys):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": np.zeros(3)}))
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps({"w": np.zeros(3)}))
    for name in ("w.pkl", "w.safetensors"):
        status, printed = run(capsys, tmp_path / name, tmp_path / "m.safetensors")
        assert status == 1
        assert (
            "a pickle of NumPy arrays, which could run arbitrary code; save weights, under PyTorch's"
            in printed.err
        )


def test_file_content_takes_precedence_over_name(tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
    convert.to_onnx(model(), tmp_path / "a.safetensors")
    assert run(capsys, tmp_path / "a.safetensors", tmp_path / "b.safetensors")[0] == 0
    assert len(cylstm.load(tmp_path / "b.safetensors").layers) == 2
