"""The kinds of models that `cylstm train` makes."""

from cylstm import files

FORECAST, CLASSIFY, TEXT = "forecast", "classify", "text"
OF = {FORECAST: "forecasts", CLASSIFY: "classes", TEXT: "texts"}
HELD = {"forecaster": FORECAST, "classifier": CLASSIFY, "text": TEXT}  # by what a model file holds


def kind_of(path: str) -> str:
    """What a model file is for.

    Raises
    ------
    ModelFileError, OSError
        If it holds none of these kinds, or cannot be read.
    """
    kinds = [HELD[name] for name in files.load_with_extra(path)[1] if name in HELD]
    if len(kinds) != 1:
        raise files.ModelFileError(f"{path}: holds a model, but none that `cylstm train` made")
    return kinds[0]
