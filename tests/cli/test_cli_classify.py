"""The commands of classes: train --classify, predict, evaluate."""

import csv
import json

import numpy as np
import pytest
from cli_runs import press_ctrl_c, train

from cylstm import cli
from cylstm.classification import Classifier
from cylstm.data.sequence_files import read_ts


def ts(path, n, seed=0):
    """Sequences of two channels, whose class, up or down, is the sign of a slope."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        sign = 1 if i % 3 else -1
        steps = np.arange(rng.integers(4, 9))
        channels = [sign * steps + rng.normal(0, 0.5, len(steps)), rng.normal(3, 1, len(steps))]
        values = [",".join(map(str, channel.tolist())) for channel in channels]
        lines.append(":".join([*values, "up" if sign > 0 else "down"]))
    path.write_text("@dimensions 2\n@classLabel true up down\n@data\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def sequences(tmp_path):
    return ts(tmp_path / "train.ts", 30)


@pytest.fixture
def folder(tmp_path):
    """The same as CSV files with labels."""
    (tmp_path / "set").mkdir()
    values, labels = read_ts(ts(tmp_path / "train.ts", 30))
    rows = []
    for i, (sequence, label) in enumerate(zip(values, labels, strict=True)):
        lines = [f"{t},{a},{b}" for t, (a, b) in enumerate(sequence.tolist())]
        (tmp_path / "set" / f"{i:02}.csv").write_text("\n".join(["time,a,b", *lines]))
        rows.append(f"{i:02}.csv,{label}")
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    return tmp_path / "set"


def classify(source, output, *options):
    quick = ["--hidden", "8", "--epochs", "12", "--rate", "0.03", "--batch", "8"]
    return cli.main(["train", "--classify", str(source), "--output", str(output), *quick, *options])


def test_train_evaluate_and_predict(sequences, tmp_path, capsys):
    model, test = tmp_path / "m.safetensors", ts(tmp_path / "test.ts", 21, seed=1)
    assert classify(sequences, model) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "LSTM of 8 units in both directions, 2 classes, 2 channels"
    assert out[1].startswith("trained on 24 sequences, ")
    assert "was best on 6 sequences: accuracy 1.000 (always 'up': 0.667)" in out[2]
    assert cli.main(["evaluate", str(model), str(test)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "21 sequences: accuracy 1.000 (always 'up': 0.667)"
    assert [line.split() for line in out[1:4]] == [
        ["class", "down", "up", "recall"], ["down", "7", ".", "1.000"], ["up", ".", "14", "1.000"],
    ]  # fmt: skip
    assert cli.main(["predict", str(test), "--model", str(model)]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(printed.splitlines()))
    values, labels = read_ts(test)
    assert [row["label"] for row in rows] == labels
    assert [row["sequence"] for row in rows] == [str(i) for i in range(1, 22)]
    probabilities = Classifier.load(model).probabilities(values).max(axis=1)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], probabilities, atol=1e-6)
    assert cli.main(["predict", str(test), "--model", str(model), "--output", str(tmp_path / "p.csv")]) == 0
    assert (tmp_path / "p.csv").read_text() == printed


def test_json_of_all_commands(sequences, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the picture")
    model, plot = tmp_path / "m.safetensors", tmp_path / "p.png"
    assert classify(sequences, model, "--json", "--plot", str(plot), "--validation", "0.4") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["classes"], result["sequences"], result["model"]) == (["down", "up"], 18, str(model))
    assert (result["validation"]["accuracy"], result["validation"]["sequences"]) == (1, 12)
    assert result["epochs"] >= result["best_epoch"] >= 1
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["evaluate", str(model), str(sequences), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["kind"], measured["accuracy"], measured["majority"]) == (
        "classifier",
        1,
        pytest.approx(2 / 3),
    )
    assert measured["confusion"] == [[10, 0], [0, 20]]
    assert cli.main(["predict", str(sequences), "--model", str(model), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert len(predictions) == 30
    assert set(predictions[0]) == {"sequence", "label", "probability"}
    assert predictions[0]["label"] == "down"
    assert classify(sequences, model, "--json", "--validation", "0") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["validation"], result["best_epoch"], result["sequences"]) == (None, None, 30)


def test_a_folder_of_csv_files_with_labels(folder, tmp_path, capsys):
    model, labels = tmp_path / "m.safetensors", str(tmp_path / "labels.csv")
    assert classify(folder, model, "--labels", labels, "--columns", "b,a") == 0
    assert cli.main(["evaluate", str(model), str(folder), "--labels", labels]) == 0
    assert "30 sequences: accuracy 1.000" in capsys.readouterr().out
    files = [str(folder / name) for name in ("04.csv", "03.csv")]
    assert cli.main(["predict", *files, "--model", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["04.csv", "up"], ["03.csv", "down"]]
    assert cli.main(["evaluate", str(model), str(folder)]) == 1
    assert "expected labels to compare with; pass --labels FILE" in capsys.readouterr().err
    (folder / "04.csv").write_text("time,a\n0,1\n")
    assert cli.main(["predict", *files, "--model", str(model)]) == 1
    assert "04.csv: no column b; it has time, a" in capsys.readouterr().err


def test_a_training_goes_on_from_its_checkpoint(sequences, tmp_path, capsys):
    saved = ["--checkpoint", str(tmp_path / "run.ckpt"), "--resume", "--patience", "12"]
    models = [tmp_path / name for name in ("whole", "resumed")]
    assert classify(sequences, models[0], *saved[2:], "--epochs", "12") == 1  # no checkpoint to resume from
    assert "--resume: expected --checkpoint" in capsys.readouterr().err
    assert classify(sequences, models[0], "--patience", "12") == 0
    for _ in range(2):
        assert classify(sequences, models[1], *saved) == 0
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.process
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_training_with_the_best_weights(sequences, tmp_path, capsys, monkeypatch):
    model = tmp_path / "m.safetensors"
    press_ctrl_c(monkeypatch, after_epochs=3)
    assert classify(sequences, model, "--epochs", "1000000") == 0
    assert "trained on 24 sequences, 3 epochs in" in (out := capsys.readouterr().out)
    assert ", interrupted" in out
    assert Classifier.load(model).classes == ["down", "up"]


@pytest.mark.process
@pytest.mark.usefixtures("interruptible")
def test_interrupt_before_first_epoch_saves_nothing(sequences, tmp_path, capsys, monkeypatch):
    press_ctrl_c(monkeypatch, after_epochs=0)
    assert classify(sequences, tmp_path / "m") == 130
    assert capsys.readouterr() == ("", "cylstm: interrupted\n")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{dir}/none.ts"], "none.ts: No such file or directory"),
        (["{dir}/none"], "none: No such file or directory"),
        (["{dir}/empty.ts"], "empty.ts: not a .ts file: expected a line @data, got none"),
        (["{dir}/plain.ts"], "plain.ts: expected labels to learn, got @classLabel false"),
        (["{dir}/one.ts"], "labels: expected at least two classes, got ['up']"),
        (["{dir}/nan.ts"], "nan.ts, line 3: dimension 1, value 2: missing, 'NaN'; pass --missing"),
        (["{dir}/set"], "set: expected labels to learn; pass --labels FILE for CSV files"),
        (["{dir}/set", "--labels", "{dir}/none.csv"], "none.csv: No such file or directory"),
        (["{dir}/set", "--labels", "{dir}/set/00.csv"], "00.csv, line 1: expected columns file and label"),
        (["{dir}/set", "--labels", "{dir}/labels.csv", "--columns", "c"], "00.csv: no column c; it has"),
        (["{dir}/train.ts", "--labels", "{dir}/labels.csv"], "expected no file of labels for .ts files"),
        (["{dir}/train.ts", "{dir}/set"], "expected .ts files, or CSV files and folders of them"),
        (["{dir}/train.ts", "--validation", "1"], "--validation: expected a fraction in [0, 1), got 1.0"),
        (["{dir}/train.ts", "--horizon", "3"], "--horizon: only for forecasts; leave it out for classes"),
        (["{dir}/train.ts", "--dropout", "1"], "--dropout: expected a fraction in [0, 1), got 1.0"),
        (["{dir}/train.ts", "--layers", "0"], "--layers: expected a positive int, got 0"),
        (["{dir}/train.ts", "--columns", "1"], "--columns: only for CSV files; leave it out for .ts files"),
        (["{dir}/train.ts", "--delimiter", ","], "--delimiter: only for CSV files; leave it out for .ts"),
        (["{dir}/train.ts", "--no-header"], "--no-header: only for CSV files; leave it out for .ts files"),
        (["{dir}/two.ts"], "expected a class of two samples or more, got 2 samples; or pass --validation 0"),
        (["{dir}/large.ts"], "line 3: dimension 1, value 2: expected an absolute value below 1e+100"),
        (["{dir}/train.ts", "--rate", "1e30"], "lower the learning rate"),
        (["{dir}/train.ts", "--checkpoint", "{dir}/nan.ts"], "nan.ts exists; pass --resume, or delete it"),
        (["{dir}/train.ts", "--epochs", "0"], "--epochs: expected a positive int, got 0"),
        (["{dir}/train.ts", "--rate", "nan"], "--rate: expected a number"),
        (["{dir}/train.ts", "--text", "{dir}/train.ts"], "train: expected one of: a CSV file"),
        (["{dir}/train.ts", "--plot", "{dir}/none/p.png"], "p.png: cannot write here"),
        (["{dir}/train.ts", "--checkpoint", "{dir}/train.ts"], "train.ts: would be overwritten"),
        (["{dir}/set", "--labels", "{dir}/labels.csv", "--plot", "{dir}/set/03.csv"], "03.csv: would be"),
        (["{dir}/set", "--labels", "{dir}/labels.csv", "--plot", "{dir}/labels.csv"], "labels.csv: would be"),
        (["{dir}/train.ts", "--checkpoint", "{dir}/labels.csv", "--resume"], "labels.csv: not a readable"),
    ],
)  # fmt: skip
def test_faults_are_one_line_and_a_status(folder, tmp_path, capsys, arguments, message):
    (tmp_path / "empty.ts").write_text("")
    (tmp_path / "plain.ts").write_text("@classLabel false\n@data\n1,2\n3,4\n")
    (tmp_path / "one.ts").write_text("@classLabel true up down\n@data\n1,2:up\n3,4:up\n")
    (tmp_path / "nan.ts").write_text("@classLabel true up down\n@data\n1,NaN:up\n3,4:down\n")
    (tmp_path / "two.ts").write_text("@classLabel true up down\n@data\n1,2:up\n3,4:down\n")
    (tmp_path / "large.ts").write_text("@classLabel true up down\n@data\n1,1e200:up\n3,4:down\n")
    before = sorted(tmp_path.rglob("*"))
    filled = [argument.format(dir=tmp_path) for argument in arguments]
    assert cli.main(["train", "--output", str(tmp_path / "m"), "--classify", *filled]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("cylstm: ")
    assert output.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_models_and_data_of_another_kind_are_refused(sequences, table, tmp_path, capsys):
    classifier, forecaster = (str(tmp_path / name) for name in ("c", "f"))
    assert classify(sequences, classifier) == 0
    assert train(table, "--columns", "a", "--output", forecaster) == 0
    narrow = tmp_path / "narrow.ts"
    narrow.write_text("@classLabel true up left\n@data\n1,2:up\n")
    plain = tmp_path / "plain.ts"
    plain.write_text("@classLabel false\n@data\n1,2:3,4\n")
    strange = tmp_path / "strange.ts"
    strange.write_text("@classLabel true up left\n@data\n1,2:3,4:left\n")
    for arguments, message in [
        (["predict", narrow, "--model", classifier], "sequences: expected 2 channels, got 1"),
        (["predict", sequences, "--model", classifier, "--phase", "1"], "--phase: only for forecasts"),
        (["predict", sequences, "--model", classifier, "--output", sequences], "would be overwritten"),
        (["predict", sequences, "--model", classifier, "--output", classifier], "would be overwritten"),
        (["predict", sequences, "--model", classifier, "--output", tmp_path / "no/p"], "cannot write here"),
        (
            ["predict", table, "--model", classifier, "--no-header"],
            "expected columns of numbers, got the cells ['day', 'a', 'b']",
        ),
        (["predict", table, table, "--model", forecaster], "expected one CSV file for a forecaster, got 2"),
        (["evaluate", classifier, strange], "labels: expected classes among ['down', 'up'], got 'left'"),
        (["evaluate", classifier, tmp_path / "none.ts"], "none.ts: No such file or directory"),
        (["evaluate", classifier, sequences, "--test", "0.5"], "--test: only for forecasts"),
        (["evaluate", forecaster, table, "--labels", table], "--labels: only for classes"),
        (["evaluate", forecaster, table, "--test", "0"], "--test: expected a fraction in (0, 1], got 0"),
        (["evaluate", forecaster, sequences], "train.ts"),
        (["sample", classifier], "not a model of text, but of classes"),
        (
            ["evaluate", classifier, plain],
            "plain.ts: expected labels to compare with, got @classLabel false",
        ),
    ]:
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 1, arguments
        output = capsys.readouterr()
        assert message in output.err
        assert output.err.count("\n") == 1
        assert output.out == ""


def test_speakers_of_japanese_vowels_are_told_apart(tmp_path, capsys, dataset):
    folder, model = dataset("japanese_vowels"), str(tmp_path / "m")
    files = [str(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")]
    assert cli.main(["train", "--classify", files[0], "--output", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["validation"]["accuracy"] > 0.9
    assert cli.main(["evaluate", model, files[1], "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["accuracy"] > 0.94
    assert measured["majority"] == pytest.approx(88 / 370)
