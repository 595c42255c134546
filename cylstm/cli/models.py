"""Train, predict and evaluate: dispatch by the kind of model."""

import argparse
from typing import Any

from cylstm import files
from cylstm.cli import classify, forecast, options, text
from cylstm.cli.kinds import CLASSIFY, FORECAST, TEXT, kind_of

COMMANDS = {FORECAST: forecast, CLASSIFY: classify, TEXT: text}


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the three commands, with the common options."""

    def command(name: str, run: Any, **texts: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(
            name, parents=[common], formatter_class=argparse.RawDescriptionHelpFormatter, **texts
        )
        parser.set_defaults(run=run)
        return parser

    train = command(
        "train", _train, help="train a forecaster, a classifier of sequences, or a language model",
        description="Train a model, measure it on held-out data, and save it:\n"
        "  cylstm train FILE.csv          forecasts columns of a table, one row a time step\n"
        "  cylstm train --classify FILE   classifies sequences\n"
        "  cylstm train --text FILE       models text, character by character\n"
        "After Ctrl-C or an error, the best weights so far are saved if an epoch (for a forecaster,\n"
        "the first network) is finished. With --checkpoint, the training can be resumed.",
        epilog="examples:\n"
        "  cylstm train sales.csv --columns sales,returns --period 12 --output s.safetensors --plot s.png\n"
        "  cylstm train --classify gestures.ts --output gestures.safetensors --plot gestures.png\n"
        "  cylstm train --classify recordings/ --labels labels.csv --output gestures.safetensors\n"
        "  cylstm train --text plays.txt --patience 3 --output plays.safetensors\n"
        "  cylstm train --text plays.txt --output plays.safetensors --checkpoint run.ckpt --resume",
    )  # fmt: skip
    train.add_argument("csv", nargs="?", help="file of rows in order of time")
    train.add_argument(
        "--classify", nargs="+", metavar="FILE",
        help="training sequences: a .ts file; or a folder of CSV files, one per sequence, with --labels",
    )  # fmt: skip
    train.add_argument("--text", metavar="FILE", help="training text in UTF-8")
    train.add_argument("--output", required=True, metavar="FILE", help="model file to write (.safetensors)")
    options.add(train, options.TRAIN)

    predict = command(
        "predict", _predict, help="forecast the next rows of a table, or classify sequences",
        description="Forecast the rows that follow a CSV file, or classify sequences.",
        epilog="examples:\n"
        "  cylstm predict sales.csv --model sales.safetensors\n"
        "  cylstm predict new.ts --model gestures.safetensors --output classes.csv\n"
        "  cylstm predict recordings/*.csv --model gestures.safetensors",
    )  # fmt: skip
    predict.add_argument(
        "files", nargs="+", metavar="FILE", help="CSV or .ts files, or a folder of CSV files"
    )
    predict.add_argument("--model", required=True, metavar="FILE", help="file that `cylstm train` wrote")
    predict.add_argument("--output", metavar="FILE", help="CSV file to write instead of printing")
    options.add(predict, options.PREDICT)

    evaluate = command(
        "evaluate", _evaluate, help="measure a model on data",
        description="Measure a model of `cylstm train` on new data: errors of forecasts by horizon,\n"
        "compared with simple forecasts; the confusion matrix of a classifier; nats per character of a text.",
        epilog="examples:\n"
        "  cylstm evaluate sales.safetensors new_sales.csv\n"
        "  cylstm evaluate sales.safetensors sales.csv --test 0.2   the training file\n"
        "  cylstm evaluate gestures.safetensors test.ts\n"
        "  cylstm evaluate gestures.safetensors recordings/ --labels test.csv\n"
        "  cylstm evaluate plays.safetensors another.txt --json",
    )  # fmt: skip
    evaluate.add_argument("model", metavar="MODEL", help="file that `cylstm train` wrote")
    evaluate.add_argument("files", nargs="+", metavar="FILE", help="data of the kind that the model reads")
    options.add(evaluate, options.EVALUATE)


def _train(given: argparse.Namespace) -> None:
    inputs = {FORECAST: given.csv, CLASSIFY: given.classify, TEXT: given.text}
    kinds = [kind for kind, value in inputs.items() if value is not None]
    if len(kinds) != 1:
        raise ValueError("train: expected one of: a CSV file, --classify FILE, --text FILE")
    COMMANDS[kinds[0]].train(options.settings(given, options.TRAIN, kinds[0]))


def _predict(given: argparse.Namespace) -> None:
    kind, model = _model_of(given)
    if kind == TEXT:
        raise ValueError(f"{given.model}: a model of text; `cylstm sample` generates text with it")
    COMMANDS[kind].predict(model, options.settings(given, options.PREDICT, kind))


def _evaluate(given: argparse.Namespace) -> None:
    kind, model = _model_of(given)
    COMMANDS[kind].evaluate(model, options.settings(given, options.EVALUATE, kind))


def _model_of(given: argparse.Namespace) -> tuple[str, Any]:
    """Load the model of a command that also reads data; the error points out swapped arguments."""
    try:
        return kind_of(given.model)
    except files.ModelFileError as error:
        swapped = [path for path in given.files if files.is_model(path)]
        if not swapped or files.is_model(given.model):
            raise
        raise ValueError(f"{error}; {swapped[0]} is one: are the model and the data swapped?") from None
