"""Text files: encodings, what is no text, and what is no file."""

import os
import subprocess
import sys
import threading

import pytest

from cylstm.data import text_files
from cylstm.data.text_files import DataFileError, listed, read_text, text_lines

TEXT = "Zug nach Köln\nund zurück\n"


def write(tmp_path, content):
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be with mark", "utf-32-be with mark"]
)
def test_text_with_and_without_byte_order_marks(tmp_path, encoding):
    name, _, marked = encoding.partition(" with ")
    content = (("\ufeff" if marked else "") + TEXT).encode(name)
    assert read_text(write(tmp_path, content)) == TEXT


def test_ends_of_lines_are_line_feeds_unless_they_are_asked_for(tmp_path):
    path = write(tmp_path, b"a\r\nb\rc\n")
    assert read_text(path) == "a\nb\nc\n"
    assert list(text_lines(path, newline="")) == ["a\r\n", "b\r", "c\n"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\nKöln\n".encode("cp1252"), r"line 3: expected a text file in UTF-8, got the byte 0xf6"),
        (b"a\n" * 9000 + b"\xff", "line 9001: expected a text file in UTF-8, got the byte 0xff"),
        ("a\nb\n".encode("utf-16-le"), "line 1: .* got a NUL byte .a binary file, or UTF-16 without"),
        (b"a\n" * 9000 + b"\0", "line 9001: expected a text file in UTF-8, got a NUL byte"),
        ("a\n".encode("utf-16") + b"b", "line 2: expected a text file in UTF-16: truncated data"),
        (b"\x93NUMPY\x01\0" + bytes(200), r"file\.txt: expected a text file, got a NumPy array file"),
        (b"\x1f\x8b\x08\0" + bytes(20), r"file\.txt: expected a text file, got a gzip file"),
    ],
)
def test_invalid_text_error_names_line(tmp_path, content, message):
    with pytest.raises(DataFileError, match=message):
        read_text(write(tmp_path, content))


def test_comments_may_hold_bytes_of_any_encoding(tmp_path):
    path = write(tmp_path, b"# caf\xe9\na\n")
    assert list(text_lines(path, comment="#"))[1:] == ["a\n"]
    with pytest.raises(DataFileError, match=r"line 2: .* got the byte 0xe9"):
        list(text_lines(write(tmp_path, b"# caf\xe9\ncaf\xe9\n"), comment="#"))


def test_only_regular_files_are_opened(pipe, tmp_path):
    for path in [pipe, "/dev/zero"] if os.path.exists("/dev/zero") else [pipe]:
        with pytest.raises(OSError, match="not a regular file") as raised:
            read_text(path)
        assert raised.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)


@pytest.mark.process
@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="this system has no /dev/fd")
def test_a_pipe_that_the_shell_passes_is_read(tmp_path):
    reader, writer = os.pipe()
    late = threading.Timer(0.2, lambda: (os.write(writer, TEXT.encode()), os.close(writer)))
    late.start()
    try:
        assert read_text(f"/dev/fd/{reader}") == TEXT
    finally:
        late.join()
        os.close(reader)
    script = "from cylstm.data.text_files import read_text; print(read_text('/dev/stdin'), end='')"
    run = subprocess.run([sys.executable, "-c", script], input="passed", capture_output=True, text=True)
    assert run.stdout == "passed"


@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="this system has no /dev/fd")
def test_no_more_is_read_than_memory_has_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "largest", lambda: 2**20)
    path = write(tmp_path, b"a" * 2**21)
    with pytest.raises(MemoryError, match=r"file\.txt: expected at most 0\.0 GiB, a sixteenth of this"):
        read_text(path)
    with path.open("rb") as file, pytest.raises(MemoryError, match=r"/dev/fd/\d+: expected at most"):
        read_text(f"/dev/fd/{file.fileno()}")


def test_listed_names_are_short():
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(1000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (1000 in all)"
    assert listed(["x" * 100]) == "x" * 39 + "…"


def test_an_error_words_its_argument_as_the_caller_has_it():
    error = DataFileError("problem", "missing", "interpolate", "to fill them").at("x.csv, line 1")
    assert str(error) == "x.csv, line 1: problem; pass missing='interpolate' to fill them"
    assert error.worded("--fill") == "x.csv, line 1: problem; pass --fill to fill them"
    assert str(DataFileError("problem")) == DataFileError("problem").worded("--fill") == "problem"
