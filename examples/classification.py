"""Classification of multichannel sequences of different lengths.

    python examples/classification.py --train BasicMotions_TRAIN.ts --test BasicMotions_TEST.ts    # seconds

The states of a bidirectional LSTM are max-pooled over time and passed to a dense layer. The scaler is saved
in the model file.
"""

import argparse

import numpy as np

import cylstm
from cylstm import data, losses, optim
from cylstm.data.sequence_files import read_sequences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, help=".ts file with training data")
    parser.add_argument("--test", required=True, help=".ts file with test data")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--plot", default="classification.png", help="picture to write")
    options = parser.parse_args()

    train, test = read_sequences([options.train]), read_sequences([options.test])
    classes = sorted(set(train.labels))
    scaler = data.StandardScaler().fit(train.values)

    def source(part) -> data.Arrays:
        y = [classes.index(label) for label in part.labels]
        return data.Arrays(scaler.transform(part.values), y, 16, target_per="sequence")

    channels = train.values[0].shape[1]
    model = cylstm.Sequential(
        cylstm.Dropout(0.1, features=channels, seed=0),
        cylstm.LSTM(channels, 64, bidirectional=True, seed=1),
        cylstm.Pooling("max"),
        cylstm.Dropout(0.3, seed=2),
        cylstm.Linear(128, len(classes), seed=3),
    )
    model.scalers["x"] = scaler
    trainer = cylstm.Trainer(
        model, losses.CrossEntropy(label_smoothing=0.1), optim.AdamW(3e-3),
        schedule=optim.CosineDecay(), clip_norm=1.0, seed=0,
    )  # fmt: skip
    trainer.fit(source(train), epochs=options.epochs)

    lengths = np.array([len(part) for part in test.values])
    x = np.zeros((lengths.max(), len(lengths), channels))  # (T, B, channels), zero-padded
    for b, part in enumerate(scaler.transform(test.values)):
        x[: len(part), b] = part
    y, _ = model(x, lengths=lengths)
    predicted, truth = y.argmax(axis=1), np.array([classes.index(label) for label in test.labels])
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (truth, predicted), 1)
    print(f"{(predicted == truth).mean():.1%} of {len(truth)} sequences are classified correctly")
    draw(options.plot, counts, classes)
    print(f"Saved {options.plot}")


def draw(path: str, counts: np.ndarray, classes: list[str]) -> None:
    """Plot the confusion matrix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for i, row in enumerate(counts):
        for k, n in enumerate(row):
            axes.text(k, i, n, ha="center", va="center", color="white" if n > counts.max() / 2 else "black")
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    axes.set_xticks(range(len(classes)), classes, rotation=45)
    axes.set_yticks(range(len(classes)), classes)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
