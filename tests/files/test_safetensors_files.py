"""Safetensors files agree with the format's own library, and take no second copy of their tensors."""

import json
import os
import struct
import sys

import numpy as np
import pytest
import safetensors.numpy
from memory import peak_of

import cylstm
from cylstm._formats.safetensors import SafetensorsError, SafetensorsFile, write

TYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def tensors_of_every_type(rng):
    tensors = {f"t{code}": (rng.standard_normal((3, 5)) * 9).astype(code) for code in TYPES}
    return tensors | {"empty": np.zeros((0, 4), "f4"), "one": np.array(2.5), "ü": np.arange(7)}


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


def test_writer_agrees_with_the_formats_library(tmp_path, rng):
    tensors = tensors_of_every_type(rng)
    write(tmp_path / "t", tensors, {"a": "ü"})
    assert_same(safetensors.numpy.load_file(tmp_path / "t"), tensors)
    with safetensors.safe_open(tmp_path / "t", framework="numpy") as file:
        assert file.metadata() == {"a": "ü"}


def test_reader_agrees_with_the_formats_library(tmp_path, rng):
    tensors = tensors_of_every_type(rng)
    safetensors.numpy.save_file(tensors, tmp_path / "t", {"b": "1"})
    with SafetensorsFile(tmp_path / "t") as file:
        assert file.metadata == {"b": "1"}
        assert_same({name: file.read(name) for name in file.tensors}, tensors)


def test_writer_takes_foreign_arrays(tmp_path, rng):
    value = rng.standard_normal((4, 6))
    tensors = {
        "swapped": value.astype(">f8"),
        "columns": np.asfortranarray(value),
        "strided": value[::2, ::3],
    }
    write(tmp_path / "t", tensors, {})
    for name, array in safetensors.numpy.load_file(tmp_path / "t").items():
        np.testing.assert_array_equal(array, tensors[name])
    with pytest.raises(TypeError, match=r"tensor c: expected one of BOOL, .*, got complex128"):
        write(tmp_path / "t", {"c": np.zeros(2, complex)}, {})


def test_bfloat16_is_read_as_float32(tmp_path):
    entry = {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}
    raw_file(tmp_path / "t", {"w": entry}, struct.pack("<3H", 0x3F80, 0xC000, 0x7F80))
    with SafetensorsFile(tmp_path / "t") as file:
        values = file.read("w")
    assert values.dtype == np.float32
    assert values.tolist() == [1.0, -2.0, np.inf]


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED = {
    "short": (b"\0\1\2", "is truncated"),
    "long header": (struct.pack("<Q", 2**60) + b"{}" * 9, "has no safetensors header, or is truncated"),
    "not JSON": ({"w": entry()}, "header is not JSON"),
    "deep": (b'{"w":' + b"[" * 99_999, "header is not JSON"),
    "digits": (b'{"w":{"dtype":"F32","shape":[' + b"9" * 99_999 + b'],"data_offsets":[0,8]}}', "not JSON"),
    "metadata": ({"__metadata__": {"a": 1}}, "metadata is invalid"),
    "no entry": ({"w": 3}, "tensor w: expected a dtype, a shape and two offsets, got 3"),
    "negative": ({"w": entry(shape=(-2,))}, "expected a dtype, a shape and two offsets"),
    "true": ({"w": entry(shape=(True, 2))}, "expected a dtype, a shape and two offsets"),
    "bytes": ({"w": entry(shape=(3,))}, r"tensor w: expected F32 \(3,\), got 8 bytes"),
    "beyond": ({"w": entry(shape=(4,), offsets=(0, 16))}, "offsets overlap, leave a gap or exceed the file"),
    "backwards": (
        {"w": entry(offsets=(0, 8)), "v": entry(shape=(0,), offsets=(8, 4))},
        "its offsets overlap",
    ),
    "overlap": ({"w": entry(), "v": entry(offsets=(0, 8))}, "its offsets overlap"),
    "hole": ({"w": entry(shape=(1,), offsets=(4, 8))}, "its offsets overlap"),
    "left over": ({"w": entry(shape=(1,), offsets=(0, 4))}, "expected 4 bytes of tensors, got 8"),
    "dimensions": ({"w": entry(shape=(2**62,) * 50_000)}, "got 8 bytes"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_rejected(name, tmp_path):
    header, message = DAMAGED[name]
    path = raw_file(tmp_path / "t", header, bytes(8))
    if name == "not JSON":
        path.write_bytes(path.read_bytes().replace(b'"dtype"', b'"dtype '))
    if name in ("short", "long header"):
        path.write_bytes(header)

    def rejected():
        with pytest.raises(SafetensorsError, match=message), SafetensorsFile(path):
            pass

    assert peak_of(rejected) < 20e6


def test_unknown_types_are_named_when_they_are_read(tmp_path):
    raw_file(tmp_path / "t", {"w": entry("F8_E4M3", (8,))}, bytes(8))
    with SafetensorsFile(tmp_path / "t") as file, pytest.raises(SafetensorsError, match="got F8_E4M3"):
        file.read("w")


def test_file_that_becomes_shorter_is_an_error(tmp_path):
    path = tmp_path / "m.safetensors"
    cylstm.save(cylstm.LSTM(64, 64), path)
    with SafetensorsFile(path) as file:
        os.truncate(path, 5000)
        with pytest.raises(SafetensorsError, match="was truncated while it was read"):
            file.read("weight_hh_l0")


def test_truncation_during_load_is_a_model_file_error(tmp_path, monkeypatch):
    path, read_into = tmp_path / "m.safetensors", SafetensorsFile.read_into
    cylstm.save(cylstm.LSTM(64, 64), path)

    def cut(file, name, out):
        os.truncate(path, 5000)
        read_into(file, name, out)

    monkeypatch.setattr(SafetensorsFile, "read_into", cut)
    with pytest.raises(cylstm.ModelFileError, match="was truncated while it was read"):
        cylstm.load(path)


@pytest.mark.skipif(sys.byteorder == "big", reason="reads into a second array there")
def test_reading_and_writing_take_no_second_copy(tmp_path):
    tensors = {"a": np.ones((500, 1000)), "b": np.ones((1000, 500), "f4")}
    size = sum(tensor.nbytes for tensor in tensors.values())
    assert peak_of(lambda: write(tmp_path / "t", tensors, {})) < 0.1 * size
    with SafetensorsFile(tmp_path / "t") as file:
        out = np.empty((500, 1000))
        assert peak_of(lambda: file.read_into("a", out)) < 0.1 * size
    np.testing.assert_array_equal(out, tensors["a"])
