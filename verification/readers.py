"""Everything that reads bytes of others: good inputs, how they are damaged, what it may raise."""

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "convert"))
import c_models
import test_convert_fuzz
from damage import damaged, damaged_header, damaged_json, damaged_zip
from training_problems import pooled, series, tagged, tagger

import cylstm
from cylstm import files, losses, optim
from cylstm.classification import Classifier
from cylstm.cli import kinds
from cylstm.convert import ConversionError
from cylstm.data.sequence_files import read_sequences, read_ts
from cylstm.data.series import read_csv
from cylstm.forecasting import Forecaster
from cylstm.serve import bodies
from cylstm.text import CharacterModel
from cylstm.training import CheckpointError, checkpoints

CSV_WORDS = [
    b",",
    b"\n",
    b"\r\n",
    b'"',
    b'""',
    b";",
    b"NA",
    b"nan",
    b"inf",
    b"1e999",
    b"\xef\xbb\xbf",
    b"-",
    b"\0",
]
TS_WORDS = [
    b"@data\n",
    b"@classLabel true a b",
    b"@dimensions 2",
    b":",
    b",",
    b"?",
    b"\n",
    b"#",
    b"true",
    b"9" * 30,
]
JSON_WORDS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"null",
    b"1e999",
    b"-0",
    b"NaN",
    b"[" * 40,
    b"\\u",
    b'"x"',
]
HEADER_WORDS = [*JSON_WORDS, b"F32", b"F64", b"I8", b"BF16", b"data_offsets", b"shape", b"dtype"]


class Reader(NamedTuple):
    """What is read, and how its inputs are made.

    good: inputs that it has to read. change(rng, input) gives a damaged one. read takes it; `allowed` are the
    exceptions that its documentation names. Without a path it reads bytes from memory.
    """

    good: Sequence[bytes]
    change: Callable
    read: Callable
    allowed: tuple
    path: str | None = None


def written(folder, name, write):
    """The bytes of a file that `write(path)` makes."""
    path = Path(folder, name)
    write(path)
    return path.read_bytes()


def model_files(folder):
    """Layers of every kind, and one of each kind that `cylstm train` makes."""
    chosen = ("lstm", "both", "peephole", "norm", "nested", "embedding", "float64", "max")
    made = [c_models.models()[name] for name in chosen]
    good = [written(folder, "m", functools.partial(cylstm.save, model)) for model in made]
    rng = np.random.default_rng(0)
    forecaster = Forecaster(horizon=3, period=4, hidden_size=3, epochs=1).fit(rng.standard_normal((90, 2)))
    sequences = [rng.standard_normal((6, 2)) for _ in range(12)]
    classifier, text = Classifier(hidden_size=3), CharacterModel(hidden_size=3, embedding_size=2)
    classifier.fit((sequences, ["a", "b", "c"] * 4), epochs=1, progress=False)
    text.fit("to be or not to be, " * 20, epochs=1, length=10, batch_size=4, progress=False)
    return good, [written(folder, "m", model.save) for model in (forecaster, classifier, text)]


def checkpoint_files(folder):
    """Of trainings that stopped in the middle."""
    return [written(folder, "c", functools.partial(resumed, kind, False)) for kind in TRAININGS]


TRAININGS = {"regression": (pooled, series, losses.MSE), "tagging": (tagger, tagged, losses.CrossEntropy)}


def resumed(kind, resume, path):
    """A training that begins, or goes on from a file, for a step."""
    model, data, loss = TRAININGS[kind]
    trainer = cylstm.Trainer(model(), loss(), optim.Adam(0.01), clip_norm=1.0, seed=1)
    saved = cylstm.Checkpoints(path, steps=1 if not resume else 10**9)
    trainer.fit(data(n=40), epochs=1, batch_size=32, progress=False, checkpoints=saved, resume=resume)


def read_and_run(path):
    """A model that loads also runs."""
    model = cylstm.load(path)
    model(np.zeros((2, model.input_size), np.int64 if model.reads_indices else np.float32))


def damaged_model(rng, content):
    return (
        damaged(rng, content, HEADER_WORDS) if rng.random() < 0.5 else damaged_header(rng, content, "cylstm")
    )


def damaged_body(rng, content):
    if rng.random() < 0.5:
        return damaged(rng, content, JSON_WORDS)
    return bodies.json.dumps(damaged_json(rng, bodies.json.loads(content))).encode()


def codecs():
    return [
        bodies.Codec(cylstm.LSTM(3, 4, 2), 100),
        bodies.Codec(cylstm.Sequential(cylstm.Embedding(9, 2), cylstm.GRU(2, 3)), 100),
        bodies.Codec(cylstm.Sequential(cylstm.Linear(2, 2, dtype="float64"), cylstm.Dropout(0.1)), 100),
    ]


class AnyDigest(str):
    """Differs from no other."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def unsigned(function):
    """A reader that takes the digest of a file for right, as if who damaged it had signed it again."""

    def read(path):
        signed = {"_digest": mock.Mock(return_value=AnyDigest("any"))}
        with mock.patch.multiple(files, **signed), mock.patch.multiple(checkpoints, **signed):
            return function(path)

    return read


def read_with_labels(table):
    """The table of labels beside the CSV files that it names; other files may be named and not be there."""
    folder = Path(table).parent
    for name in ("a.csv", "b.csv"):
        if not (folder / name).exists():
            (folder / name).write_text("u,v\n1,2\n3,4\n")
    return read_sequences([folder], table)


def binary_readers(folder):
    """Models, checkpoints and files of other libraries."""
    plain, of_kinds = model_files(folder)
    trainings = checkpoint_files(folder)
    refused, not_of_it = (cylstm.ModelFileError,), (CheckpointError, cylstm.training.NonFiniteError)
    header = functools.partial(damaged_header, key="cylstm")
    metadata = functools.partial(damaged_header, key="cylstm-training")
    made = {
        "cylstm.load": Reader(plain, damaged_model, read_and_run, refused, "m"),
        "cylstm.load, signed again": Reader(plain, header, unsigned(read_and_run), refused, "m"),
        "kinds of models, signed again": Reader(of_kinds, header, unsigned(kinds.kind_of), refused, "m"),
        "checkpoints": Reader(trainings, damaged, checkpoints.read, (CheckpointError,), "c"),
        "resume=True, signed again": Reader(
            trainings[:1], metadata, unsigned(functools.partial(resumed, "regression", True)), not_of_it, "c"
        ),
    }
    converters = {
        "from_torch": (test_convert_fuzz.torch_file, HEADER_WORDS, damaged),
        "from_onnx": (test_convert_fuzz.onnx_file, (), damaged),
        "from_keras, HDF5": (test_convert_fuzz.hdf5_file, (), damaged),
        "from_keras, archive": (test_convert_fuzz.keras_file, (), damaged),
        "from_keras, in the archive": (test_convert_fuzz.keras_file, JSON_WORDS, damaged_zip),
    }
    for name, (make, words, change) in converters.items():
        suffix, content, read = make(Path(folder))
        allowed = (cylstm.ModelFileError, ConversionError)
        made[name] = Reader([content], functools.partial(change, words=words), read, allowed, f"m.{suffix}")
    return made


def text_readers():
    """Tables, sequences, and what clients send to a server."""
    tables = [b"time,a,b\n1,2.5,-3e-2\n2,0,4\n3,1,2\n", b'"a ""x""",b\r\n1,2\r\n"3",4\r\n\r\n', b"a\n1\n2\n"]
    headless = [b"1,2.5\n,NA\n2,3\n", b"1\r\n\r\n-2e3\r\n", b'\xef\xbb\xbf"1",x\n2,"y\nz"\n']
    sequences = [
        b"# two\n@univariate false\n@classLabel true up down\n@data\n1,2,3:5,5,6:up\n9,?,3:4,4,1:down\n",
        b"@dimensions 1\n@equalLength true\n@seriesLength 2\n@classLabel false\n@data\n1,2\n3,4\n",
    ]
    requests = [b'{"x": [[1, 2, 3], [0.5, -1e3, 0]]}', b'{"x": [0, 3, 8]}', b'{"x": [[1, 2]], "state": null}']
    states = b'{"x": [1, 2, 3], "state": [[[0,1,0,1],[1,0,1,0]], [[0.5,1,0,1],[1,0,1,0]]]}'
    csv = functools.partial(damaged, words=CSV_WORDS)
    ts = functools.partial(damaged, words=TS_WORDS)

    def each_codec(method):
        """Refused if all refuse."""

        def read(body):
            refusals = []
            for codec in made_codecs:
                try:
                    getattr(codec, method)(body)
                except (bodies.RequestError, ValueError, TypeError) as error:
                    refusals.append(error)
            if len(refusals) == len(made_codecs):
                raise refusals[0]

        return read

    made_codecs, wrong = codecs(), (ValueError,)
    raw = [np.arange(6, dtype=dtype).tobytes() for dtype in ("<f4", "<i4")]
    return {
        "read_csv": Reader(tables, csv, functools.partial(read_csv, columns="numbers"), wrong, "t.csv"),
        "read_csv, no header, gaps": Reader(
            headless,
            csv,
            functools.partial(read_csv, columns="numbers", header=False, missing="interpolate"),
            wrong,
            "t.csv",
        ),
        "read_sequences, labels": Reader(
            [b"file,label\na.csv,x\nb.csv,y\n"], csv, read_with_labels, (ValueError, OSError), "labels.txt"
        ),
        "read_ts": Reader(sequences, ts, functools.partial(read_ts, missing="interpolate"), wrong, "t.ts"),
        "JSON bodies": Reader(
            [*requests, states],
            damaged_body,
            each_codec("of_json"),
            (bodies.RequestError, ValueError, TypeError),
        ),
        "raw bodies": Reader(raw, damaged, each_codec("steps_of_raw"), (ValueError,)),
    }


def all_readers():
    """By name; their good inputs are made again."""
    with tempfile.TemporaryDirectory() as folder:
        return binary_readers(folder) | text_readers()


def input_of(reader, seed, number):
    """The input of this number, the same every time."""
    import random

    rng = random.Random(f"{seed} {number}")
    return reader.change(rng, rng.choice(reader.good))


def put(reader, folder, content):
    """What the reader takes: the content, or the path of a file that holds it."""
    if reader.path is None:
        return content
    path = os.path.join(folder, reader.path)
    with open(path, "wb") as file:
        file.write(content)
    return path
