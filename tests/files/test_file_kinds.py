"""Kinds of files by their content, whatever their names are."""

import gzip
import json
import pickle
import zipfile

import numpy as np
import pytest

import cylstm
from cylstm._formats.file_kinds import file_kind


def write(tmp_path, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty"),
        (b"date,sales\n2020,1\n", "text"),
        ("größe\n1\n".encode("cp1252"), "text"),
        ("größe\n1\n".encode("utf-16"), "text"),
        (bytes(range(256)) * 20, "unknown"),
        (pickle.dumps({"a": 1}), "pickle"),
        (pickle.dumps([1, 2], protocol=2), "pickle"),
        (pickle.dumps({"w": np.zeros(3)}), "numpy-pickle"),
        (pickle.dumps(np.zeros(3), protocol=2), "numpy-pickle"),
        (pickle.dumps(np.zeros(3), protocol=0), "numpy-pickle"),
        (gzip.compress(b"text"), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git-lfs"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "html"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "hdf5"),
        (b"PAR1" + bytes(100), "parquet"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "tflite"),
    ],
)
def test_file_kind_of_bytes(tmp_path, content, name):
    assert file_kind(write(tmp_path, content)).name == name


def test_file_kind_of_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "a.npz", first=np.zeros(3), second=np.zeros(40_000))
    assert [file_kind(tmp_path / name).name for name in ("a.npy", "object.npy", "a.npz")] == [
        "npy", "npy", "npz",
    ]  # fmt: skip


def test_file_kind_of_archives(tmp_path):
    def archive(*names):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            for name in names:
                file.writestr(name, b"x" * 100_000)
        return file_kind(tmp_path / "a.zip").name

    assert archive("notes.txt") == "zip"
    assert archive("[Content_Types].xml", "xl/workbook.xml") == "workbook"
    assert archive("metadata.json", "config.json", "model.weights.h5") == "keras"
    assert archive("m/data/0", "m/data.pkl", "m/version") == "torch"
    assert archive("m/constants.pkl", "m/data.pkl", "m/code/x.py") == "torchscript"


def test_file_kind_of_safetensors_whatever_its_header_length(tmp_path):
    """Header lengths whose bytes begin like a zip archive or a pickle."""
    cylstm.save(cylstm.LSTM(3, 4), tmp_path / "m")
    assert file_kind(tmp_path / "m").name == "safetensors"
    for length in (int.from_bytes(b"\x80\x02}\0\0\0\0\0", "little"), 128 + 2 * 256):
        header = json.dumps({"__metadata__": {"a": "b"}}).ljust(length).encode()
        content = len(header).to_bytes(8, "little") + header
        assert file_kind(write(tmp_path, content)).name == "safetensors"


def test_file_kind_of_torch_files(tmp_path, torch):
    weights = torch.nn.LSTM(3, 4).state_dict()
    torch.save(weights, tmp_path / "new.pt")
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert file_kind(tmp_path / "new.pt").name == file_kind(tmp_path / "old.pt").name == "torch"


def test_file_kind_of_onnx(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed; ONNX files are written with it")
    cylstm.convert.to_onnx(cylstm.Sequential(cylstm.LSTM(3, 4)), tmp_path / "m.onnx")
    assert file_kind(tmp_path / "m.onnx").name == "onnx"


def test_file_kind_opens_no_pipe_and_no_folder(pipe, tmp_path):
    assert file_kind(pipe).name == file_kind(tmp_path).name == file_kind(tmp_path / "none").name == "unknown"


def test_advice_names_reader_or_fix(tmp_path):
    assert file_kind(write(tmp_path, b"PAR1")).advice == "; write it as CSV"
    assert file_kind(write(tmp_path, b"\x08\x08\x12\x07")).advice == "; cylstm.from_onnx reads it"
    assert file_kind(write(tmp_path, b"\xff\x00\x01")).advice == ""
