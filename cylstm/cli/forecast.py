"""Forecasting of columns of CSV files: the commands demo, train, predict and evaluate."""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks, datasets
from cylstm._system.progress import Progress
from cylstm.cli._common import (
    NO_MATPLOTLIB,
    check_outputs,
    check_training,
    names,
    print_json,
    saved_on_failure,
    write_table,
)
from cylstm.cli._screen import show, warn
from cylstm.data.series import interpolated, known_rows, read_csv
from cylstm.forecasting import baselines
from cylstm.forecasting.forecaster import Forecaster

Array = NDArray[np.float64]
Errors = dict[str, dict[str, Array]]  # by series and method, each (horizon,)
LAGS = 24  # of the autoregression baselines
TRAIN_FRACTION = 0.8  # of the rows of the demo
METRICS = {"RMSE": baselines.rmse, "MAE": baselines.mae}


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command `demo`."""
    demo = commands.add_parser(
        "demo", parents=[common], help="train a forecaster on the El Niño data included in the package",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a forecaster on the El Niño data included in the package, evaluate it on the\n"
        "last 20 % of the months, and save elnino.safetensors and elnino.png.",
        epilog="example:\n  cylstm demo --folder results",
    )  # fmt: skip
    demo.add_argument("--folder", default=".", metavar="DIR", help="where to save (default: here)")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="of all random choices (default: 0)")
    demo.set_defaults(run=_demo)


def _fit(forecaster: Forecaster, values: Array, **options: Any) -> float:
    """Train with a progress bar on standard error, and return the seconds."""
    start = time.perf_counter()
    with Progress(forecaster.updates, "updates", leave=False) as progress:
        progress.describe("training")
        forecaster.fit(values, progress=progress.update, **options)
    return time.perf_counter() - start


def _by_method(forecaster: Forecaster, forecasts: Array, series: Array, n: int) -> dict[str, Array]:
    """Return forecasts (N, horizon) by method: those given, and those of the baselines."""
    horizon, period = forecaster.horizon, forecaster.period
    by_method = {"LSTM": forecasts, "persistence": baselines.persistence(series, n, horizon)}
    if period:
        by_method["seasonal-naive"] = baselines.seasonal_naive(series, n, horizon, period)
    by_method[f"AR({LAGS})"] = baselines.autoregression(series, n, horizon, LAGS)
    if period and n >= period:
        by_method[f"AR({LAGS}) of anomalies"] = baselines.autoregression_of_anomalies(
            series, n, horizon, LAGS, period
        )
        by_method["mean of the season"] = baselines.climatology(series, n, horizon, period)
    return by_method


def _errors(forecaster: Forecaster, forecasts: Array, values: Array, n: int) -> dict[str, Errors]:
    """Return errors by metric, series and method on the rows from n on; no methods if there are no rows."""
    errors: dict[str, Errors] = {metric: {} for metric in METRICS}
    for c, name in enumerate(forecaster.columns):
        by_method = _by_method(forecaster, forecasts[..., c], values[:, c], n) if n < len(values) else {}
        for metric, measure in METRICS.items():
            errors[metric][name] = {
                method: measure(forecast, values[:, c], n) for method, forecast in by_method.items()
            }
    return errors


def _print_errors(metric: str, by_method: dict[str, Array]) -> None:
    horizon = len(next(iter(by_method.values())))
    steps = sorted({1, min(3, horizon), min(6, horizon), horizon})
    show(f"  {metric + ', steps ahead':<22}" + "".join(f"{h:>9}" for h in steps))
    for name, error in by_method.items():
        show(f"  {name:<22}" + "".join(f"{_format_error(error[h - 1]):>9}" for h in steps))


def _format_error(error: float) -> str:
    if np.isnan(error):
        return "-"
    return f"{error:.3f}" if 0.01 <= error < 10_000 else f"{error:.3g}"


def _as_json(errors: dict[str, Errors]) -> dict[str, Any]:
    """Return errors by metric, series and method as JSON values; None where there is no forecast."""
    return {
        metric.lower(): {
            name: {m: [None if np.isnan(e) else e for e in error.tolist()] for m, error in by_method.items()}
            for name, by_method in by_series.items()
            if by_method
        }
        for metric, by_series in errors.items()
    }


def _demo(options: argparse.Namespace) -> None:
    _checks.natural("--seed", options.seed)
    folder = Path(options.folder)
    model_path, plot_path = folder / "elnino.safetensors", folder / "elnino.png"
    check_outputs([str(model_path), str(plot_path)], [])
    values = datasets.elnino()[:, None]
    n = int(TRAIN_FRACTION * len(values))
    forecaster = Forecaster(horizon=12, period=12, seed=options.seed)
    forecaster.columns = ["temperature"]
    seconds = _fit(forecaster, values[:n])
    forecasts = forecaster.forecast(values)
    rmse = _errors(forecaster, forecasts, values, n)["RMSE"]["temperature"]
    forecaster.save(model_path)
    title = "Sea-surface temperature off Peru"
    is_plotted = _plot(
        plot_path, forecaster, forecasts, values, n, {title: rmse},
        ylabel="°C", xlabel="year", start=1950 + 1 / 24, rows_per_unit=12,
    )  # fmt: skip
    if options.json:
        errors = [float(rmse[name][0]) for name in ("LSTM", "persistence", "seasonal-naive", f"AR({LAGS})")]
        result = dict(zip(("rmse", "rmse_persistence", "rmse_seasonal", "rmse_ar24"), errors, strict=True))
        print_json({**result, "seconds": seconds, "model": str(model_path)})
        return
    show(f"{title} (El Niño), °C, monthly 1950-2010")
    show(f"LSTM of {forecaster.hidden_size} units, trained on the first {n} months in {seconds:.1f} s")
    show(f"Evaluated on the last {len(values) - n} months, which were not used in training:")
    _print_errors("RMSE", rmse)
    next_year = forecasts[-1, :, 0]
    show("Forecast for the months of 2011: " + " ".join(f"{value:.1f}" for value in next_year))
    show(f"Saved {model_path} (load it with cylstm.load)")
    show(f"Saved {plot_path}" if is_plotted else f"No plot: {NO_MATPLOTLIB}")


def _plot(
    path: str | Path,
    forecaster: Forecaster,
    forecasts: Array,
    values: Array,
    n: int,
    rmse: Errors,
    **texts: Any,
) -> bool:
    """Plot all series and the training; return False if matplotlib is not installed."""
    from cylstm.plotting import plot_forecasts

    try:
        plot_forecasts(path, values, forecasts, n, rmse, forecaster.training, **texts)
    except ImportError:
        return False
    return True


def train(options: argparse.Namespace) -> None:
    """Train on columns of a table, and report the result."""
    check_training(options, [options.csv])
    values, columns = _read(options, options.csv, names(options.columns))
    values, _ = _drop_empty_ends(values, options.csv)
    n = len(values) - round(options.test * len(values))
    values, n = _fill_gaps(values, n)
    forecaster = Forecaster(options.horizon, options.period, options.hidden, options.epochs, options.seed)
    forecaster.columns = columns
    if n < forecaster.min_rows:
        raise ValueError(
            f"{options.csv}: expected at least {forecaster.min_rows} training rows for horizon "
            f"{forecaster.horizon} and period {forecaster.period}, got {n} of the {len(values)} rows, as "
            f"--test {options.test:g} holds out the last {len(values) - n}; pass --test 0 to train on all, "
            "or choose a smaller horizon or period"
        )

    def describe(error: BaseException) -> str:
        return "the best network so far" if forecaster.is_fitted else ""

    with saved_on_failure(options.output, forecaster.save, describe):
        seconds = _fit(
            forecaster, values[:n],
            patience=options.patience, checkpoints=options.checkpoint, resume=options.resume,
        )  # fmt: skip
    forecasts = forecaster.forecast(values)
    errors = _errors(forecaster, forecasts, values, n)
    forecaster.save(options.output)
    if options.plot:
        _plot(options.plot, forecaster, forecasts, values, n, errors["RMSE"])
    training = forecaster.training
    chosen = {"l2": training.penalty, "epochs": len(training.history.epochs)}
    if options.json:
        print_json({**_as_json(errors), "rows": n, **chosen, "seconds": seconds, "model": options.output})
        return
    show(f"LSTM of {forecaster.hidden_size} units, trained on {n} rows in {seconds:.1f} s")
    epochs = f" and {chosen['epochs']} of {options.epochs} epochs" if options.patience else ""
    show(f"chosen by the error on two blocks of these rows: L2 of {training.penalty:g}{epochs}")
    for name, by_method in errors["RMSE"].items():
        if by_method:
            show(f"{name}, evaluated on the last {len(values) - n} rows:")
            _print_errors("RMSE", by_method)
    show(f"Saved {options.output}")


def _drop_empty_ends(values: Array, path: str) -> tuple[Array, int]:
    """Drop rows without values at both ends; return the rest and the number of dropped leading rows."""
    rows = known_rows(values)
    ends = {"first": rows.start, "last": len(values) - rows.stop}
    for end, count in ends.items():
        if count:
            warn(f"{path}: the {end} {count} rows have no values and are ignored")
    return values[rows], rows.start


def _fill_gaps(values: Array, n: int) -> tuple[Array, int]:
    """Fill gaps; return the values and the number of training rows, which exclude a gap before row n."""
    complete = np.flatnonzero(~np.isnan(values[:n]).any(axis=1))
    return interpolated(values), int(complete[-1]) + 1 if len(complete) else 0


def predict(forecaster: Forecaster, options: argparse.Namespace) -> None:
    """Forecast the steps after the last row."""
    check_outputs([options.output], [*options.files, options.model])
    values, phase = _read_input(forecaster, options)
    following = forecaster.forecast(values, phase)[-1]
    rows = [[h, *row] for h, row in enumerate(following.tolist(), 1)]
    as_json = {name: following[:, c].tolist() for c, name in enumerate(forecaster.columns)}
    write_table(options, [["step", *forecaster.columns], *rows], as_json)


def evaluate(forecaster: Forecaster, options: argparse.Namespace) -> None:
    """Report errors on all or the last rows of a table, compared with the baselines."""
    if not 0 < options.test <= 1:
        raise ValueError(f"--test: expected a fraction in (0, 1], got {options.test:g}")
    values, phase = _read_input(forecaster, options)
    season = forecaster.period or 1  # rows that the seasonal baselines need before their first forecast
    first = season if season < len(values) else 1
    n = max(first, len(values) - round(options.test * len(values)))
    tested = len(values) - n
    if not tested:
        raise ValueError(
            f"{options.files[0]}: expected rows to evaluate after the first, got {len(values)} rows, of "
            f"which --test {options.test:g} selects none"
        )
    errors = _errors(forecaster, forecaster.forecast(values, phase), values, n)
    if options.json:
        print_json({"kind": "forecaster", **_as_json(errors), "rows": tested})
        return
    for name in forecaster.columns:
        show(f"{name}, evaluated on the last {tested} rows:")
        for metric in METRICS:
            _print_errors(metric, errors[metric][name])
    show(
        "The simple forecasts are fitted to the rows before these. "
        "If the LSTM was trained on these rows, its errors are too optimistic."
    )


def _read_input(forecaster: Forecaster, options: argparse.Namespace) -> tuple[Array, int]:
    """Read the columns that the model forecasts, and fill gaps; return the values and their phase."""
    if len(options.files) != 1:
        raise ValueError(
            f"{options.model}: expected one CSV file for a forecaster, got {len(options.files)} files"
        )
    values, forecaster.columns = _read(options, options.files[0], forecaster.columns or "numbers")
    values, skipped = _drop_empty_ends(values, options.files[0])
    values, phase = interpolated(values), options.phase + skipped
    best = forecaster.likely_phase(values, phase)
    if best != phase % (forecaster.period or 1):
        best_option = (best - skipped) % (forecaster.period or 1)
        fits = f"--phase {best_option} fits the seasons of the training rows better than"
        warn(f"{options.files[0]}: {fits} --phase {options.phase}")
    return values, phase


def _read(options: argparse.Namespace, path: str, columns: Any) -> tuple[Array, list[str]]:
    return read_csv(
        path, columns,
        header=not options.no_header, delimiter=options.delimiter, missing=options.missing,
    )  # fmt: skip
