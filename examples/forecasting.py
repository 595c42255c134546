"""Time series: forecasts of a column of a CSV file with prediction intervals.

    python examples/forecasting.py                   # El Niño, included in the package; half a minute
    python examples/forecasting.py --csv ETTh1.csv --column OT --season 24 --horizon 24

The model reads a window of past rows and predicts quantiles of the next ones. The picture shows the last
forecast with its 80 % interval.
"""

import argparse

import numpy as np

import cylstm
from cylstm import data, datasets, losses, optim
from cylstm.data.series import read_csv

LEVELS = (0.1, 0.5, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", help="a file with a header (default: El Niño)")
    parser.add_argument("--column", help="column of that file")
    parser.add_argument("--season", type=int, default=12, help="rows of a seasonal period")
    parser.add_argument("--horizon", type=int, default=12, help="rows to forecast")
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--plot", default="forecasting.png", help="picture to write")
    options = parser.parse_args()
    horizon, window = options.horizon, 4 * options.season

    if options.csv:
        values, _ = read_csv(options.csv, columns=[options.column])
        series = values[: options.rows, 0]
    else:
        series = datasets.elnino()[: options.rows]

    # Subtract seasonal means of the training rows, and standardise the anomalies.
    n = len(series) * 4 // 5
    season = np.arange(len(series) + horizon) % options.season
    means = np.array([series[:n][season[:n] == k].mean() for k in range(options.season)])[season]
    anomalies = (series - means[: len(series)])[:, None]
    scaler = data.StandardScaler().fit(anomalies[:n])
    scaled = scaler.transform(anomalies)

    def samples(windows: data.Windows) -> data.Arrays:
        """Return windows, and the differences of the next rows from the last one."""
        return data.Arrays(windows.x, windows.y[..., 0] - windows.x[:, -1], target_per="sequence")

    train, validation = data.Windows(scaled[:n], window, horizon).split(validation=0.15)
    model = cylstm.Sequential(
        cylstm.LSTM(1, 32, seed=0),
        cylstm.Pooling("last"),
        cylstm.Dropout(0.2, seed=1),
        cylstm.Linear(32, horizon * len(LEVELS), seed=2),
    )
    model.scalers["x"] = scaler  # saved in the model file
    trainer = cylstm.Trainer(
        model, losses.Quantile(LEVELS), optim.AdamW(3e-3), schedule=optim.CosineDecay(), clip_norm=1.0, seed=0
    )
    history = trainer.fit(samples(train), samples(validation), options.epochs, patience=10)
    print(f"{len(history.epochs)} epochs, the best is {history.best_epoch}")

    # All possible forecasts in the last fifth of the rows, and the true values.
    test = data.Windows(scaled[n - window :], window, horizon)
    y, _ = model(test.x.swapaxes(0, 1))
    ahead = np.sort(y.reshape(len(y), horizon, -1), axis=2) + test.x[:, -1:]
    rows = n + np.arange(len(y))[:, None] + np.arange(horizon)
    forecasts = scaler.inverse(ahead.reshape(-1, 1)).reshape(ahead.shape) + means[rows][..., None]
    truth = series[rows]
    inside = (forecasts[..., 0] <= truth) & (truth <= forecasts[..., -1])
    for name, predicted in (("LSTM", forecasts[..., 1]), ("seasonal mean", means[rows])):
        error = np.sqrt(np.mean((predicted - truth) ** 2, axis=0))
        print(f"{name:<18} root mean squared error {error[0]:.3f} 1 ahead, {error[-1]:.3f} {horizon} ahead")
    print(f"{inside.mean():.0%} of all values are in the 80 % interval")
    draw(options.plot, series, rows[-1], forecasts[-1])
    print(f"Saved {options.plot}")


def draw(path: str, series: np.ndarray, rows: np.ndarray, forecast: np.ndarray) -> None:
    """Plot the last forecast with the observations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    shown = np.arange(max(0, rows[0] - 5 * len(rows)), rows[-1] + 1)
    axes.plot(shown, series[shown], color="black", lw=1.2, label="observed")
    axes.plot(rows, forecast[:, 1], color="tab:blue", label="forecast")
    axes.fill_between(rows, forecast[:, 0], forecast[:, 2], color="tab:blue", alpha=0.2, label="80 %")
    axes.set(xlabel="row", title="The last forecast")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
