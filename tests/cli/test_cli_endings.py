"""Trainings of the command line that fail save the best weights so far, with a warning."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from cli_runs import default_sigint

from cylstm import cli
from cylstm.classification import Classifier
from cylstm.forecasting import Forecaster
from cylstm.layers.base import describe
from cylstm.text import CharacterModel
from cylstm.training import NonFiniteError
from cylstm.training.loop import Loop

QUICK = ["--hidden", "4", "--epochs", "4"]


@pytest.fixture
def data(tmp_path):
    """By kind of model, the arguments that name its data."""
    rng = np.random.default_rng(0)
    (tmp_path / "table.csv").write_text("a\n" + "".join(f"{x:.4f}\n" for x in np.sin(np.arange(80) / 3)))
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 60)
    lines = ["@problemName waves", "@classLabel true down up", "@data"]
    for i in range(24):
        values = rng.normal(1 if i % 2 else -1, 1, 8)
        lines.append(",".join(f"{value:.3f}" for value in values) + (":up" if i % 2 else ":down"))
    (tmp_path / "set.ts").write_text("\n".join(lines))
    return {
        "forecast": [str(tmp_path / "table.csv"), "--columns", "a", "--horizon", "3"],
        "classify": ["--classify", str(tmp_path / "set.ts")],
        "text": ["--text", str(tmp_path / "text.txt"), "--batch", "4", "--length", "20"],
    }


def fail(monkeypatch, after, error, network=1):
    """Have a minibatch after so many epochs of the n-th network raise."""
    learn, fits = Loop._train_on, []

    def failing(loop, batch):
        if loop not in fits:
            fits.append(loop)
        if loop.run.epoch == after and len(fits) == network:
            raise error
        learn(loop, batch)

    monkeypatch.setattr(Loop, "_train_on", failing)


@pytest.mark.parametrize("kind", ["classify", "text"])
@pytest.mark.parametrize(
    ("error", "status", "last"),
    [(NonFiniteError("the loss is nan"), 1, "the loss is nan"), (MemoryError(), 1, "out of memory"),
     (KeyboardInterrupt(), 130, "interrupted")],
)  # fmt: skip
def test_a_failed_training_saves_the_weights_of_the_best_epoch(
    kind, error, status, last, data, tmp_path, capsys, monkeypatch
):
    output, whole = tmp_path / "m.safetensors", tmp_path / "whole.safetensors"
    fail(monkeypatch, 2, error)
    assert cli.main(["train", *data[kind], *QUICK, "--output", str(output)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    best = error.history.best_epoch
    assert err == (
        f"cylstm: warning: {output}: saved with the weights of epoch {best}; the training has not finished\n"
        f"cylstm: {last}\n"
    )
    monkeypatch.undo()
    model = {"classify": Classifier, "text": CharacterModel}[kind].load(output).model
    calls = []
    keep_best = Loop._update_best

    def note(loop, loss):
        calls.append(describe(loop.settings.model).store.data.copy())
        keep_best(loop, loss)

    monkeypatch.setattr(Loop, "_update_best", note)
    assert cli.main(["train", *data[kind], *QUICK, "--output", str(whole)]) == 0
    np.testing.assert_array_equal(describe(model).store.data, calls[best - 1])


def test_a_failed_training_of_forecasts_saves_the_best_network(data, tmp_path, capsys, monkeypatch):
    output = tmp_path / "m.safetensors"
    fail(monkeypatch, 1, MemoryError(), network=3)
    assert cli.main(["train", *data["forecast"], *QUICK, "--output", str(output)]) == 1
    assert capsys.readouterr().err == (
        f"cylstm: warning: {output}: saved with the best network so far; the training has not finished\n"
        "cylstm: out of memory\n"
    )
    assert Forecaster.load(output).forecast(np.zeros((30, 1))).shape == (30, 3, 1)


@pytest.mark.parametrize("kind", ["classify", "text"])
def test_model_file_is_not_replaced_before_first_epoch(kind, data, tmp_path, capsys, monkeypatch):
    output = tmp_path / "m.safetensors"
    output.write_bytes(b"the earlier file")
    fail(monkeypatch, 0, MemoryError())
    assert cli.main(["train", *data[kind], *QUICK, "--output", str(output)]) == 1
    assert capsys.readouterr().err == "cylstm: out of memory\n"
    assert output.read_bytes() == b"the earlier file"


def test_save_failure_is_reported_with_the_original_error(data, tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "m.safetensors")

    fail(monkeypatch, 2, MemoryError())
    monkeypatch.setattr(CharacterModel, "save", full)
    assert cli.main(["train", *data["text"], *QUICK, "--output", str(tmp_path / "m.safetensors")]) == 1
    warning, last = capsys.readouterr().err.splitlines()
    assert "could not be saved: No space left on device" in warning
    assert last == "cylstm: out of memory"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["2>&-", "2>&- >&-"])
def test_a_training_runs_with_closed_streams(closed, data, tmp_path):
    for kind, arguments in data.items():
        command = [sys.executable, "-m", "cylstm", "train", *arguments, "--hidden", "4", "--epochs", "1"]
        output = tmp_path / f"{kind}.safetensors"
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "--output", str(output)]
        assert subprocess.run(shell, capture_output=True, timeout=120).returncode == 0
        assert output.exists()


def test_a_closed_standard_error_is_replaced(data, tmp_path, monkeypatch):
    stream = open(os.devnull, "w")  # noqa: SIM115 - closed in the next line
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["train", *data["text"], *QUICK, "--output", str(tmp_path / "m.safetensors")]) == 0
    sys.stderr.close()


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_pressed_twice_saves_the_best_weights(data, tmp_path):
    """In a process of its own, as at a terminal."""
    script = """
import signal, sys
from cylstm import cli
from cylstm.training.loop import Loop
finish = Loop._finish_epoch
def twice(loop):
    record = finish(loop)
    if loop.run.epoch == 2:
        signal.raise_signal(signal.SIGINT), signal.raise_signal(signal.SIGINT)
    return record
Loop._finish_epoch = twice
sys.exit(cli.main(sys.argv[1:]))
"""
    output = tmp_path / "m.safetensors"
    command = [sys.executable, "-c", script, "train", *data["text"], *QUICK, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **default_sigint())
    assert done.returncode == 130
    assert done.stderr.endswith("cylstm: interrupted\n")
    assert "saved with the weights of epoch" in done.stderr
    assert CharacterModel.load(output).sample("the", 3)
