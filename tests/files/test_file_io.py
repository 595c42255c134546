"""Files are opened only if they are files, and written whole, durably, and without leftovers."""

import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import cylstm
from cylstm import files
from cylstm._system import atomic_files
from cylstm.training import checkpoints

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@pytest.fixture(params=["unnamed", "named"])
def way(request, monkeypatch):
    """Both ways of writing: that of Linux, and that of other systems."""
    if request.param == "unnamed" and not hasattr(os, "O_TMPFILE"):
        pytest.skip("needs O_TMPFILE")
    if request.param == "named":
        monkeypatch.setattr(atomic_files, "_write_unnamed", lambda *_: False)
    return request.param


READERS = {
    "load": cylstm.load,
    "load_with_extra": files.load_with_extra,
    "from_torch": cylstm.from_torch,
    "from_onnx": cylstm.from_onnx,
    "checkpoint": checkpoints.read,
    "check_readable": files.check_readable,
}


@posix
@pytest.mark.parametrize("reader", READERS)
def test_readers_reject_non_files(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(OSError, match=message) as caught:
            READERS[reader](path)
        assert caught.value.filename == str(path)
    assert not files.is_model(tmp_path / "pipe")


@posix
def test_path_that_becomes_a_pipe_is_refused_when_it_is_opened(tmp_path, monkeypatch):
    """What was opened is examined: nothing between a check of the path and its opening can exchange it."""
    path = tmp_path / "m"
    path.write_bytes(b"x")
    opened = os.open

    def exchanged(name, *arguments):
        os.unlink(name)
        os.mkfifo(name)
        return opened(name, *arguments)

    monkeypatch.setattr(os, "open", exchanged)
    with pytest.raises(OSError, match="not a regular file"):
        atomic_files.open_regular(path)


def test_content_in_parts_is_written_whole(tmp_path, way):
    parts = [b"ab", memoryview(b"cd"), np.frombuffer(b"efgh", "u1").data, b""]
    for _ in range(2):  # a new file, and one that is replaced
        atomic_files.write_atomically(tmp_path / "t", parts)
        assert (tmp_path / "t").read_bytes() == b"abcdefgh"
    assert os.listdir(tmp_path) == ["t"]


@posix
def test_file_and_its_folder_are_flushed(tmp_path, way, monkeypatch):
    flushed, real = [], os.fsync

    def fsync(handle):
        status = os.fstat(handle)
        flushed.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        assert flushed[-1] != "folder" or (tmp_path / "t").exists()  # after it has its name
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_files.write_atomically(tmp_path / "t", b"abc")
    assert flushed == [3, "folder"]


def lines_of(function):
    """Places of all lines that a call of functions in atomic_files.py runs."""
    found = []

    def trace(frame, event, _):
        if frame.f_code.co_filename != atomic_files.__file__:
            return None
        if event == "line":
            found.append((frame.f_code.co_name, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)
    return found


def interrupted_at(function, count):
    """Call a function, with a KeyboardInterrupt at the line of atomic_files.py that runs as the count-th."""
    run = 0

    def trace(frame, event, _):
        nonlocal run
        if frame.f_code.co_filename != atomic_files.__file__:
            return None
        if event == "line":
            run += 1
            if run == count:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the file object closes itself where it is lost
@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage traces")
@pytest.mark.parametrize("earlier", [b"earlier", None])
def test_interrupt_at_any_line_leaves_no_other_file(tmp_path, way, earlier):
    def write():
        atomic_files.write_atomically(tmp_path / "t", b"new")

    def begin():
        (tmp_path / "t").unlink(missing_ok=True)
        if earlier is not None:
            (tmp_path / "t").write_bytes(earlier)

    begin()
    lines, tried = lines_of(write), 0
    for count, (function, _) in enumerate(lines, 1):
        if function == "_remove":  # which is the clean-up itself
            continue
        begin()
        with pytest.raises(KeyboardInterrupt):
            interrupted_at(write, count)
        assert set(os.listdir(tmp_path)) <= {"t"}, lines[count - 1]
        if (tmp_path / "t").exists():
            assert (tmp_path / "t").read_bytes() in (earlier, b"new")
        else:
            assert earlier is None
        tried += 1
    assert tried > 15


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system gives every file a name")
def test_killed_writer_leaves_nothing(tmp_path):
    script = f"""
import os, signal
from cylstm._system import atomic_files
class Killing(list):
    def __iter__(self):
        yield b"x" * 1_000_000
        os.kill(os.getpid(), signal.SIGKILL)
atomic_files.write_atomically({str(tmp_path / "t")!r}, Killing())
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert os.listdir(tmp_path) == []


def test_many_writers_of_one_path_leave_one_whole_file(tmp_path, way):
    contents = [bytes([65 + k]) * 100_000 for k in range(8)]

    def write(content):
        for _ in range(10):
            atomic_files.write_atomically(tmp_path / "t", content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "t").read_bytes() in contents
    assert os.listdir(tmp_path) == ["t"]


def test_check_writable_leaves_nothing(tmp_path):
    files.check_writable(tmp_path / "t")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="cannot write here") as caught:
        files.check_writable(tmp_path / "none" / "t")
    assert caught.value.filename == str(tmp_path / "none" / "t")


WRITERS = {
    "save": "cylstm.save(model, path)",
    "to_safetensors": "cylstm.convert.to_safetensors(model, path)",
    "checkpoint": 'checkpoints.write(path, {"a": np.zeros(100_000)}, {})',
    "to_onnx": "cylstm.convert.to_onnx(model, path)",
    "write_atomically": "atomic_files.write_atomically(path, bytes(100_000))",
}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_error_names_the_file(writer, earlier, tmp_path):
    if writer == "to_onnx":
        pytest.importorskip("onnx", reason="onnx writes these files")
    path = tmp_path / "out.file"
    if earlier:
        path.write_bytes(b"earlier")
    script = f"""
import resource, signal
import numpy as np
import cylstm
from cylstm import convert
from cylstm._system import atomic_files
from cylstm.training import checkpoints
path, model = {str(path)!r}, cylstm.LSTM(2, 100, seed=0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    {WRITERS[writer]}
except OSError as error:
    print(error.errno, error.filename == path, path in str(error))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "27 True True\n", result.stderr
    assert os.listdir(tmp_path) == (["out.file"] if earlier else [])
    assert not earlier or path.read_bytes() == b"earlier"
