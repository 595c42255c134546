"""Model files: safetensors with the architecture in the metadata.

A file is a safetensors file (https://github.com/huggingface/safetensors) whose tensors are
the parameters by name, and whose metadata holds one entry `cylstm`, a JSON object::

    {"format": 2, "model": {"type": "Sequential", "layers": [...]}, "scalers": {"x": {...}},
     "extra": {...}, "sha256": "..."}

`model` is the configuration of the layers, `scalers` that of the model's scalers, `extra` values that the
caller stored with the model, `sha256` the digest of these and of the tensors' bytes (see `_digest`). Format
1, which is still read, had no scalers. Nothing is unpickled. A reader checks the architecture against the
tensors in the file before it builds the model, so a malicious file cannot make it allocate much memory.
"""

import abc
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from cylstm._checks import shown
from cylstm._formats.budget import Budget
from cylstm._formats.safetensors import SafetensorsError, SafetensorsFile, bytes_of, write
from cylstm._system.atomic_files import check_readable, check_writable, write_atomically
from cylstm.data.scalers import Scaler
from cylstm.layers.base import (
    LAYER_TYPES,
    Layer,
    from_config,
    is_user_defined,
    shapes_of,
    store_of,
    to_config,
)
from cylstm.layers.parameters import without_initial_values
from cylstm.layers.sequential import layers_of

__all__ = [
    "ModelFileError", "SavedModel", "check_readable", "check_writable", "is_model", "load", "load_with_extra",
    "save", "write_atomically",
]  # fmt: skip

FORMAT = 2
DIGESTED = {1: ("model", "extra"), 2: ("model", "extra", "scalers")}  # of each format that is read
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's and safetensors' names
SAVED_MODELS = {  # by their entry in `extra`: in words, and the class that loads them
    "forecaster": ("a forecaster", "cylstm.forecasting.Forecaster"),
    "classifier": ("a classifier", "cylstm.classification.Classifier"),
    "text": ("a model of text", "cylstm.text.CharacterModel"),
}
Saved = TypeVar("Saved", bound="SavedModel")


class ModelFileError(ValueError):
    """A file that is damaged or not a cylstm model; the message gives the reason."""


def save(model: Layer, path: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model to a safetensors file, atomically.

    Parameters
    ----------
    model : Layer
    path : path
        An earlier file of this name is replaced when the new one is complete.
    extra : mapping, optional
        JSON values to store with the model; `load_with_extra` returns them.

    Examples
    --------
    >>> import os, tempfile
    >>> import cylstm
    >>> path = os.path.join(tempfile.mkdtemp(), "m.safetensors")
    >>> cylstm.save(cylstm.LSTM(3, 4), path)
    >>> cylstm.load(path)  # doctest: +ELLIPSIS
    LSTM(input_size=3, hidden_size=4, num_layers=1, bias=True, bidirectional=False, batch_first=False, ...)
    """
    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a cylstm layer or Sequential, got {type(model).__name__}")
    tensors = model.state_dict()
    description = {
        "format": FORMAT,
        "model": to_config(model),
        "scalers": _scaler_configs(model),
        "extra": json.loads(json.dumps(dict(extra or {}), allow_nan=False)),  # as a reader will find it
    }
    try:
        _check_widths(model, sum(tensor.nbytes for tensor in tensors.values()))
    except ValueError as error:
        raise ValueError(f"model: its file could not be loaded: {error}") from None
    description["sha256"] = _digest(description, tensors)
    metadata = {"cylstm": json.dumps(description, allow_nan=False)}
    write(path, tensors, metadata)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that `save` wrote; it is in evaluation mode.

    Raises
    ------
    ModelFileError
        If the file is damaged or not a cylstm model.
    OSError
        If it cannot be read.
    """
    return load_with_extra(path)[0]


def load_with_extra(path: str | os.PathLike[str]) -> tuple[Layer, dict[str, Any]]:
    """Read a model, and the values stored with it as `extra`."""
    with _opened(path) as (file, description):
        _check_architecture(description["model"], file)
        with without_initial_values():
            model = from_config(description["model"])
        _check_dtypes(model, file)
        _check_widths(model, file.size)
        store = store_of(model)
        with store.writing() as flat:
            for name, view in store.views(flat).items():
                file.read_into(name, view)
        scalers = description.get("scalers", {})  # format 1 has none
        model.scalers = {name: Scaler.from_config(config) for name, config in scalers.items()}
        if _digest(description, model.parameters) != description["sha256"]:
            raise ValueError("its content is not what was saved")
    return model, description["extra"]


class SavedModel(abc.ABC):
    """Base class of models that are saved as a network and further values, in one entry of `extra`.

    A subclass names its entry in `entry`, one of `SAVED_MODELS`, and defines `_to_saved` and `_from_saved`.
    """

    entry: ClassVar[str]

    def __repr__(self) -> str:
        """The constructor call."""
        from cylstm._reprs import as_constructed

        return as_constructed(self)

    @abc.abstractmethod
    def _to_saved(self) -> tuple[Layer, dict[str, Any]]:
        """The network, and JSON values to save with it; an error if the model is not fitted."""

    @classmethod
    @abc.abstractmethod
    def _from_saved(cls: type[Saved], network: Layer, values: dict[str, Any]) -> Saved:
        """The model of these parts; a KeyError, TypeError or ValueError if they do not fit."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, atomically.

        Raises
        ------
        RuntimeError, ValueError
            If the model is not fitted.
        """
        network, values = self._to_saved()
        save(network, path, extra={self.entry: values})

    @classmethod
    def load(cls: type[Saved], path: str | os.PathLike[str]) -> Saved:
        """Read a model that `save` wrote.

        Raises
        ------
        ModelFileError
            If the file is damaged, or holds another kind of model.
        OSError
            If it cannot be read.
        """
        return cls.of(path, *load_with_extra(path))

    @classmethod
    def of(cls: type[Saved], path: str | os.PathLike[str], network: Layer, extra: Mapping[str, Any]) -> Saved:
        """Build the model from a file's content that `load_with_extra` has read.

        Parameters
        ----------
        path : path
            Of the file, for error messages.
        network : Layer
        extra : mapping

        Raises
        ------
        ModelFileError
            If the content is damaged, or that of another kind of model.
        """
        words, _ = SAVED_MODELS[cls.entry]
        if cls.entry not in extra:
            raise ModelFileError(f"{os.fspath(path)}: expected {words}, got {_content(network, extra)}")
        values = extra[cls.entry]
        try:
            if not isinstance(values, dict):
                raise TypeError(f"expected an object in its metadata, got {type(values).__name__}")
            return cls._from_saved(network, values)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ModelFileError(
                f"{os.fspath(path)}: {words}, but damaged: {reason}; save the model again"
            ) from error


def _content(network: Layer, extra: Mapping[str, Any]) -> str:
    """A description of a file's content that is not of the expected kind, and how to read it."""
    for entry, (words, loader) in SAVED_MODELS.items():
        if entry in extra:
            return f"{words}; {loader}.load reads it"
    kind = type(network).__name__
    if not extra:
        return f"a network ({kind}) alone; cylstm.load reads it"
    return f"a network ({kind}) with extra {shown(list(extra))}; cylstm.files.load_with_extra reads both"


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[SafetensorsFile, dict[str, Any]]]:
    """Open a safetensors file and parse its description; invalid content raises ModelFileError."""
    try:
        with SafetensorsFile(path) as file:
            yield file, _description(file.metadata)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{os.fspath(path)}: not a readable cylstm model: {reason}") from error


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a safetensors file with a cylstm model's metadata; False if it cannot be read."""
    try:
        with SafetensorsFile(path) as file:
            return "cylstm" in file.metadata
    except (SafetensorsError, OSError):
        return False


def _digest(description: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """SHA-256 of the description's parts as JSON, followed by the bytes of all tensors."""
    import hashlib  # loads OpenSSL: a tenth of the time of `import cylstm`

    parts = [description[part] for part in DIGESTED[description["format"]]]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _description(metadata: Any) -> dict[str, Any]:
    """The JSON object in the metadata, reduced to the parts of its format."""
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
    scalers = model.checked_scalers()
    for name, scaler in scalers.items():
        if not isinstance(name, str) or not isinstance(scaler, Scaler):
            raise TypeError(f"scalers: expected names and scalers, got {name!r}: {type(scaler).__name__}")
    return {name: scaler.config for name, scaler in scalers.items()}


def _check_architecture(config: Any, file: SafetensorsFile) -> None:
    """Reject an architecture whose parameters are not exactly the tensors of the file."""
    _check_config(config, file.size)
    names = set(file.tensors)
    for name, shape in shapes_of(config):
        if name not in names:
            raise ValueError(f"tensor {name} is missing")
        names.remove(name)
        if file.tensors[name].shape != shape:
            raise ValueError(f"tensor {name}: expected {shape}, got {file.tensors[name].shape}")
    if names:
        raise ValueError(f"tensors that the architecture does not have: {sorted(names)}")


def _check_dtypes(model: Layer, file: SafetensorsFile) -> None:
    expected = DTYPES[model.dtype.name]
    for name, tensor in file.tensors.items():
        if tensor.dtype != expected:
            raise ValueError(f"tensor {name}: expected {expected}, got {tensor.dtype}")


def _check_widths(model: Layer, file_size: int) -> None:
    """Reject layers whose inputs and outputs of one step need much more memory than the file."""
    budget = Budget(file_size)
    for layer in layers_of(model):
        budget.spend("numbers", layer.input_size + layer.output_size)


def _check_config(config: Any, file_size: int) -> None:
    """Reject a configuration of unknown layer types or implausible sizes.

    The size of the file limits all integers. Floats are checked by the layers themselves, and so are all
    values of users' layers.
    """
    largest = Budget(file_size).limit("numbers")
    if not isinstance(config, dict) or config.get("type") not in LAYER_TYPES:
        raise ValueError(_unknown(config))
    if "layers" in config:
        if not isinstance(config["layers"], list) or not config["layers"]:
            raise ValueError("expected at least one layer, got none")
        for layer in config["layers"]:
            _check_config(layer, file_size)
        return
    if is_user_defined(config):
        return
    for key, value in config.items():
        possible = 0 <= value <= largest if isinstance(value, int) else isinstance(value, (str, float))
        if not possible:
            raise ValueError(f"{key}: impossible value {value!r}")
    if config.get("dtype") not in DTYPES:
        raise ValueError(f"dtype: expected one of {list(DTYPES)}, got {config.get('dtype')!r}")


def _unknown(config: Any) -> str:
    """Error message for a layer without a registered class."""
    if not isinstance(config, dict):
        return f"unknown layer {config}"
    if not isinstance(config.get("module"), str):
        return f"unknown layer {config.get('type')}"
    return (
        f"unknown layer {config.get('type')}, defined in the module {config['module'][:100]!r}; import that "
        "module before loading the model"
    )
