"""The command as a user runs it: what it prints, writes and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_runs import command, default_sigint, press_ctrl_c, train

import cylstm
from cylstm import cli, datasets
from cylstm.data.series import read_csv
from cylstm.forecasting import Forecaster


@pytest.mark.slow
def test_demo_beats_the_autoregression_and_repeats_itself(tmp_path, capsys):
    folders = [tmp_path / name for name in "ab"]
    results = []
    for folder in folders:
        folder.mkdir()
        assert cli.main(["demo", "--json", "--folder", str(folder)]) == 0
        results.append(json.loads(capsys.readouterr().out))
    one, two = results
    assert set(one) == {"rmse", "rmse_persistence", "rmse_seasonal", "rmse_ar24", "seconds", "model"}
    assert one["rmse"] <= 0.47
    assert one["rmse"] < one["rmse_ar24"] == pytest.approx(0.501, abs=5e-4)
    assert one["rmse_persistence"] == pytest.approx(1.164, abs=5e-4)
    assert one["rmse_seasonal"] == pytest.approx(1.438, abs=5e-4)
    assert one["seconds"] < 60
    for key in ("rmse", "rmse_ar24"):
        assert one[key] == two[key]
    models = [cylstm.load(result["model"]) for result in results]
    for name, value in models[0].parameters.items():
        np.testing.assert_array_equal(value, models[1].parameters[name])


@pytest.mark.slow
def test_demo_prints_a_table_and_draws_a_picture(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the picture")
    monkeypatch.setattr("cylstm.forecasting.training.PENALTIES", (5e-2,))
    assert cli.main(["demo", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for word in (
        "LSTM",
        "persistence",
        "seasonal-naive",
        "AR(24)",
        "Forecast for the months of 2011",
        "elnino.png",
    ):
        assert word in out
    assert (tmp_path / "elnino.png").read_bytes().startswith(b"\x89PNG")
    forecast = Forecaster.load(tmp_path / "elnino.safetensors").forecast(datasets.elnino()[:, None])
    assert " ".join(f"{value:.1f}" for value in forecast[-1, :, 0]) in out


@pytest.mark.slow
def test_demo_without_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("cylstm.forecasting.training.PENALTIES", (5e-2,))
    assert cli.main(["demo", "--folder", str(tmp_path)]) == 0
    assert 'pip install "cylstm[plot]"' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["elnino.safetensors"]


def test_train_then_predict_needs_the_two_files_only(table, tmp_path, capsys):
    model, forecast = tmp_path / "m.safetensors", tmp_path / "f.csv"
    assert train(table, "--columns", '"b", a', "--period", "25", "--output", str(model)) == 0
    out = capsys.readouterr().out
    assert "b, evaluated on the last 24 rows:" in out
    assert "seasonal-naive" in out
    assert cli.main(["predict", str(table), "--model", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step,b,a"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert cli.main(["predict", str(table), "--model", str(model), "--output", str(forecast)]) == 0
    assert forecast.read_text().splitlines() == lines
    capsys.readouterr()
    assert cli.main(["predict", str(table), "--model", str(model), "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert [
        f"{h},{b},{a}" for h, (b, a) in enumerate(zip(as_json["b"], as_json["a"], strict=True), 1)
    ] == lines[1:]


@pytest.mark.slow
def test_train_tells_errors_in_json_and_draws_on_request(table, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the picture")
    model, plot = tmp_path / "m.safetensors", tmp_path / "p.png"
    assert train(table, "--columns", "a", "--output", str(model), "--json", "--plot", str(plot)) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["rmse"]["a"]["LSTM"]) == 3
    assert result["rows"] == 96
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert (
        train(table, "--columns", "a", "--output", str(model), "--json", "--test", "0", "--plot", str(plot))
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["rmse"], result["rows"]) == ({}, 120)


def test_evaluate_reproduces_training_metrics(table, tmp_path, capsys):
    model = str(tmp_path / "m.safetensors")
    assert train(table, "--columns", "b,a", "--period", "25", "--output", model) == 0
    printed = capsys.readouterr().out
    assert cli.main(["evaluate", model, str(table), "--test", "0.2"]) == 0
    out = capsys.readouterr().out
    tables = [line for line in printed.splitlines() if line.startswith("  ")]
    assert len(tables) == 14
    for line in tables:
        assert line in out
    assert out.count("MAE, steps ahead") == out.count("RMSE, steps ahead") == 2
    assert cli.main(["evaluate", model, str(table), "--test", "0.2", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    values, _ = read_csv(table, ["b", "a"])
    errors = Forecaster.load(model).forecast(values)[95:-1, 0] - values[96:]
    for c, name in enumerate("ba"):
        assert measured["mae"][name]["LSTM"][0] == pytest.approx(np.abs(errors[:, c]).mean())
        assert measured["rmse"][name]["LSTM"][0] == pytest.approx(np.sqrt((errors[:, c] ** 2).mean()))
    assert (measured["kind"], measured["rows"]) == ("forecaster", 24)
    few = tmp_path / "few.csv"
    few.write_text("\n".join(table.read_text().splitlines()[:21]))
    assert cli.main(["evaluate", model, str(few), "--test", "0.3", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)  # too few rows for means of the season
    assert list(measured["rmse"]["a"]) == ["LSTM", "persistence", "seasonal-naive", "AR(24)"]
    assert measured["rmse"]["a"]["AR(24)"] == [None] * 3
    few.write_text("\n".join(table.read_text().splitlines()[:2]))
    assert cli.main(["evaluate", model, str(few)]) == 1
    assert "few.csv: expected rows to evaluate after the first, got 1 rows" in capsys.readouterr().err


@pytest.mark.parametrize(("period", "first"), [("25", 25), (None, 1)])
def test_evaluate_excludes_rows_needed_by_baselines(table, tmp_path, capsys, period, first):
    model = str(tmp_path / "m.safetensors")
    assert train(table, "--columns", "a", *(["--period", period] if period else []), "--output", model) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", model, str(table), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["rows"] == 120 - first
    values, _ = read_csv(table, ["a"])
    errors = Forecaster.load(model).forecast(values)[first - 1 : -1, 0] - values[first:]
    assert measured["rmse"]["a"]["LSTM"][0] == pytest.approx(np.sqrt((errors**2).mean()))
    for fraction in ("0", "1.1", "nan", "-1"):
        assert cli.main(["evaluate", model, str(table), "--test", fraction]) == 1
        assert "--test: expected a fraction in (0, 1]" in capsys.readouterr().err


@pytest.mark.slow
def test_patience_ends_the_training_of_a_forecaster_early(tmp_path, capsys):
    path, model = tmp_path / "noise.csv", str(tmp_path / "m")
    path.write_text("a\n" + "\n".join(map(str, np.random.default_rng(0).standard_normal(100))))
    arguments = ["train", str(path), "--horizon", "3", "--hidden", "8", "--epochs", "12", "--output", model]
    assert cli.main([*arguments, "--patience", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["epochs"] < 12
    assert cli.main([*arguments, "--patience", "1"]) == 0
    chosen = f"L2 of {result['l2']:g} and {result['epochs']} of 12 epochs\n"
    assert f"chosen by the error on two blocks of these rows: {chosen}" in capsys.readouterr().out


def test_evaluate_phase(table, tmp_path, capsys):
    model, later = str(tmp_path / "m.safetensors"), tmp_path / "later.csv"
    assert train(table, "--columns", "a", "--period", "25", "--output", model) == 0
    lines = table.read_text().splitlines()
    later.write_text("\n".join([lines[0], *lines[11:]]))
    errors = []
    for phase in ("10", "0"):
        capsys.readouterr()
        assert cli.main(["evaluate", model, str(later), "--phase", phase, "--json"]) == 0
        output = capsys.readouterr()
        errors.append(json.loads(output.out)["rmse"]["a"]["LSTM"][0])
        warned = "later.csv: --phase 10 fits the seasons of the training rows better than --phase 0"
        assert (warned in output.err) == (phase == "0")
    assert errors[0] < errors[1]
    printed = []
    for phase in (10, 10 + 25 * 10**30, -15):
        assert cli.main(["predict", str(later), "--model", model, "--phase", str(phase)]) == 0
        printed.append(capsys.readouterr())
    assert printed[0].err == ""
    assert printed[0] == printed[1] == printed[2]


@pytest.mark.slow
def test_a_gap_at_the_split_is_not_filled_from_the_test_rows(table, tmp_path, capsys):
    """The first 96 of 120 rows are the training rows; later rows do not change the model."""
    lines = table.read_text().splitlines()
    models = []
    for value in ("5", "-5"):
        changed = [*lines[:96], "d95,,1", *(f"d{d},{value},1" for d in range(96, 120))]
        table.write_text("\n".join(changed))
        models.append(tmp_path / f"m{value}")
        assert train(table, "--columns", "a", "--missing", "interpolate", "--output", str(models[-1])) == 0
    assert models[0].read_bytes() == models[1].read_bytes()


def test_short_table_is_evaluated_if_possible(tmp_path, capsys):
    path = tmp_path / "short.csv"
    path.write_text("a,b\n" + "".join(f"{i % 3},d{i}\n" for i in range(20)))
    options = ["--horizon", "1", "--epochs", "1", "--output", str(tmp_path / "m")]
    assert cli.main(["train", str(path), *options]) == 0
    assert "AR(24)                        -" in capsys.readouterr().out


def test_a_file_without_a_header(table, tmp_path, capsys):
    bare = tmp_path / "bare.csv"
    bare.write_text(table.read_text().partition("\n")[2])
    model = tmp_path / "m.safetensors"
    assert train(bare, "--no-header", "--columns", "3", "--output", str(model)) == 0
    assert cli.main(["predict", str(bare), "--no-header", "--model", str(model)]) == 0
    assert "step,3" in capsys.readouterr().out


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("cylstm", "numpy", "scipy", "cpu instruction sets", "compute path", "blas", "threads"):
        assert word in out
    assert cli.main(["info", "--json", "--threads", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"].startswith("1 of ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "{csv}", "--output", "{dir}/m"],
            "expected one column of numbers, got a, b; pass --columns to select",
        ),
        (["train", "{csv}", "--columns", "c", "--output", "{dir}/m"], "no column c; it has day, a, b"),
        (["train", "{dir}/none.csv", "--output", "{dir}/m"], "none.csv: No such file or directory"),
        (["train", "{csv}", "--columns", "a", "--output", "{dir}/none/m"], "none/m: cannot write here"),
        (["train", "{csv}", "--columns", "a", "--output", "{dir}"], "Is a directory"),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--horizon", "99"],
            "data.csv: expected at least 496 training rows for horizon 99 and period None, got 96 of "
            "the 120 rows, as --test 0.2 holds out the last 24; pass --test 0 to train on all, or choose",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--test", "1"],
            "--test: expected a fraction",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--hidden", "0"],
            "--hidden: expected a positive int, got 0",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--hidden", "9" * 20],
            "cannot allocate",
        ),
        (["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--delimiter", ";;"], "--delimiter"),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--seed", "-1"],
            "--seed: expected an int",
        ),
        (["demo", "--seed", "-1"], "--seed: expected an int, 0 or more, got -1"),
        (
            ["train", "{csv}", "--columns", "a\nb", "--output", "{dir}/m"],
            "--columns: expected names on one line",
        ),
        (["predict", "{csv}", "--model", "{csv}"], "data.csv: not a readable cylstm model"),
        (["predict", "{csv}", "--model", "{dir}/none"], "none: No such file or directory"),
        (["demo", "--folder", "{dir}/none"], "none/elnino.safetensors: cannot write here"),
        (["train", "{csv}", "--columns", "a", "--output", "{csv}"], "data.csv: would be overwritten"),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--plot", "{dir}/./m"],
            "m: would be overwritten",
        ),
        (["train", "{csv}", "--columns", "a", "--output", "{dir}/pipe"], "pipe: not a regular file"),
        (["train", "{csv}", "--columns", "a,a", "--output", "{dir}/m"], "column a: expected once"),
        (["predict", "{csv}", "--model", "{dir}/pipe"], "pipe: not a regular file"),
        (["demo", "--threads", "9" * 20], "--threads: expected at most 4096 threads"),
        (["predict", "{csv}", "--model", "{csv}", "--phase", "9" * 30], "not a readable cylstm model"),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--epochs", "0"],
            "--epochs: expected a pos",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--patience", "0"],
            "--patience: expected a p",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--resume"],
            "--resume: expected --checkpoint",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--checkpoint", "{csv}"],
            "data.csv: would be overwritten",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--checkpoint", "{dir}/none/c"],
            "none/c: cannot write here",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--labels", "{csv}"],
            "--labels: only for classes; leave it out for forecasts",
        ),
        (
            ["train", "{csv}", "--columns", "a", "--output", "{dir}/m", "--rate", "1"],
            "--rate: only for classes and texts; leave it out for forecasts",
        ),
        (["evaluate", "{csv}", "{csv}"], "data.csv: not a readable cylstm model"),
        (["evaluate", "{dir}/none", "{csv}"], "none: No such file or directory"),
        (["demo", "--threads", "0"], "--threads: expected a positive int, got 0"),
        (["demo", "--threads", "-1"], "--threads: expected a positive int, got -1"),
    ],
)
def test_faults_are_one_line_and_a_status(request, table, tmp_path, capsys, arguments, message):
    filled = [argument.format(csv=table, dir=tmp_path) for argument in arguments]
    if f"{tmp_path}/pipe" in filled:
        request.getfixturevalue("pipe")
    before = sorted(tmp_path.iterdir())
    assert cli.main(filled) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.replace(os.sep, "/")
    assert output.err.startswith("cylstm: ")
    assert output.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_missing_values_are_refused_or_interpolated(table, tmp_path, capsys):
    table.write_text(table.read_text().replace("\nd7,", "\nd7,NaN,1\nd7,"))
    model = str(tmp_path / "m.safetensors")
    assert train(table, "--columns", "a", "--output", model) == 1
    assert "column a: 1 missing values, the first in line 9" in capsys.readouterr().err
    assert train(table, "--columns", "a", "--output", model, "--missing", "interpolate") == 0


@pytest.mark.process
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_training_without_a_trace_or_a_loss(table, tmp_path, capsys, monkeypatch):
    model = tmp_path / "m.safetensors"
    model.write_bytes(b"the earlier file")
    press_ctrl_c(monkeypatch, after_epochs=2)
    assert train(table, "--columns", "a", "--epochs", "1000000", "--output", str(model)) == 130
    assert capsys.readouterr() == ("", "cylstm: interrupted\n")
    assert model.read_bytes() == b"the earlier file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "m.safetensors"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("stop", ["SIGINT", "SIGKILL"])
def test_a_training_that_was_ended_goes_on_from_its_checkpoint(table, tmp_path, stop):
    """Ctrl-C writes a checkpoint; killed, the one of the last finished network is there."""
    saved, models = tmp_path / "run.ckpt", [tmp_path / name for name in ("whole", "resumed")]
    options = ["train", str(table), "--columns", "a,b", "--hidden", "8", "--epochs", "12", "--output"]
    assert cli.main([*options, str(models[0])]) == 0
    options += [str(models[1]), "--checkpoint", str(saved), "--resume"]
    process = command(*options, **default_sigint())
    until = time.monotonic() + 60
    while not saved.exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(getattr(signal, stop))
    _, err = process.communicate(timeout=30)
    if stop == "SIGINT":
        assert process.returncode == 130
        warning = (
            f"cylstm: warning: {models[1]}: saved with the best network so far; the training has not finished"
        )
        assert err in (f"{warning}\ncylstm: interrupted\n", "cylstm: interrupted\n")
        assert models[1].exists() == err.startswith(warning)
    else:
        assert not models[1].exists()
    assert cli.main(options) == 0
    assert models[1].read_bytes() == models[0].read_bytes()


@pytest.mark.slow
@pytest.mark.process
def test_a_reader_that_goes_away_is_no_fault():
    process = command("info")
    process.stdout.close()
    assert process.wait(timeout=30) == 1
    with process.stderr as err:
        assert err.read() == ""


@pytest.mark.slow
@pytest.mark.process
def test_help_shows_every_command():
    out, err = command("--help").communicate(timeout=30)
    assert err == ""
    for word in ("demo", "train", "predict", "evaluate", "sample", "info", "examples:"):
        assert word in out
    out, err = command("--version").communicate(timeout=30)
    assert out == f"cylstm {cylstm.__version__}\n"


def test_test_rows_do_not_leak_into_training_gaps(tmp_path, capsys):
    path = tmp_path / "gaps.csv"
    path.write_text("day,a\n" + "".join(f"d{d},{'' if d < 96 else d}\n" for d in range(120)))
    assert train(path, "--columns", "a", "--missing", "interpolate", "--output", str(tmp_path / "m")) == 1
    error = capsys.readouterr().err
    assert "gaps.csv: the first 96 rows have no values and are ignored\n" in error
    assert "training rows for horizon 3 and period None, got 19 of the 24 rows" in error


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not shutil.which("sh"), reason="needs the shell sh")
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "</dev/null >&-"])
def test_closed_streams_are_no_fault(redirection):
    command = f"{sys.executable} -m cylstm info {redirection}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.process
def test_a_terminal_without_our_letters_is_no_fault():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "cylstm", "train", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
