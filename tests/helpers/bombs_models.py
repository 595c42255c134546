"""Model files that ask for much: for each a writer, the call that reads it, and its message."""

import json
import struct
from unittest import mock

import cylstm

WIDTH = 10_000  # of a step, in a file of as many numbers


def model(path, fields, layers, **extra):
    parts = [cylstm.Dropout(0.1) for _ in range(layers)]
    with mock.patch("cylstm.files._check_widths"):  # for `save` does not write what `load` rejects
        cylstm.save(cylstm.Sequential(cylstm.Embedding(1, WIDTH, fields=fields), *parts), path, extra=extra)


def tensor(path, shape, length=None):
    """A file that says it has a tensor of this shape, and has two numbers."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}
    text = json.dumps({"__metadata__": {"cylstm": "{}", "cylstm-training": "{}"}, "w": entry}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", length or len(text)) + text + bytes(8))


NUMBERS = "expected at most 16777216 numbers of a file of"
LOAD = "cylstm.load(path)"
TASKS = {
    "forecaster": "cylstm.forecasting.Forecaster.load(path)",
    "classifier": "cylstm.classification.Classifier.load(path)",
    "text": "cylstm.text.CharacterModel.load(path)",
}
BOMBS = {
    "fields": (lambda path: model(path, 30_000, 0), LOAD, NUMBERS),
    "layers of fields": (lambda path: model(path, 150, 9), LOAD, NUMBERS),
    **{
        f"fields of a {task}": (lambda path, task=task: model(path, 30_000, 0, **{task: {}}), call, NUMBERS)
        for task, call in TASKS.items()
    },
    **{
        f"{what}, {call.partition('(')[0]}": (
            lambda path, values=values: tensor(path, *values),
            call,
            message,
        )
        for what, values, message in (
            ("numbers", ([2**40],), "got 8 bytes"),
            ("dimensions", ([2**60] * 100_000,), "got 8 bytes"),
            ("a header", ([2], 2**62), "is truncated"),
        )
        for call in (LOAD, "cylstm.from_torch(path)")
    },
}
