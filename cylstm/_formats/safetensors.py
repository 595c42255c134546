"""Reading and writing of safetensors files (https://github.com/huggingface/safetensors).

A file consists of the header length in 8 bytes, the header as a JSON object, and the bytes of the tensors.
Files are not memory-mapped: if another program truncates a file during reading, an error is raised, whereas
access to a map would kill the process. Tensors are read and written without intermediate copies.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.file_kinds import SAFETENSORS, UNKNOWN, file_kind
from cylstm._system.atomic_files import Path, open_regular, write_atomically

Array = NDArray[Any]
LARGEST_HEADER = 100_000_000  # bytes, the limit of the format
DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "<u2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}


class SafetensorsError(ValueError):
    """A file is not a valid safetensors file."""


class Tensor(NamedTuple):
    """The header entry of a tensor: dtype, shape, and byte offsets."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """An open file with a validated header; tensors are read on demand. A context manager.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    size : int
        Size of the file in bytes.
    metadata : dict of str to str
    tensors : dict of str to Tensor

    Raises
    ------
    SafetensorsError
        If it is not a valid safetensors file.
    OSError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        try:
            self.size = self._file.seek(0, 2)
            self._file.seek(0)
            try:
                header, self._data_offset = _header(self._file, self.size)
            except SafetensorsError as error:
                kind = file_kind(path)
                if kind in (UNKNOWN, SAFETENSORS):
                    raise
                raise SafetensorsError(f"it is {kind.words}{kind.advice}") from error
            self.metadata = _metadata(header.pop("__metadata__", None))
            self.tensors = {name: _tensor(name, entry) for name, entry in header.items()}
            _check_offsets(self.tensors, self.size - self._data_offset)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "SafetensorsFile":
        """Return the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> Array:
        """Read a tensor into a new array; BF16, which NumPy lacks, becomes float32."""
        tensor = self.tensors[name]
        if tensor.dtype not in DTYPES:
            raise SafetensorsError(f"tensor {name}: expected one of {', '.join(DTYPES)}, got {tensor.dtype}")
        raw = np.empty(tensor.shape, DTYPES[tensor.dtype])
        self._read_into(tensor, raw)
        if tensor.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw if raw.dtype.isnative else raw.astype(raw.dtype.newbyteorder("="))

    def read_into(self, name: str, out: Array) -> None:
        """Read a tensor into a contiguous array of its shape and dtype."""
        if sys.byteorder == "little":
            self._read_into(self.tensors[name], out)
        else:
            out[...] = self.read(name)

    def _read_into(self, tensor: Tensor, out: Array) -> None:
        buffer = out.reshape(-1).view(np.uint8).data if out.size else memoryview(b"")
        self._file.seek(self._data_offset + tensor.begin)
        done = 0
        while done < len(buffer):
            count = self._file.readinto(buffer[done:])  # type: ignore[attr-defined]
            if not count:
                raise SafetensorsError("it was truncated while it was read")
            done += count


def write(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a file atomically, without a copy of its content in memory.

    Raises
    ------
    TypeError
        If the format does not support the dtype of a tensor.
    OSError
        If `write_atomically` raises it.
    """
    write_atomically(path, _parts(tensors, metadata))


def _parts(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the header and the tensors, sorted by descending item size to align them."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    ordered, begin = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])), 0
    for name, array in ordered:
        if (dtype := _NAMES.get(array.dtype.newbyteorder("<"))) is None:
            raise TypeError(f"tensor {name}: expected one of {', '.join(DTYPES)}, got {array.dtype}")
        end = begin + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"expected at most {LARGEST_HEADER} bytes of architecture and metadata, got {len(text)}"
        )
    return [len(text).to_bytes(8, "little") + text, *(bytes_of(array) for _, array in ordered)]


def bytes_of(array: Array) -> memoryview:
    """Return the bytes of an array in C order and little-endian."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Read the header; return it with the offset of the tensor data."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LARGEST_HEADER):
        raise SafetensorsError("it has no safetensors header, or is truncated")
    text = file.read(length)
    if len(text) < length:
        raise SafetensorsError("it was truncated while it was read")
    if not text.startswith(b"{"):
        raise SafetensorsError("it has no safetensors header")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its safetensors header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise SafetensorsError("its safetensors header is not a JSON object")
    return header, 8 + length


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise SafetensorsError("its metadata is invalid: expected an object of strings")
    return value


def _tensor(name: str, entry: Any) -> Tensor:
    values = entry if isinstance(entry, dict) else {}
    dtype, shape = values.get("dtype"), _sizes(values.get("shape"))
    offsets = _sizes(values.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise SafetensorsError(
            f"tensor {name}: expected a dtype, a shape and two offsets, got {repr(entry)[:200]}"
        )
    return Tensor(dtype, shape, *offsets)


def _sizes(values: Any) -> tuple[int, ...] | None:
    """Convert a list of non-negative ints to a tuple; None for anything else."""
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        return None
    return tuple(values)


def _check_offsets(tensors: Mapping[str, Tensor], size: int) -> None:
    """Raise an error for tensors that overlap, leave gaps, or whose size does not match their shape."""
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position or not tensor.begin <= tensor.end <= size:
            raise SafetensorsError(f"tensor {name}: its offsets overlap, leave a gap or exceed the file")
        position = tensor.end
        if tensor.dtype in DTYPES:
            expected = np.dtype(DTYPES[tensor.dtype]).itemsize * _count(tensor.shape, size)
            if expected != tensor.end - tensor.begin:
                raise SafetensorsError(
                    f"tensor {name}: expected {tensor.dtype} {str(tensor.shape)[:200]}, "
                    f"got {tensor.end - tensor.begin} bytes"
                )
    if position != size:
        raise SafetensorsError(f"expected {position} bytes of tensors, got {size}")


def _count(shape: tuple[int, ...], size: int) -> int:
    """Count the elements of this shape; stop at any count above `size`."""
    if 0 in shape:
        return 0
    count = 1
    for length in shape:
        count *= length
        if count > size:
            break
    return count
