"""Model files: what is written is read, and what is damaged is refused with a reason."""

import contextlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from memory import peak_of
from model_files import description_of, with_metadata

import cylstm
from cylstm import files
from cylstm.classification import Classifier
from cylstm.forecasting import Forecaster
from cylstm.layers.base import describe
from cylstm.text import CharacterModel


def model(dtype="float32"):
    return cylstm.Sequential(
        cylstm.LSTM(2, 3, 2, bias=False, batch_first=True, dtype=dtype, seed=0),
        cylstm.Sequential(cylstm.Linear(3, 4, dtype=dtype, seed=1)),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_the_same(tmp_path, rng, dtype):
    ours = model(dtype)
    cylstm.save(ours, tmp_path / "m.safetensors", extra={"note": ["ü", 1.5]})
    loaded, extra = files.load_with_extra(tmp_path / "m.safetensors")
    assert repr(loaded) == repr(ours)
    assert extra == {"note": ["ü", 1.5]}
    assert not loaded.training
    x = rng.standard_normal((4, 5, 2))
    np.testing.assert_array_equal(loaded(x)[0], ours(x)[0])


def test_other_readers_of_safetensors_read_it(tmp_path):
    from safetensors.numpy import load_file

    ours = model()
    cylstm.save(ours, tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    assert set(tensors) == set(ours.parameters)
    for name, value in ours.parameters.items():
        np.testing.assert_array_equal(tensors[name], value)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    cylstm.save(cylstm.LSTM(1, 1), path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(cylstm.ModelFileError, match=r"m\.safetensors: not a readable cylstm model: "):
            cylstm.load(path)


def test_corrupted_byte_is_detected_or_harmless(tmp_path, rng):
    path, ours, accepted = tmp_path / "m.safetensors", model(), 0
    cylstm.save(ours, path)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(cylstm.ModelFileError):  # a space of the header may change unseen
            loaded = cylstm.load(path)
            assert repr(loaded) == repr(ours)
            assert describe(loaded).store.data.tobytes() == describe(ours).store.data.tobytes()
            accepted += 1
    assert accepted < 20


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_a_refused_file_is_closed_while_the_error_lives(tmp_path):
    path = tmp_path / "m.safetensors"
    cylstm.save(model(), path)
    description = description_of(path)
    description["model"]["layers"][0]["hidden_size"] = 4
    with_metadata(path, description)
    with pytest.raises(cylstm.ModelFileError, match="expected") as caught:  # Windows replaces no open file
        cylstm.load(path)
    assert caught.tb
    assert str(path) not in [
        os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
    ]


HUGE = 2**50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["model"]["layers"][0].update(hidden_size=HUGE), "hidden_size: impossible value"),
        (lambda d: d["model"]["layers"][0].update(num_layers=HUGE), "num_layers: impossible value"),
        (lambda d: d["model"]["layers"][0].update(num_layers=3), "tensor 0.weight_ih_l2 is missing"),
        (lambda d: d["model"]["layers"][0].update(num_layers=1), r"does not have: \['0.weight_hh_l1'"),
        (
            lambda d: d["model"]["layers"][0].update(hidden_size=4),
            r"tensor 0.weight_ih_l0: expected \(16, 2\)",
        ),
        (lambda d: d["model"]["layers"][0].update(hidden_size=-1), "hidden_size: impossible value -1"),
        (lambda d: d["model"]["layers"][0].update(hidden_size="3"), "not a readable"),
        (lambda d: d["model"]["layers"][0].update(dropout=1e300), "dropout: expected a number"),
        (lambda d: d["model"]["layers"][0].update(clip=float("nan")), "clip: expected a number"),
        (lambda d: d["model"]["layers"][0].update(clip=-1.0), "clip: expected a number"),
        (lambda d: d["model"]["layers"][0].update(proj_size=HUGE), "proj_size: impossible value"),
        (lambda d: d["model"]["layers"][0].update(proj_size="2"), "not a readable"),
        (lambda d: d["model"]["layers"][0].update(hidden_size=1e300), "not a readable"),
        (lambda d: d["model"]["layers"][0].update(num_layers=1e300), "not a readable"),
        (lambda d: d["model"]["layers"][0].update(peephole=True), "tensor 0.weight_ci_l0 is missing"),
        (lambda d: d["model"]["layers"][0].update(layer_norm=1, coupled=1), "not a readable"),
        (lambda d: d["model"]["layers"][0].update(dropout=1.0), "dropout: expected a number"),
        (lambda d: d["model"]["layers"][0].update(hidden_size=2.5), "not a readable"),
        (lambda d: d["model"]["layers"][0].update(hidden_size=None), "hidden_size: impossible value None"),
        (lambda d: d["model"]["layers"][0].update(dtype="float16"), "dtype: expected one of"),
        (lambda d: d["model"]["layers"][0].update(surprise=1), "surprise"),
        (lambda d: d["model"]["layers"][0].pop("input_size"), "input_size"),
        (lambda d: d["model"]["layers"][0].update(type="os.system"), r"unknown layer os\.system"),
        (lambda d: d["model"]["layers"][0].update(type="SequenceLayer"), "unknown layer SequenceLayer"),
        (lambda d: d["extra"].update(note=1), "its content is not what was saved"),
        (lambda d: d.pop("sha256"), "sha256"),
        (lambda d: d["model"].update(layers=[]), "expected at least one layer, got none"),
        (lambda d: d["model"].update(layers="LSTM"), "expected at least one layer, got none"),
        (lambda d: d["model"].update(layers=[1, 2]), "unknown layer 1"),
        (lambda d: d.update(model=3), "its architecture is damaged"),
        (lambda d: d.update(extra=[]), "its architecture is damaged"),
        (lambda d: d.update(format=3), "expected format 1 or 2; it may be of a newer cylstm"),
        (lambda d: d.update(format=1), "its content is not what was saved"),
        (lambda d: d.update(format=[2]), "expected format 1 or 2"),
        (lambda d: d.update(scalers=[]), "its architecture is damaged"),
        (lambda d: d.pop("scalers"), "its architecture is damaged"),
    ],
)
def test_false_architecture_is_rejected_before_allocation(tmp_path, change, message):
    path = tmp_path / "m.safetensors"
    cylstm.save(model(), path)
    description = description_of(path)
    change(description)
    with_metadata(path, description)

    def refused():
        with pytest.raises(cylstm.ModelFileError, match=message):
            cylstm.load(path)

    assert peak_of(refused) < 50e6


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1e999", "[" * 100_000, '{"format": 1}'])
def test_metadata_that_is_no_architecture_is_refused(tmp_path, text):
    path = tmp_path / "m.safetensors"
    cylstm.save(model(), path)
    with_metadata(path, text)
    with pytest.raises(cylstm.ModelFileError, match="not a readable cylstm model"):
        cylstm.load(path)


def test_files_of_others_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(cylstm.ModelFileError, match="no cylstm architecture in its metadata"):
        cylstm.load(path)
    with pytest.raises(FileNotFoundError):
        cylstm.load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError):
        cylstm.load(tmp_path)


def test_failed_save_preserves_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    cylstm.save(model(), path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full_disk)
            with pytest.raises(OSError, match="No space left"):
                cylstm.save(cylstm.LSTM(4, 4), path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="JSON"):
        cylstm.save(model(), path, extra={"bad": float("nan")})
    assert path.read_bytes() == before


def test_places_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(OSError, match="cannot write here") as caught:
        cylstm.save(model(), tmp_path / "none" / "m.safetensors")
    assert caught.value.filename == str(tmp_path / "none" / "m.safetensors")
    with pytest.raises(IsADirectoryError):
        cylstm.save(model(), tmp_path)
    with pytest.raises(TypeError, match="model: expected a cylstm layer"):
        cylstm.save({"w": 1}, tmp_path / "m.safetensors")


def test_keys_that_json_turns_into_text_come_back_as_text(tmp_path):
    cylstm.save(model(), tmp_path / "m", extra={2: "a", 10: {10: "b", 2: "c"}})
    assert files.load_with_extra(tmp_path / "m")[1] == {"2": "a", "10": {"10": "b", "2": "c"}}


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators only")
def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"earlier")
    link.symlink_to(target)
    cylstm.save(model(), link)
    assert link.is_symlink()
    assert repr(cylstm.load(target)) == repr(model())


@pytest.mark.process
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_have_the_permissions_of_ordinary_ones(tmp_path):
    script = f"import os, cylstm; os.umask(0o027); cylstm.save(cylstm.LSTM(1, 1), {str(tmp_path / 'm')!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o640
    (tmp_path / "m").chmod(0o600)  # a file that is replaced keeps its own
    cylstm.save(model(), tmp_path / "m")
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600


def test_a_bound_larger_than_the_file_is_no_size(tmp_path):
    cylstm.save(cylstm.LSTM(1, 1, clip=1e6), tmp_path / "m")
    assert cylstm.load(tmp_path / "m").clip == 1e6


def test_layers_wider_than_their_file_are_loaded(tmp_path):
    wide = cylstm.Sequential(cylstm.Embedding(2, 4, fields=500), cylstm.Dropout(0.1), cylstm.Pooling("mean"))
    for ours in (wide, cylstm.Sequential(cylstm.Dropout(0.1, features=70_000))):
        cylstm.save(ours, tmp_path / "m")
        assert repr(cylstm.load(tmp_path / "m")) == repr(ours)


def test_save_rejects_unloadable_models(tmp_path):
    with pytest.raises(ValueError, match="model: its file could not be loaded: expected at most"):
        cylstm.save(cylstm.Embedding(1, 10_000, fields=30_000), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_files_of_other_kinds_are_named(tmp_path):
    import pickle

    path = tmp_path / "m.safetensors"
    for content, message in (
        (pickle.dumps({"w": np.zeros(3)}), "it is a pickle of NumPy arrays, which could run arbitrary code"),
        (b"", "it is an empty file"),
        (b"date,sales\n2008-01-01,3\n", "it is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "fetch the file with git lfs pull"),
    ):
        path.write_bytes(content)
        with pytest.raises(cylstm.ModelFileError, match=f"not a readable cylstm model: .*{message}"):
            cylstm.load(path)


SAVED_MODELS = {"forecaster": Forecaster, "classifier": Classifier, "text": CharacterModel}


@pytest.mark.parametrize("entry", SAVED_MODELS)
def test_saved_model_errors_name_the_content_and_the_loader(tmp_path, entry):
    path, network = tmp_path / "m.safetensors", cylstm.LSTM(2, 3)
    words = files.SAVED_MODELS[entry][0]
    assert SAVED_MODELS[entry].entry == entry
    conditions = [
        ({}, rf"expected {words}, got a network \(LSTM\) alone; cylstm\.load reads it"),
        ({"notes": 1}, r"with extra \['notes'\]; cylstm\.files\.load_with_extra reads both"),
        (
            {entry: 3},
            f"{words}, but damaged: expected an object in its metadata, got int; save",
        ),
        ({entry: {}}, f"{words}, but damaged: '.*' is missing; save the model again"),
    ]
    for other in SAVED_MODELS:
        if other != entry:
            found, loader = files.SAVED_MODELS[other]
            conditions.append(({other: {}}, f"expected {words}, got {found}; {loader}.load reads it"))
    for extra, message in conditions:
        cylstm.save(network, path, extra=extra)
        with pytest.raises(cylstm.ModelFileError, match=f"m.safetensors: .*{message}"):
            SAVED_MODELS[entry].load(path)


def test_saved_models_cover_the_loaders():
    for entry, (_, loader) in files.SAVED_MODELS.items():
        module, name = loader.rsplit(".", 1)
        assert getattr(importlib.import_module(module), name) is SAVED_MODELS[entry]
