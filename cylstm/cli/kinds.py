"""The kinds of models that `cylstm train` makes."""

from typing import Any

from cylstm import files
from cylstm.classification import Classifier
from cylstm.forecasting import Forecaster
from cylstm.text import CharacterModel

FORECAST, CLASSIFY, TEXT = "forecast", "classify", "text"
OF = {FORECAST: "forecasts", CLASSIFY: "classes", TEXT: "texts"}
HELD = {"forecaster": FORECAST, "classifier": CLASSIFY, "text": TEXT}  # by what a model file holds
LEFT_OUT = {  # of that in a file for another library, in words
    "forecaster": "the seasons and the scaling of the series, and the names of its columns",
    "classifier": "the names of the classes and of the columns",
    "text": "the vocabulary, the characters that the indices stand for",
}
MODELS: dict[str, Any] = {FORECAST: Forecaster, CLASSIFY: Classifier, TEXT: CharacterModel}


def kind_of(path: str) -> tuple[str, Any]:
    """What a model file is for, and the model.

    Raises
    ------
    ModelFileError, OSError
        If it holds none of these kinds, or cannot be read.
    """
    network, extra = files.load_with_extra(path)
    kinds = [HELD[name] for name in extra if name in HELD]
    if len(kinds) != 1:
        raise files.ModelFileError(f"{path}: holds a model, but none that `cylstm train` made")
    return kinds[0], MODELS[kinds[0]].of(path, network, extra)
