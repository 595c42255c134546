"""Where the progress of a training is seen: terminals, notebooks, log files, and nowhere."""

import io
import subprocess
import sys
import types

import pytest
from training_problems import pooled, series

import cylstm
from cylstm import losses
from cylstm._system import progress
from cylstm._system.progress import Progress


class Stream(io.StringIO):
    """Standard error; a terminal or not, and one that may go away."""

    def __init__(self, is_terminal=False):
        super().__init__()
        self.is_terminal, self.gone = is_terminal, False

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        if self.gone:
            raise OSError("the terminal has gone")
        return super().write(text)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test lets pass."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture
def notebook(monkeypatch):
    """As in a kernel without ipywidgets, whose standard error appears below the cell."""
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)


def closed():
    stream = Stream()
    stream.close()
    return stream


def gone():
    stream = Stream(is_terminal=True)
    stream.gone = True
    return stream


@pytest.mark.parametrize(
    "make", [lambda: None, closed, gone, object, lambda: types.SimpleNamespace(write=print)]
)
def test_progress_bar_without_usable_stderr(make, monkeypatch):
    monkeypatch.setattr(sys, "stderr", make())
    x, y = series(20)
    history = cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit((x, y), epochs=2, progress=True)
    assert len(history.epochs) == 2


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Stream(is_terminal=True))
    x, y = series(20)
    cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit((x, y), (x, y), epochs=2, batch_size=5, progress=True)
    assert "epoch 2/2: 100%" in stream.getvalue()
    assert "8/8" in stream.getvalue()
    assert "validation=" in stream.getvalue()


def test_a_terminal_that_goes_away_ends_the_bar_and_not_the_work(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Stream(is_terminal=True))
    with Progress(100, "batches") as bar:
        stream.gone = True
        for _ in range(100):
            bar.describe("epoch 1/1")
            bar.update()
            bar.results({"loss": 1.0})


def test_a_log_file_has_a_line_now_and_then(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", stream := Stream())
    with Progress(2000, "batches") as lines:
        for epoch in range(2):
            lines.describe(f"epoch {epoch + 1}/2")
            for _ in range(1000):
                clock.seconds += 1
                lines.update()
            lines.results({"loss": 0.25, "validation": 1 / 3})
    shown = stream.getvalue().splitlines()
    assert shown[0] == "epoch 1/2, 5 of 2000 batches (5 s)"
    assert shown[-1] == "epoch 2/2, 2000 of 2000 batches, loss=0.25, validation=0.3333 (2000 s)"
    assert any("epoch 2/2" in line and "loss=0.25" in line for line in shown[:-1])
    assert 100 < len(shown) < 200  # every 5 s, then every 50th of the time so far


def test_a_short_work_leaves_a_log_file_empty(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", stream := Stream())
    with Progress(4, "batches") as lines:
        for _ in range(4):
            clock.seconds += 1
            lines.update()
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("notebook")
def test_a_notebook_without_widgets_shows_lines_below_the_cell(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", stream := Stream())
    with Progress(4, "batches") as lines:
        for epoch in range(2):
            lines.describe(f"epoch {epoch + 1}/2")
            lines.update(2)
            lines.results({"loss": 0.5})
    shown = stream.getvalue().splitlines()
    assert shown == [
        "epoch 1/2, 2 of 4 batches, loss=0.5 (0 s)",
        "epoch 2/2, 4 of 4 batches, loss=0.5 (0 s)",
    ]


NOTEBOOK = """
import sys
import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.argv[1])])
manager = KernelManager()
manager.kernel_spec.argv[0] = sys.executable
NotebookClient(book, timeout=120, km=manager).execute()
print(book.cells[0].outputs)
"""
CELL = """
import numpy as np, cylstm
x = np.zeros((40, 5, 2))
model = cylstm.Sequential(cylstm.LSTM(2, 4, seed=0), cylstm.Pooling("last"), cylstm.Linear(4, 1, seed=1))
_ = cylstm.Trainer(model, cylstm.losses.MSE(), seed=0).fit((x, x[:, 0, :1]), epochs=3)
"""


@pytest.mark.slow
@pytest.mark.process
def test_a_real_notebook_shows_a_training(tmp_path):
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason=f"{module} is not installed; it runs notebooks")
    run = [sys.executable, "-c", NOTEBOOK, CELL]
    shown = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=True).stdout
    assert "epoch 3/3, 6 of 6 batches" in shown or "jupyter.widget-view+json" in shown


def test_no_progress_by_default(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Stream(is_terminal=True))
    x, y = series(20)
    cylstm.Trainer(pooled(), losses.MSE(), seed=0).fit((x, y), epochs=1, progress=False)
    assert stream.getvalue() == ""
