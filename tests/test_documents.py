"""What README.md and ARCHITECTURE.md say is true."""

import re
from pathlib import Path

import numpy as np
import pytest

import cylstm

ROOT = Path(__file__).parent.parent
README, ARCHITECTURE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "ARCHITECTURE.md")
)


def test_the_example_of_the_readme_runs_and_learns(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 26
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert "mean squared error" in capsys.readouterr().out
    assert np.mean((names["y"] - names["target"]) ** 2) < 0.005
    assert cylstm.load("waves.safetensors")


@pytest.mark.skipif(
    not (ROOT / "cylstm").exists(), reason="needs the source tree, which the documents describe"
)
def test_the_tree_of_the_architecture_is_complete():
    tree = ARCHITECTURE.split("```")[1]
    for pattern in ("cylstm/*.py", "cylstm/data/*.py", "cylstm/_engine/*.p*", "include/cylstm/*.h"):
        for path in ROOT.glob(pattern):
            own = path.name.startswith("__") or path.suffix in (".pyi", ".pyc") or path.name in ("_blas.pxd",)
            assert own or path.name in tree or path.name in ("_checks.py", "_version.py"), path


@pytest.mark.skipif(
    not (ROOT / "cylstm").exists(), reason="needs the source tree, which the documents describe"
)
def test_files_that_the_architecture_names_exist():
    for name in re.findall(r"`([\w/.]+/[\w.]+\.\w+)`", ARCHITECTURE):
        places = [ROOT / name, ROOT / "cylstm" / name]
        assert any(place.exists() for place in places) or "<" in name, name
