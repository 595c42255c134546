"""Time series: the next rows of a column of a CSV file, with the uncertainty of the forecast.

    python examples/forecasting.py                   # El Niño, which comes with the package; half a minute
    python examples/forecasting.py --csv ETTh1.csv --column OT --season 24 --horizon 24

A window of the last rows goes in, quantiles of the next ones come out. The picture shows the last forecast
with the interval that should hold four of five values.
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
    parser.add_argument("--column", help="of that file")
    parser.add_argument("--season", type=int, default=12, help="rows after which it is about the same again")
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

    # Without the mean of each season, learnt from the first rows; a scaler brings the rest to size 1.
    n = len(series) * 4 // 5
    season = np.arange(len(series) + horizon) % options.season
    usual = np.array([series[:n][season[:n] == k].mean() for k in range(options.season)])[season]
    departures = (series - usual[: len(series)])[:, None]
    scaler = data.StandardScaler().fit(departures[:n])
    scaled = scaler.transform(departures)

    def samples(windows: data.Windows) -> data.Arrays:
        """Windows, and how far the next rows are from the last one."""
        return data.Arrays(windows.x, windows.y[..., 0] - windows.x[:, -1], target_per="sequence")

    train, validation = data.Windows(scaled[:n], window, horizon).split(validation=0.15)
    model = cylstm.Sequential(
        cylstm.LSTM(1, 32, seed=0),
        cylstm.Pooling("last"),
        cylstm.Dropout(0.2, seed=1),
        cylstm.Linear(32, horizon * len(LEVELS), seed=2),
    )
    model.scalers["x"] = scaler  # goes into the model's file
    trainer = cylstm.Trainer(
        model, losses.Quantile(LEVELS), optim.AdamW(3e-3), schedule=optim.CosineDecay(), clip_norm=1.0, seed=0
    )
    history = trainer.fit(samples(train), samples(validation), options.epochs, patience=10)
    print(f"{len(history.epochs)} epochs, the best was {history.best_epoch}")

    # Every forecast that could have been made in the last fifth, and what came.
    test = data.Windows(scaled[n - window :], window, horizon)
    y, _ = model(test.x.swapaxes(0, 1))
    ahead = np.sort(y.reshape(len(y), horizon, -1), axis=2) + test.x[:, -1:]
    rows = n + np.arange(len(y))[:, None] + np.arange(horizon)
    forecasts = scaler.inverse(ahead.reshape(-1, 1)).reshape(ahead.shape) + usual[rows][..., None]
    truth = series[rows]
    inside = (forecasts[..., 0] <= truth) & (truth <= forecasts[..., -1])
    for name, said in (("LSTM", forecasts[..., 1]), ("mean of the season", usual[rows])):
        error = np.sqrt(np.mean((said - truth) ** 2, axis=0))
        print(f"{name:<18} root mean squared error {error[0]:.3f} 1 ahead, {error[-1]:.3f} {horizon} ahead")
    print(f"{inside.mean():.0%} of all values were in the interval for 80 %")
    draw(options.plot, series, rows[-1], forecasts[-1])
    print(f"Saved {options.plot}")


def draw(path: str, series: np.ndarray, rows: np.ndarray, forecast: np.ndarray) -> None:
    """The last forecast beside what came."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    shown = np.arange(max(0, rows[0] - 5 * len(rows)), rows[-1] + 1)
    axes.plot(shown, series[shown], color="black", lw=1.2, label="observed")
    axes.plot(rows, forecast[:, 1], color="tab:blue", label="forecast")
    axes.fill_between(rows, forecast[:, 0], forecast[:, 2], color="tab:blue", alpha=0.2, label="80 %")
    axes.set(xlabel="row", title="The last forecast, and what came")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
