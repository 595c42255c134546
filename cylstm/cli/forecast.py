"""Forecasts of columns of CSV files: demo, train, predict."""

import argparse
import csv
import importlib.util
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import baselines, datasets, files
from cylstm.cli import text
from cylstm.cli._common import NO_MATPLOTLIB, check_outputs
from cylstm.forecasting import Forecaster
from cylstm.series import interpolated, read_csv

Array = NDArray[np.float64]
LAGS = 24
TRAIN_SHARE = 0.8


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """The commands of forecasting, with what all commands have in common."""
    demo = commands.add_parser(
        "demo", parents=[common], help="train a forecaster on the El Niño data that come with the package",
        description="Train a forecaster on the El Niño data that come with the package, measure it on the "
        "last 20 % of the months, and save elnino.safetensors and elnino.png.",
    )  # fmt: skip
    demo.add_argument("--folder", default=".", metavar="DIR", help="where to save (default: here)")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="of all random choices (default: 0)")
    demo.set_defaults(run=_demo)
    _add_train(commands, [common, _table(optional=True)])
    _add_predict(commands, [common, _table(optional=False)])


def _table(optional: bool) -> argparse.ArgumentParser:
    """The options of what reads a CSV file."""
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("csv", nargs="?" if optional else None, help="file of rows in order of time")
    table.add_argument("--no-header", action="store_true", help="line 1 is data; columns are named 1, 2, …")
    table.add_argument("--delimiter", default=",", metavar="C", help="between cells (default: comma)")
    table.add_argument(
        "--missing", choices=["error", "interpolate"], default="error",
        help="what to do with empty cells: refuse them (default), or interpolate between neighbours",
    )  # fmt: skip
    return table


def _add_train(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train", parents=parents, help="train a forecaster on columns of a CSV file, or a model of a text",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a forecaster on columns of a CSV file, or a language model on a text file, "
        "measure it on the end of the file, and save it. Ctrl-C ends the training on a text with the best "
        "weights so far.",
        epilog="examples:\n  cylstm train sales.csv --columns sales --period 12 --output sales.safetensors\n"
        "  cylstm train --text plays.txt --output plays.safetensors --plot plays.png",
    )  # fmt: skip
    train.add_argument("--output", required=True, metavar="FILE", help="model file to write (.safetensors)")
    train.add_argument(
        "--columns", metavar="A,B", help="columns to forecast (default: the only one of numbers)"
    )
    train.add_argument("--horizon", type=int, default=12, metavar="N", help="steps ahead (default: 12)")
    train.add_argument("--period", type=int, metavar="N", help="rows in a season, 12 for months of a year")
    train.add_argument(
        "--test", type=float, default=0.2, metavar="SHARE",
        help="share of the rows, the last ones, to measure on and not to learn from (default: 0.2; 0: none)",
    )  # fmt: skip
    train.add_argument(
        "--hidden", type=int, metavar="N", help="units of the LSTM (default: 32, and 256 for a text)"
    )
    train.add_argument("--seed", type=int, default=0, metavar="N", help="of all random choices (default: 0)")
    train.add_argument("--plot", metavar="FILE", help="also draw the forecasts, or the training (.png)")
    text.add_train_options(train)
    train.set_defaults(run=_train)


def _add_predict(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    predict = commands.add_parser(
        "predict", parents=parents, help="forecast what follows the last row of a CSV file",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Forecast what follows the last row of a CSV file, with a model of `cylstm train`.",
        epilog="example:\n  cylstm predict sales.csv --model sales.safetensors",
    )  # fmt: skip
    predict.add_argument("--model", required=True, metavar="FILE", help="file that `cylstm train` wrote")
    predict.add_argument("--output", metavar="FILE", help="CSV file to write instead of printing")
    predict.add_argument(
        "--phase", type=int, default=0, metavar="N",
        help="season of the first row, counted from that of the training file's first row (default: 0)",
    )  # fmt: skip
    predict.set_defaults(run=_predict)


def _fit(forecaster: Forecaster, values: Array) -> float:
    """Train with a progress bar on standard error; returns the seconds it took."""
    from tqdm import tqdm

    start = time.perf_counter()
    with tqdm(total=forecaster.updates, desc="training", unit=" updates", disable=None, leave=False) as bar:
        forecaster.fit(values, progress=bar.update)
    return time.perf_counter() - start


def _errors(forecaster: Forecaster, values: Array, column: int, n: int) -> dict[str, Array]:
    """Test RMSE by horizon of the forecaster and of what it has to beat."""
    series, horizon, period = values[:, column], forecaster.horizon, forecaster.period
    forecasts = {
        "LSTM": forecaster.forecast(values)[..., column],
        "persistence": baselines.persistence(series, n, horizon),
    }
    if period:
        forecasts["seasonal-naive"] = baselines.seasonal_naive(series, n, horizon, period)
    forecasts[f"AR({LAGS})"] = baselines.autoregression(series, n, horizon, LAGS)
    if period:
        forecasts[f"AR({LAGS}) of anomalies"] = baselines.autoregression_of_anomalies(
            series, n, horizon, LAGS, period
        )
        forecasts["mean of the season"] = baselines.climatology(series, n, horizon, period)
    return {name: baselines.rmse(forecast, series, n) for name, forecast in forecasts.items()}


def _print_errors(errors: dict[str, Array], title: str) -> None:
    horizon = len(next(iter(errors.values())))
    shown = sorted({1, min(3, horizon), min(6, horizon), horizon})
    print(title)
    print(f"  {'RMSE, steps ahead':<22}" + "".join(f"{h:>9}" for h in shown))
    for name, error in errors.items():
        print(f"  {name:<22}" + "".join(f"{_number(error[h - 1]):>9}" for h in shown))


def _number(error: float) -> str:
    if np.isnan(error):
        return "-"
    return f"{error:.3f}" if 0.01 <= error < 10_000 else f"{error:.3g}"


def _demo(options: argparse.Namespace) -> None:
    folder = Path(options.folder)
    model_path, plot_path = folder / "elnino.safetensors", folder / "elnino.png"
    check_outputs([str(model_path), str(plot_path)], [])
    values = datasets.elnino()[:, None]
    n = int(TRAIN_SHARE * len(values))
    forecaster = Forecaster(horizon=12, period=12, seed=options.seed)
    forecaster.columns = ["temperature"]
    seconds = _fit(forecaster, values[:n])
    errors = _errors(forecaster, values, 0, n)
    forecaster.save(model_path)
    drawn = _plot(
        plot_path, forecaster, values, n, errors,
        title="Sea-surface temperature off Peru", ylabel="°C", xlabel="year",
        start=1950 + 1 / 24, rows_per_unit=12,
    )  # fmt: skip
    if options.json:
        rmse = [float(errors[name][0]) for name in ("LSTM", "persistence", "seasonal-naive", f"AR({LAGS})")]
        result = dict(zip(("rmse", "rmse_persistence", "rmse_seasonal", "rmse_ar24"), rmse, strict=True))
        print(json.dumps({**result, "seconds": seconds, "model": str(model_path)}))
        return
    print("Sea-surface temperature off Peru (El Niño), °C, monthly 1950-2010")
    print(f"LSTM of {forecaster.hidden_size} units, trained on the first {n} months in {seconds:.1f} s")
    _print_errors(errors, f"Measured on the last {len(values) - n} months, which played no part in training:")
    following = forecaster.forecast(values)[-1, :, 0]
    print("Forecast for the months of 2011: " + " ".join(f"{value:.1f}" for value in following))
    print(f"Saved {model_path} (read it with cylstm.load)")
    print(f"Saved {plot_path}" if drawn else f"No picture: {NO_MATPLOTLIB}")


def _plot(
    path: str | os.PathLike[str],
    forecaster: Forecaster,
    values: Array,
    n: int,
    errors: dict[str, Array],
    **texts: Any,
) -> bool:
    """Draw the first column; False if matplotlib is not installed."""
    from cylstm.plotting import plot_forecasts

    try:
        plot_forecasts(path, values[:, 0], forecaster.forecast(values)[..., 0], n, errors, **texts)
    except ImportError:
        return False
    return True


def _train(options: argparse.Namespace) -> None:
    if (options.csv is None) == (options.text is None):
        raise ValueError("train: expected a CSV file, or --text FILE")
    if options.text:
        text.train(options)
        return
    check_outputs([options.output, options.plot], [options.csv])
    if options.plot and not importlib.util.find_spec("matplotlib"):
        raise ValueError(f"--plot: {NO_MATPLOTLIB}")
    if not 0 <= options.test < 1:
        raise ValueError(f"--test: expected a share in [0, 1), got {options.test}")
    values, names = _read(options, _names(options.columns))
    n = len(values) - round(options.test * len(values))
    if (
        options.missing == "interpolate"
    ):  # the rows to learn from by themselves: nothing of the test reaches them
        values[:n] = interpolated(values[:n])
        unknown = [name for name, column in zip(names, values[:n].T, strict=True) if np.isnan(column).any()]
        if unknown:
            raise ValueError(f"{options.csv}, column {unknown[0]}: no values in the {n} rows to learn from")
        values = interpolated(values)
    forecaster = Forecaster(
        options.horizon,
        options.period,
        32 if options.hidden is None else options.hidden,
        options.epochs or 8,
        options.seed,
    )
    forecaster.columns = names
    seconds = _fit(forecaster, values[:n])
    errors = {name: _errors(forecaster, values, i, n) for i, name in enumerate(names) if n < len(values)}
    forecaster.save(options.output)
    if options.plot:
        _plot(options.plot, forecaster, values, n, errors.get(names[0], {}), title=names[0])
    if options.json:
        print(
            json.dumps(
                {"rmse": _rmse_for_json(errors), "rows": n, "seconds": seconds, "model": options.output}
            )
        )
        return
    print(f"LSTM of {forecaster.hidden_size} units, trained on {n} rows in {seconds:.1f} s")
    for name, by_method in errors.items():
        _print_errors(by_method, f"{name}, measured on the last {len(values) - n} rows:")
    print(f"Saved {options.output}")


def _rmse_for_json(errors: dict[str, dict[str, Array]]) -> dict[str, dict[str, list[float | None]]]:
    return {
        name: {method: [None if np.isnan(e) else e for e in error.tolist()] for method, error in by.items()}
        for name, by in errors.items()
    }


def _predict(options: argparse.Namespace) -> None:
    check_outputs([options.output], [options.csv, options.model])
    forecaster = Forecaster.load(options.model)
    values, names = _read(options, forecaster.columns or None)
    values = interpolated(values)
    following = forecaster.forecast(values, options.phase)[-1]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", *names])
    table.writerows([h, *row] for h, row in enumerate(following.tolist(), 1))
    if options.output:
        files.write_atomically(options.output, text.getvalue().encode())
    if options.json:
        print(json.dumps({name: following[:, i].tolist() for i, name in enumerate(names)}))
    else:
        print(f"Saved {options.output}" if options.output else text.getvalue().rstrip("\n"))


def _names(columns: str | None) -> list[str] | None:
    """Names from `A,B`, in the quotes of CSV where they hold commas."""
    return [name.strip() for name in next(csv.reader([columns], skipinitialspace=True))] if columns else None


def _read(options: argparse.Namespace, columns: list[str] | None) -> tuple[Array, list[str]]:
    return read_csv(
        options.csv,
        columns,
        header=not options.no_header,
        delimiter=options.delimiter,
        missing=options.missing,
    )
