"""Model files: safetensors with the architecture in the metadata.

A file is a safetensors file (https://github.com/huggingface/safetensors) whose tensors are
the parameters by name, and whose metadata holds one entry `cylstm`, a JSON object::

    {"format": 2, "model": {"type": "Sequential", "layers": [...]}, "scalers": {"x": {...}},
     "extra": {...}, "sha256": "..."}

`model` is the layers' configuration, `scalers` that of the model's scalers, `extra` what the caller
stored with the model, `sha256` the digest of these and of the tensors' bytes (see `_digest`). Format 1,
which is still read, had no scalers. Nothing is ever unpickled. A reader builds a model only after the
architecture has been found to fit the tensors that are really in the file, so a hostile file cannot ask
for memory.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cylstm.data.scalers import Scaler
from cylstm.layer import LAYER_TYPES, Layer, from_config

FORMAT = 2
DIGESTED = {1: ("model", "extra"), 2: ("model", "extra", "scalers")}  # of each format that is read
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's and safetensors' names


class ModelFileError(ValueError):
    """A file that is no cylstm model, or a damaged one; the message says what is wrong with it."""


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment either the old or the whole new one is there.

    A link stays, and its target is replaced; a file that is replaced keeps its permissions.

    Raises
    ------
    OSError
        If the folder cannot be written to; an earlier file is untouched.
    """
    path = Path(os.path.realpath(path))
    handle, temporary = _new_file_beside(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that `write_atomically` would, before the work whose result it is to keep."""
    handle, temporary = _new_file_beside(Path(os.path.realpath(path)))
    os.close(handle)
    os.unlink(temporary)


def check_readable(path: str | os.PathLike[str]) -> None:
    """Raise an OSError that names a file which is missing or cannot be read.

    A pipe is refused: opening it would wait for another program.
    """
    _check_regular(Path(path))
    with open(path, "rb"):
        pass


def _check_regular(path: Path) -> None:
    """Refuse what is there and is no file."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _new_file_beside(path: Path) -> tuple[int, Path]:
    """Handle and path of a new file in the folder of one that may be replaced."""
    _check_regular(path)  # a rename would destroy a device or a pipe
    temporary = path.parent / f".cylstm-{os.urandom(8).hex()}"
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        return os.open(temporary, flags, 0o666), temporary
    except OSError as error:
        raise OSError(error.errno, f"cannot write here: {error.strerror}", str(path)) from None


def save(model: Layer, path: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model to a safetensors file, atomically.

    Parameters
    ----------
    model : Layer
    path : path
        An earlier file of this name is replaced when the new one is complete.
    extra : mapping, optional
        JSON values to keep with the model; `load_with_extra` gives them back.

    Examples
    --------
    >>> import os, tempfile
    >>> import cylstm
    >>> path = os.path.join(tempfile.mkdtemp(), "m.safetensors")
    >>> cylstm.save(cylstm.LSTM(3, 4), path)
    >>> cylstm.load(path)  # doctest: +ELLIPSIS
    LSTM(input_size=3, hidden_size=4, num_layers=1, bias=True, bidirectional=False, batch_first=False, ...)
    """
    import safetensors.numpy

    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a cylstm layer or Sequential, got {type(model).__name__}")
    tensors = model.state_dict()
    description = {
        "format": FORMAT,
        "model": {"type": type(model).__name__, **model.config},
        "scalers": _scaler_configs(model),
        "extra": json.loads(json.dumps(dict(extra or {}), allow_nan=False)),  # as a reader will find it
    }
    description["sha256"] = _digest(description, tensors)
    metadata = {"cylstm": json.dumps(description, allow_nan=False)}
    write_atomically(path, safetensors.numpy.save(tensors, metadata))


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that `save` wrote; it is in the mode of `eval()`.

    Raises
    ------
    ModelFileError
        If the file is damaged, or is not a cylstm model.
    OSError
        If it cannot be read.
    """
    return load_with_extra(path)[0]


def load_with_extra(path: str | os.PathLike[str]) -> tuple[Layer, dict[str, Any]]:
    """As `load`; also what was stored as `extra`."""
    with _opened(path) as (file, description):
        _check_architecture(description["model"], file, Path(path).stat().st_size)
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        model = from_config(description["model"])
        model.load_state_dict(values)
        scalers = description.get("scalers", {})  # format 1 has none
        model.scalers = {name: Scaler.from_config(config) for name, config in scalers.items()}
        if _digest(description, model.state_dict()) != description["sha256"]:
            raise ValueError("its content is not what was saved")
    return model, description["extra"]


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A safetensors file and its description; what is found wrong with them is a ModelFileError."""
    import safetensors

    path = Path(path)
    check_readable(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file, _description(file.metadata())
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{path}: not a readable cylstm model: {reason}") from error


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a safetensors file says that it is a cylstm model; False for what cannot be read, too."""
    import safetensors

    try:
        check_readable(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            return "cylstm" in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def _digest(description: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """SHA-256 of the description's parts as JSON and of all tensors' bytes, one after the other."""
    import hashlib  # brings OpenSSL: a tenth of the time that `import cylstm` takes

    parts = [description[part] for part in DIGESTED[description["format"]]]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _description(metadata: Any) -> dict[str, Any]:
    """The JSON object of the metadata, with the parts that a reader needs."""
    if not metadata or "cylstm" not in metadata:
        raise ValueError("no cylstm architecture in its metadata")
    description = json.loads(metadata["cylstm"])
    number = description.get("format") if isinstance(description, dict) else None
    if not isinstance(number, int) or number not in DIGESTED:
        raise ValueError(f"expected format {' or '.join(map(str, DIGESTED))}; it may be of a newer cylstm")
    if not all(isinstance(description.get(part), dict) for part in DIGESTED[number]):
        raise ValueError("its architecture is damaged")
    return {part: description[part] for part in ("format", "sha256", *DIGESTED[number])}


def _scaler_configs(model: Layer) -> dict[str, Any]:
    scalers = model._checked_scalers()
    for name, scaler in scalers.items():
        if not isinstance(name, str) or not isinstance(scaler, Scaler):
            raise TypeError(f"scalers: expected names and scalers, got {name!r}: {type(scaler).__name__}")
    return {name: scaler.config for name, scaler in scalers.items()}


def _check_architecture(config: Any, file: Any, file_size: int) -> None:
    """Refuse an architecture whose parameters are not exactly the tensors of the file."""
    dtype = _check_config(config, file_size)
    names = set(file.keys())
    for name, shape in LAYER_TYPES[config["type"]].parameter_shapes(config):
        if name not in names:
            raise ValueError(f"tensor {name} is missing")
        names.remove(name)
        found = _shape_and_dtype(file, name)
        if found != (shape, DTYPES[dtype]):
            raise ValueError(f"tensor {name}: expected {shape} {DTYPES[dtype]}, got {found[0]} {found[1]}")
    if names:
        raise ValueError(f"tensors that the architecture does not have: {sorted(names)}")


def _shape_and_dtype(file: Any, name: str) -> tuple[tuple[int, ...], str]:
    """Of a tensor, without its slice: in the traceback of an error that would keep the file mapped."""
    tensor = file.get_slice(name)
    return tuple(tensor.get_shape()), tensor.get_dtype()


def _check_config(config: Any, file_size: int) -> str:
    """The dtype of a configuration of known types and plausible sizes.

    No size can be more than the bytes of the file, for every unit of it has a weight there. Shares and
    bounds, which are no ints, are left to the layer's own checks.
    """
    if not isinstance(config, dict) or config.get("type") not in LAYER_TYPES:
        raise ValueError(f"unknown layer {config.get('type') if isinstance(config, dict) else config}")
    if "layers" in config:
        if not isinstance(config["layers"], list) or not config["layers"]:
            raise ValueError("a model of no layers")
        dtypes = {_check_config(layer, file_size) for layer in config["layers"]}
        if len(dtypes) != 1:
            raise ValueError("layers of different dtypes")
        return dtypes.pop()
    for key, value in config.items():
        possible = 0 <= value <= file_size if isinstance(value, int) else isinstance(value, (str, float))
        if not possible:
            raise ValueError(f"{key}: impossible value {value!r}")
    if config.get("dtype") not in DTYPES:
        raise ValueError(f"dtype: expected one of {list(DTYPES)}, got {config.get('dtype')!r}")
    return str(config["dtype"])
