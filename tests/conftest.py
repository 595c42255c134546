import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

# The same examples in every CI run: a failure there is one of the change, not of the draw.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items):
    """Tests with PyTorch compare with it."""
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.peer)


@pytest.fixture
def rng(request):
    """Random numbers seeded by the name of the test and of its file, wherever it is."""
    file, _, test = request.node.nodeid.partition("::")
    return np.random.default_rng(list(f"tests/{file.rpartition('/')[2]}::{test}".encode()))


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, as in the foreground; a job in the background ignores it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.fixture
def pipe(tmp_path):
    """A pipe with a name, as the shell's mkfifo makes it."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def dataset():
    """The folder of a data set by its name; where that is not there the test is skipped."""

    def folder(name):
        path = Path(__file__).parents[2] / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"needs the data set {name}, in shared/data beside the project")
        return path

    return folder


@pytest.fixture
def torch():
    """PyTorch on one thread, as an oracle; where it is not installed the test is skipped."""
    module = pytest.importorskip("torch", reason="PyTorch is not installed; it is an oracle for this test")
    module.set_num_threads(1)
    return module


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "data.csv"
    t = np.arange(120)
    rows = zip(t, np.sin(t / 4), np.cos(t / 4) + 3, strict=True)
    path.write_text("day,a,b\n" + "".join(f"d{d},{a},{b}\n" for d, a, b in rows))
    return path
