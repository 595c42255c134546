"""The kinds of models that `cylstm train` makes."""

from typing import Any

from cylstm import files
from cylstm._formats.file_kinds import SAFETENSORS, UNKNOWN, file_kind
from cylstm.classification.classifier import Classifier
from cylstm.forecasting.forecaster import Forecaster
from cylstm.text import CharacterModel

FORECAST, CLASSIFY, TEXT = "forecast", "classify", "text"
OF = {FORECAST: "forecasts", CLASSIFY: "classes", TEXT: "texts"}
HELD = {"forecaster": FORECAST, "classifier": CLASSIFY, "text": TEXT}  # by what a model file holds
LEFT_OUT = {  # of that in a file for another library, in words
    "forecaster": "the seasons and the scaling of the series, and the names of its columns",
    "classifier": "the names of the classes and of the columns",
    "text": "the vocabulary, the characters that the indices stand for",
}
# Kinds of files with weights that have to be saved in another way before they are converted.
SAVED_FIRST = ("torch", "torchscript", "npz", "numpy-pickle")
MODELS: dict[str, Any] = {FORECAST: Forecaster, CLASSIFY: Classifier, TEXT: CharacterModel}


def kind_of(path: str) -> tuple[str, Any]:
    """What a model file is for, and the model.

    Raises
    ------
    ModelFileError, OSError
        If it holds none of these kinds, or cannot be read.
    """
    try:
        network, extra = files.load_with_extra(path)
    except files.ModelFileError as error:
        raise as_command(path, error) from None
    kinds = [HELD[name] for name in extra if name in HELD]
    if len(kinds) != 1:
        raise files.ModelFileError(f"{path}: holds a model, but none that `cylstm train` made")
    return kinds[0], MODELS[kinds[0]].of(path, network, extra)


def as_command(path: str, error: files.ModelFileError) -> files.ModelFileError:
    """The error of a file that is no model of cylstm, with the command that makes one of it."""
    kind, words = file_kind(path), ""
    if kind is SAFETENSORS and not files.is_model(path):
        words = "a safetensors file of another library"
    elif kind not in (SAFETENSORS, UNKNOWN):
        words = kind.words
    if not words:  # it is damaged, or nothing is known
        return error
    advice = kind.advice
    if kind.reader:
        advice = f"; `cylstm convert {path} MODEL.safetensors` makes one of it, for `cylstm serve` and Python"
    elif kind.name in SAVED_FIRST:
        advice += ", and `cylstm convert` makes a model of them, for `cylstm serve` and Python"
    return files.ModelFileError(f"{path}: not a readable cylstm model: it is {words}{advice}")
