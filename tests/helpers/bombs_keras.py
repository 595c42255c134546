"""Small files of Keras that ask a reader for much; each function writes one."""

import io
import json
import zipfile

import h5py
import numpy as np


def dense(count, name="dense"):
    """The configuration of a chain of dense layers, all with one name."""
    layer = {"class_name": "Dense", "config": {"name": name, "activation": "linear"}}
    return {"class_name": "Sequential", "config": {"layers": [layer] * count}}


def archive(path, fill, config, compression=zipfile.ZIP_DEFLATED):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("config.json", json.dumps(config))
        out.writestr("model.weights.h5", content.getvalue())


def same_weights_often(path):
    """One array of zeros, which compresses to nothing, for each of many layers."""

    def fill(file):
        file["layers/dense/vars/0"] = np.zeros((500, 500), "f4")
        file["layers/dense/vars"].attrs["name"] = "dense"

    archive(path, fill, dense(900))


def links_to_one_array(path):
    def fill(file):
        file["layers/dense/vars/0"] = np.zeros((500, 500), "f4")
        for k in range(1, 900):
            file[f"layers/dense_{k}/vars/0"] = file["layers/dense/vars/0"]

    archive(path, fill, dense(900, "other"))


def arrays_without_bytes(path):
    """Contiguous arrays of which nothing was written: they are fill values, and no bytes of the file."""

    def fill(file):
        for k in range(900):
            group = file.create_group(f"layers/dense{'_' + str(k) if k else ''}/vars")
            group.create_dataset("0", (1000, 1000), "f4")

    archive(path, fill, dense(900, "other"))


def one_large_array_without_bytes(path):
    archive(path, lambda file: file.create_dataset("layers/dense/vars/0", (2**20, 2**20), "f4"), dense(1))


def compressed_array(path):
    def fill(file):
        zeros = np.zeros((2**12, 2**12), "f4")
        file.create_dataset("layers/dense/vars/0", data=zeros, compression="gzip", chunks=True)

    archive(path, fill, dense(1))


def external_array(path):
    def fill(file):
        place = [("/dev/zero", 0, 2**34)]
        file.create_dataset("layers/dense/vars/0", (2**16, 2**16), "f4", external=place)

    archive(path, fill, dense(1))


def link_to_another_file(path):
    archive(path, lambda file: file.update({"layers": h5py.ExternalLink("/dev/zero", "/")}), dense(1))


def soft_link(path):
    archive(path, lambda file: file.update({"layers": h5py.SoftLink("/")}), dense(1))


def many_layers(path):
    layer = {"class_name": "Dropout", "config": {"name": "d", "rate": 0.1}}
    config = {"class_name": "Sequential", "config": {"layers": [layer] * 20_000}}
    archive(path, lambda file: file.create_group("layers"), config)


def unpacked(path, name, size):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for part in ("config.json", "model.weights.h5"):
            with out.open(part, "w", force_zip64=True) as file:
                for _ in range(size // 2**20 if part == name else 1):
                    file.write(b" " * 2**20)


def large_weights(path):
    unpacked(path, "model.weights.h5", 2**31)


def large_configuration(path):
    unpacked(path, "config.json", 2**31)


def nested_configuration(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("config.json", "[" * 2**21)
        out.writestr("model.weights.h5", b"")


BOMBS = {
    function.__name__: (function, message)
    for function, message in [
        (same_weights_often, "parameters"),
        (links_to_one_array, "parameters"),
        (arrays_without_bytes, "parameters"),
        (one_large_array_without_bytes, "parameters"),
        (compressed_array, "stored as a whole, in the file itself"),
        (external_array, "stored as a whole, in the file itself"),
        (link_to_another_file, "expected a part of the file"),
        (soft_link, "expected a part of the file"),
        (many_layers, "layers"),
        (large_weights, "bytes"),
        (large_configuration, "bytes"),
        (nested_configuration, "cannot be read"),
    ]
}
