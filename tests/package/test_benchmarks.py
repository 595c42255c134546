"""The benchmark scripts, apart from the timing itself."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs the source tree, for its benchmarks")


@pytest.fixture
def compare():
    spec = importlib.util.spec_from_file_location("compare", FOLDER / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(path, rng, *, speed=1.0, machine=1.0, torch=True, cpu="one"):
    """A result of run.py whose cylstm takes `speed` times as long, on a machine `machine` times as slow."""
    lines = [{"cpu": cpu, "threads": "1 of 2 CPUs"}]
    for contender in ("cylstm", *(["torch"] if torch else [])):
        own = speed if contender == "cylstm" else 1.5
        rounds = (100 * own * machine * rng.uniform(0.99, 1.01, 7)).tolist()
        lines.append({"shape": "tiny", "mode": "forward", "contender": contender, "rounds_us": rounds})
        lines.append({"shape": "long", "mode": "training", "contender": contender, "peak_bytes": 1})
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.mark.parametrize(
    ("after", "verdict", "status"),
    [
        ({}, "noise", 0),
        ({"speed": 1.1}, "slower", 1),
        ({"speed": 0.9}, "faster", 0),
        ({"speed": 1.02}, "noise", 0),  # too little to matter
        ({"machine": 1.4}, "noise", 0),  # the machine's, for torch is slower too
        ({"machine": 1.4, "torch": False}, "slower", 1),
    ],
)
def test_a_regression_is_told_from_noise(tmp_path, rng, capsys, compare, after, verdict, status):
    before = result(tmp_path / "before", rng)
    assert compare.main([before, result(tmp_path / "after", rng, **after)]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:2] == ["tiny", "forward"]
    assert lines[-1].split()[-1] == verdict


def test_results_that_cannot_be_compared_are_named(tmp_path, rng, capsys, compare):
    before = result(tmp_path / "before", rng)
    compare.main([before, result(tmp_path / "after", rng, cpu="two")])
    assert "warning: cpu differs: one and two" in capsys.readouterr().out
    assert compare.difference([1.0] * 3, [2.0] * 3).verdict == "too few rounds"
    old = tmp_path / "old"
    old.write_text('{"cpu": "one"}\n{"shape": "tiny", "mode": "forward", "contender": "cylstm"}')
    with pytest.raises(SystemExit, match="contains no rounds"):
        compare.main([str(old), before])
    old.write_text('{"cpu": "one"}')
    with pytest.raises(SystemExit, match="no measurement in common"):
        compare.main([str(old), before])


def test_shapes_have_reason_and_flops(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from shapes import SHAPES

    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    for shape in SHAPES:
        steps = shape.T * shape.B
        assert shape.why
        assert shape.flops("training") > 2 * shape.flops("forward")
        assert np.isclose(shape.lengths().sum(), steps / 2 if shape.ragged else steps, rtol=0.02)


def test_a_result_becomes_a_table_and_a_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the picture")
    monkeypatch.syspath_prepend(str(FOLDER))
    import plot
    import readme

    about = {
        "cpu": "one", "cpu instruction sets": "scalar, avx2", "threads": "1 of 2 CPUs", "sgemm_gflops": 100.0,
    }  # fmt: skip
    times = {"cylstm": 10.0, "torch": 30.0, "onnxruntime": 20.0}
    shape = {"shape": "tiny", "group": "main", "B": 1, "T": 2, "I": 3, "H": 4, "mode": "forward"}
    lines = [about]
    for name, time in times.items():
        figures = {"median_us": time, "ratio": time / 10, "share_of_limit": 0.5, "rounds_us": [time]}
        lines.append({**shape, "version": name, "contender": name, **figures})
    lines += [
        {"contender": name, "peak_bytes": size, "shape": "long"}
        for name, size in (("cylstm", 5e8), ("torch", 1e9))
    ]
    result = tmp_path / "result.jsonl"
    result.write_text("\n".join(map(json.dumps, lines)))
    about, records = plot.read(result)
    plot.draw(records, about, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
    assert "| tiny | 1, 2, 3, 4 | forward | 10 | 50% | - | 3.00 | 2.00 | - | - |" in readme.table(
        about, records
    )
    assert "| one LSTM layer | 2.00, minimum 2.00 | - | - |" in readme.means(records)
    peaks = readme.peaks_of(result)
    assert "500 MB, PyTorch 1000 MB (0.50)" in readme.memory(peaks)
    summary = readme.summary(about, records, peaks)
    assert "| inference, 1 shapes of one LSTM layer | 2.00 | 2.00 (T 2, B 1, H 4) |" in summary
    assert "| 0.50 of PyTorch's | 500 MB, PyTorch 1000 MB |" in summary
    for record in records:
        record["ratio"] = record["ratio"] / 2.5  # onnxruntime is faster now
    assert "0.80 (T 2, B 1, H 4: onnxruntime is faster)" in readme.summary(about, records, peaks)


def test_models_table(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import models

    task = models.TASKS["character"]
    record = {
        "task": "character", **task._asdict(), "rows": 6400, "fixed": 1e-4,
        "times": {"cylstm": [0.1, 0.2, 0.1], "torch": [0.2, 0.4, 0.3]},
        "peaks": {"cylstm": 5e7, "segments": 1e7, "torch": 1e8},
    }  # fmt: skip
    expected = (
        "| character | 64, 100, 256 | 100.00 ms | 64,000 | 2.00 | 100 µs, 0.1% | 50 MB | 10 MB | 100 MB |"
    )
    assert expected in models.table([record])


@pytest.mark.parametrize("name", ["character", "forecaster", "tagger"])
def test_both_train_a_model_of_the_same_size(monkeypatch, torch, name):
    monkeypatch.syspath_prepend(str(FOLDER))
    import models

    task = models.TASKS[name]._replace(B=2, T=5, H=4, I=3, symbols=7 if models.TASKS[name].symbols else 0)
    assert models.cylstm_epoch(task, 2)() > 0
    assert models.torch_epoch(task, 2)() > 0
