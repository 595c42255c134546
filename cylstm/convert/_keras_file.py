"""Files of Keras 3: the parts of an archive, and arrays in HDF5."""

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.budget import Budget
from cylstm.files import ModelFileError

Array = NDArray[Any]
MAX_CONFIG = 2**22  # maximum bytes of a configuration


def parts_of_archive(path: Path, budget: Budget) -> tuple[bytes, bytes]:
    """config.json and model.weights.h5, which may be compressed, within limits of their size."""
    with zipfile.ZipFile(path) as archive:
        if (size := archive.getinfo("config.json").file_size) > MAX_CONFIG:
            raise ModelFileError(f"{path}: config.json: expected at most {MAX_CONFIG} bytes, got {size}")
        budget.spend("bytes", archive.getinfo("model.weights.h5").file_size)
        return archive.read("config.json"), archive.read("model.weights.h5")


def child(group: Any, name: str) -> Any:
    """A member of a group, which has to be stored there and not linked from elsewhere."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ModelFileError(f"{name}: expected a part of the file")
    return group[name]


def names_of_groups(groups: Any) -> dict[str, str]:
    """Keys of groups by the names of their layers, which only newer files have."""
    found: dict[str, str] = {}
    for key in groups:
        name = None
        with contextlib.suppress(KeyError, ModelFileError, AttributeError):
            name = str(child(child(groups, key), "vars").attrs["name"])
        if name in found:
            raise ModelFileError(f"layers: expected names of their own, got {name!r} twice")
        if name is not None:
            found[name] = key
    return found


def variables(group: Any, budget: Budget, path: str) -> list[Array]:
    """The arrays of a layer, below a path in its group."""
    import h5py

    for part in filter(None, path.split("/")):
        group = child(group, part)
    group = child(group, "vars")
    found = []
    for number in range(len(group)):
        data = child(group, str(number))
        where = f"{path} {number}".strip()
        if not isinstance(data, h5py.Dataset):
            raise ModelFileError(f"{where}: expected an array")
        half = data.dtype == np.dtype("V2") and data.attrs.get("dtype") == "bfloat16"
        if data.chunks is not None or data.external or data.is_virtual:
            raise ModelFileError(f"{where}: expected an array stored as a whole, in the file itself")
        if not half and data.dtype.kind != "f":
            raise ModelFileError(f"{where}: expected floating-point numbers, got {data.dtype}")
        budget.spend("parameters", data.size)
        value = np.asarray(data[()])
        found.append((value.view("<u2").astype(np.uint32) << 16).view(np.float32) if half else value)
    return found
