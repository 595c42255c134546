"""The kinds of models that `cylstm train` trains."""

from typing import Any

from cylstm import files
from cylstm._formats.file_kinds import SAFETENSORS, UNKNOWN, file_kind
from cylstm.classification.classifier import Classifier
from cylstm.forecasting.forecaster import Forecaster
from cylstm.text import CharacterModel

FORECAST, CLASSIFY, TEXT = "forecast", "classify", "text"
OF = {FORECAST: "forecasts", CLASSIFY: "classes", TEXT: "texts"}
HELD = {"forecaster": FORECAST, "classifier": CLASSIFY, "text": TEXT}  # by the entry in a model file's extra
LEFT_OUT = {  # the parts of that entry that files of other libraries cannot hold
    "forecaster": "the seasons and the scaling of the series, and the names of its columns",
    "classifier": "the names of the classes and of the columns",
    "text": "the vocabulary, the characters of the indices",
}
# Kinds of files whose weights have to be saved in another format before they can be converted.
SAVED_FIRST = ("torch", "torchscript", "npz", "numpy-pickle")
MODELS: dict[str, Any] = {FORECAST: Forecaster, CLASSIFY: Classifier, TEXT: CharacterModel}


def kind_of(path: str) -> tuple[str, Any]:
    """Load a model file; returns its kind and the model.

    Raises
    ------
    ModelFileError, OSError
        If it holds another kind of model, or cannot be read.
    """
    try:
        network, extra = files.load_with_extra(path)
    except files.ModelFileError as error:
        raise as_command(path, error) from None
    kinds = [HELD[name] for name in extra if name in HELD]
    if len(kinds) != 1:
        raise files.ModelFileError(f"{path}: expected a model of `cylstm train`, got another cylstm model")
    return kinds[0], MODELS[kinds[0]].of(path, network, extra)


def as_command(path: str, error: files.ModelFileError) -> files.ModelFileError:
    """The error for a file that is not a cylstm model, with the command that converts it."""
    kind, words = file_kind(path), ""
    if kind is SAFETENSORS and not files.is_model(path):
        words = "a safetensors file of another library"
    elif kind not in (SAFETENSORS, UNKNOWN):
        words = kind.words
    if not words:  # damaged or unknown
        return error
    advice = kind.advice
    if kind.reader:
        advice = f"; `cylstm convert {path} MODEL.safetensors` converts it for `cylstm serve` and Python"
    elif kind.name in SAVED_FIRST:
        advice += ", then `cylstm convert` makes a model of them for `cylstm serve` and Python"
    return files.ModelFileError(f"{path}: not a readable cylstm model: it is {words}{advice}")
