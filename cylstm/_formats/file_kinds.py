"""Detection of file kinds by content, for error messages that name what was found.

`file_kind(path)` is called by readers that find an unexpected format. It unpickles nothing and needs no
optional dependency.
"""

import os
import re
import stat
from typing import NamedTuple

START = 4096  # number of bytes to inspect

TORCH_SAVED = "save its weights with safetensors.torch.save_file(model.state_dict(), path)"
NUMPY_SAVED = "save weights, under PyTorch's names, with safetensors.numpy.save_file(weights, path)"


class FileKind(NamedTuple):
    """A kind of file.

    Parameters
    ----------
    name : str
        A short identifier, such as "onnx" or "unknown".
    words : str
        A description with an article, for messages: "a pickle of NumPy arrays".
    reader : str
        The function of cylstm that reads such files; empty if there is none.
    fix : str
        An imperative that says how else to obtain a model from it; empty if unknown.
    """

    name: str
    words: str
    reader: str = ""
    fix: str = ""

    @property
    def advice(self) -> str:
        """The end of an error message that says what to do, "; cylstm.from_onnx reads it", or empty."""
        if self.reader:
            return f"; {self.reader} reads it"
        return f"; {self.fix}" if self.fix else ""


UNKNOWN = FileKind("unknown", "a binary file of unknown kind")
EMPTY = FileKind("empty", "an empty file")
TEXT = FileKind("text", "a text file")
SAFETENSORS = FileKind("safetensors", "a safetensors file", "cylstm.from_torch")
ONNX = FileKind("onnx", "an ONNX model", "cylstm.from_onnx")
KERAS = FileKind("keras", "a Keras model", "cylstm.from_keras")
HDF5 = FileKind("hdf5", "an HDF5 file, such as Keras weights", "cylstm.from_keras")
TORCH = FileKind("torch", "a PyTorch file, whose pickle could run arbitrary code", fix=TORCH_SAVED)
TORCHSCRIPT = FileKind("torchscript", "a TorchScript archive of PyTorch", fix=TORCH_SAVED)
NPY = FileKind("npy", "a NumPy array file (.npy), not a model")
NPZ = FileKind("npz", "a NumPy archive (.npz), not a model", fix=NUMPY_SAVED)
NUMPY_PICKLE = FileKind(
    "numpy-pickle", "a pickle of NumPy arrays, which could run arbitrary code", fix=NUMPY_SAVED
)
SKLEARN_PICKLE = FileKind(
    "sklearn-pickle", "a pickle of scikit-learn objects, which could run arbitrary code"
)
PICKLE = FileKind("pickle", "a Python pickle, which could run arbitrary code")
WORKBOOK = FileKind("workbook", "a spreadsheet", fix="export the sheet as CSV")
ZIP = FileKind("zip", "a zip archive", fix="unpack it")
LFS_POINTER = FileKind(
    "git-lfs", "a Git LFS pointer, not the file itself", fix="fetch the file with git lfs pull"
)
HTML = FileKind("html", "an HTML page, perhaps from a failed download", fix="download the file again")
MAGIC = (
    (b"\x93NUMPY", NPY),
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", WORKBOOK),
    (b"version https://git-lfs.github.com/spec/", LFS_POINTER),
    (b"\x1f\x8b", FileKind("gzip", "a gzip file", fix="unpack it with gunzip")),
    (b"BZh", FileKind("bzip2", "a bzip2 file", fix="unpack it with bunzip2")),
    (b"\xfd7zXZ\0", FileKind("xz", "an xz file", fix="unpack it with unxz")),
    (b"\x28\xb5\x2f\xfd", FileKind("zstd", "a Zstandard file", fix="unpack it with unzstd")),
    (b"GGUF", FileKind("gguf", "a GGUF model")),
    (b"PAR1", FileKind("parquet", "a Parquet table", fix="write it as CSV")),
    (b"ARROW1", FileKind("arrow", "an Arrow table", fix="write it as CSV")),
    (b"SQLite format 3\0", FileKind("sqlite", "an SQLite database", fix="export the table as CSV")),
    (b"%PDF", FileKind("pdf", "a PDF document")),
    (b"\x89PNG", FileKind("png", "a PNG picture")),
    (b"\x7fELF", FileKind("elf", "a program or shared library")),
)  # fmt: skip


def file_kind(path: str | os.PathLike[str]) -> FileKind:
    """Detect the kind of a file from its content.

    Parameters
    ----------
    path : path
        A path that is not a readable regular file gives `UNKNOWN`.

    Examples
    --------
    >>> import os, pickle, tempfile
    >>> import numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.bin")
    >>> with open(path, "wb") as file:
    ...     pickle.dump({"w": np.zeros(3)}, file)
    >>> file_kind(path).words
    'a pickle of NumPy arrays, which could run arbitrary code'
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return UNKNOWN
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return UNKNOWN
            start = file.read(START)
            size = os.fstat(handle).st_size
            if start.startswith(b"PK\x03\x04"):
                file.seek(max(0, size - 16 * START))  # the directory of a zip archive is at the end
                return _of_zip(start + file.read(16 * START))
            if _is_pickle(start, size):
                return _of_pickle(start + file.read(16 * START))
    except OSError:
        return UNKNOWN
    return _of_start(start, size)


def _of_start(start: bytes, size: int) -> FileKind:
    if not size:
        return EMPTY
    for magic, kind in MAGIC:
        if start.startswith(magic):
            return kind
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= size - 8:
        return SAFETENSORS
    if start[4:8] == b"TFL3":
        return FileKind("tflite", "a TensorFlow Lite model")
    # ModelProto of ONNX has no magic number: match ir_version (field 1) and a length-delimited field.
    if re.match(rb"\x08[\x01-\x20][\x12\x1a\x22\x32\x3a\x42\x72]", start):
        return ONNX
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return HTML
    return TEXT if _is_text(start) else UNKNOWN


def _is_text(start: bytes) -> bool:
    """Whether it may be text: UTF-16 with a byte order mark, or any encoding without control characters."""
    return start.startswith((b"\xff\xfe", b"\xfe\xff")) or not re.search(rb"[\0-\x08\x0e-\x1a]", start)


def _of_zip(content: bytes) -> FileKind:
    """Detect the kind of a zip archive by its member names, in local headers and the central directory."""
    if b"/data.pkl" in content:
        return TORCHSCRIPT if b"/constants.pkl" in content or b"/code/" in content else TORCH
    if b"model.weights.h5" in content and b"config.json" in content:
        return KERAS
    if b"[Content_Types].xml" in content or b"application/vnd.oasis.opendocument.spreadsheet" in content:
        return WORKBOOK
    return NPZ if b".npyPK" in content or re.search(rb"\.npy[^\w]", content) else ZIP


def _is_pickle(start: bytes, size: int) -> bool:
    """Whether it is a pickle (protocol 2 or later, or of an object) and not a safetensors file."""
    opcodes = rb"\x80[\x02-\x05][\x95\x8a\x8c()\]}cqXKJMNGU\x88\x89]|\(?c[a-z_]\w*(\.\w+)*\n\w+\n"
    return bool(re.match(opcodes, start)) and _of_start(start, size) is not SAFETENSORS


def _of_pickle(content: bytes) -> FileKind:
    """Detect the kind of a pickle by the modules it names."""
    if b"l\xfc\x9cF\xf9 j\xa8P\x19" in content[:20] or b"torch" in content:  # torch.save before 1.6
        return TORCH
    if b"sklearn" in content:
        return SKLEARN_PICKLE
    return NUMPY_PICKLE if b"numpy" in content else PICKLE
