"""The examples run, on a small slice of their data, and say and draw what they promise."""

import os
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

# What each is run with, the data set it needs besides the package's, and what it prints.
RUNS = {
    "forecasting": ("--epochs 2", None, "in the 80 % interval"),
    "classification": (
        "--train {data}/BasicMotions_TRAIN.ts --test {data}/BasicMotions_TEST.ts --epochs 2",
        "basic_motions",
        "of 40 sequences are classified correctly",
    ),
    "language": (
        "--data {data}/input.txt --characters 20000 --epochs 1 --hidden 16",
        "tinyshakespeare",
        "nats per character",
    ),
    "music": (
        "--data {data}/JSB_Chorales.mat --pieces 6 --epochs 2 --hidden 16",
        "jsb_chorales",
        "nats per step",
    ),
    "tagging": (
        "--train {data}/en_ewt-ud-train.conllu.xz --test {data}/en_ewt-ud-dev.conllu.xz "
        "--sentences 100 --epochs 2",
        "ud_ewt",
        "She/",
    ),
    "long_memory": ("--steps 20 --updates 5", None, "RNN  mean squared error"),
    "attention": ("--sequences 100 --longest 8 --epochs 1", None, "accuracy on new sequences"),
}


pytestmark = pytest.mark.skipif(
    not EXAMPLES.exists(), reason="needs the source tree, which holds the examples"
)


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name, tmp_path, monkeypatch, capsys, dataset):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the pictures")
    arguments, needed, said = RUNS[name]
    arguments = [part.format(data=needed and dataset(needed)) for part in arguments.split()]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert said in capsys.readouterr().out
    if "plot" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8"):
        (picture,) = os.listdir(tmp_path)
        assert picture == f"{name}.png"
        assert (tmp_path / picture).stat().st_size > 5000


def test_every_example_has_a_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RUNS)
