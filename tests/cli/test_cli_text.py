"""The commands of texts: train --text, evaluate, sample."""

import json

import numpy as np
import pytest
from cli_runs import press_ctrl_c, train

from cylstm import cli
from cylstm.text import CharacterModel


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 100, encoding="utf-8")
    return path


def train_text(path, tmp_path, *options):
    output = str(tmp_path / "text.safetensors")
    quick = ["--epochs", "6", "--hidden", "24", "--batch", "4", "--length", "20", "--rate", "0.03"]
    return cli.main(["train", "--text", str(path), "--output", output, *quick, *options])


def test_a_model_of_text_is_trained_and_writes(text_file, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the picture")
    assert train_text(text_file, tmp_path, "--plot", str(tmp_path / "text.png")) == 0
    assert "nats per character" in capsys.readouterr().out
    assert (tmp_path / "text.png").exists()
    model = str(tmp_path / "text.safetensors")
    sampled = [
        "sample",
        model,
        "--prompt",
        "the c",
        "--characters",
        "20",
        "--temperature",
        "0.05",
        "--seed",
        "1",
    ]
    assert cli.main(sampled) == 0
    assert capsys.readouterr().out == "the cat sat on the mat. t\n"
    assert cli.main(["sample", model, "--prompt", "tZYt", "--characters", "1"]) == 0
    assert capsys.readouterr().err == ("cylstm: warning: --prompt: 'Y', 'Z' not in the training text\n")
    assert cli.main([*sampled, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"text": "the cat sat on the mat. t"}


def test_a_training_on_text_goes_on_from_its_checkpoint(text_file, tmp_path, capsys):
    saved = ["--checkpoint", str(tmp_path / "run.ckpt"), "--resume", "--json"]
    assert train_text(text_file, tmp_path, *saved) == 0
    first = json.loads(capsys.readouterr().out)
    assert train_text(text_file, tmp_path, *saved) == 0
    again = json.loads(capsys.readouterr().out)
    assert (first["epochs"], again["epochs"]) == (6, 6)
    assert first["nats"] == again["nats"] < 0.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--output", "x"], "train: expected one of: a CSV file, --classify FILE, --text FILE"),
        (
            ["train", "a.csv", "--text", "b", "--output", "x"],
            "train: expected one of: a CSV file, --classify FILE, --text FILE",
        ),
        (["train", "--text", "missing.txt", "--output", "x"], "missing.txt: No such file or directory"),
        (["sample", "x", "--characters", "-1"], "--characters: expected an int, 0 or more, got -1"),
        (["sample", "x", "--temperature", "0"], "--temperature: expected a number above 0, got 0"),
        (["sample", "x", "--seed", "-1"], "--seed: expected an int, 0 or more, got -1"),
        (["sample", "x", "--prompt", ""], "--prompt: expected at least one character, got none"),
        (["sample", "missing.safetensors"], "missing.safetensors: No such file or directory"),
    ],
)
def test_faults_of_text_commands_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err == f"cylstm: {message}\n"


def test_a_forecaster_is_no_model_of_text(table, tmp_path, capsys):
    output = str(tmp_path / "m.safetensors")
    assert train(table, "--columns", "a", "--output", output) == 0
    assert cli.main(["sample", output]) == 1
    assert "not a model of text, but of forecasts; use `cylstm predict`" in capsys.readouterr().err
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 400)
    assert train_text(tmp_path / "latin.txt", tmp_path) == 1
    assert "expected a text file in UTF-8" in capsys.readouterr().err


def test_evaluate_tells_nats_and_bits_a_character(text_file, tmp_path, capsys):
    assert train_text(text_file, tmp_path, "--json") == 0
    capsys.readouterr()
    path, other = str(tmp_path / "text.safetensors"), tmp_path / "other.txt"
    other.write_text("the hat sat on the mat, the cat sat? " * 3, encoding="utf-8")
    assert cli.main(["evaluate", path, str(other), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    model = CharacterModel.load(path)
    ids = model.vocabulary.encode(other.read_text())
    logits = model.model(ids[:-1, None])[0][:, 0].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    nats = -np.log(p[np.arange(len(p)), ids[1:]]).mean()
    assert measured["nats"] == pytest.approx(nats, rel=1e-5)
    assert measured["bits"] == pytest.approx(nats / np.log(2), rel=1e-5)
    assert (measured["kind"], measured["characters"], measured["unknown"]) == ("text", 110, 6)
    assert cli.main(["evaluate", path, str(other)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"110 characters: {nats:.3f} nats per character ({nats / np.log(2):.3f} bits)\n6 of them"
    )
    other.write_text("t")
    assert cli.main(["evaluate", path, str(other)]) == 1
    assert "text: expected at least two characters, got 1" in capsys.readouterr().err


def test_a_training_on_a_text_without_validation(text_file, tmp_path, capsys):
    assert train_text(text_file, tmp_path, "--validation", "0", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["nats"], result["best_epoch"], result["epochs"]) == (None, None, 6)
    assert train_text(text_file, tmp_path, "--validation", "0") == 0
    assert "on the last" not in capsys.readouterr().out


def test_a_checkpoint_of_another_text_is_refused(text_file, tmp_path, capsys):
    saved = ["--checkpoint", str(tmp_path / "run.ckpt"), "--resume"]
    assert train_text(text_file, tmp_path, *saved) == 0
    text_file.write_text(text_file.read_text().replace("cat", "tac"))
    assert train_text(text_file, tmp_path, *saved) == 1
    assert (
        "run.ckpt: not of this training: text: differs from that of the checkpoint\n"
        in capsys.readouterr().err
    )


@pytest.mark.process
@pytest.mark.usefixtures("interruptible")
def test_interrupt_of_text_training_saves_best_weights(text_file, tmp_path, capsys, monkeypatch):
    press_ctrl_c(monkeypatch, after_epochs=2)
    assert train_text(text_file, tmp_path, "--epochs", "1000000") == 0
    assert ", 2 epochs in" in (out := capsys.readouterr().out)
    assert ", interrupted" in out
    assert CharacterModel.load(tmp_path / "text.safetensors").sample("the", 5)
