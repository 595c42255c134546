"""Attention maps: which steps a model attends to when it reverses a sequence.

    python examples/attention.py                     # about a minute, attention.png

The output at step t must be the input at step T + 1 - t. A bidirectional LSTM provides the positions, and the
plotted attention weights show the antidiagonal that the model has learned.
"""

import argparse

import numpy as np

import cylstm
from cylstm import data, losses, optim

SYMBOLS = 12


def sequences(n: int, longest: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Generate random symbols and their reversals."""
    rng = np.random.default_rng(seed)
    x = [rng.integers(0, SYMBOLS, rng.integers(longest // 2, longest + 1)) for _ in range(n)]
    return x, [part[::-1] for part in x]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=4000, help="training sequences")
    parser.add_argument("--longest", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--plot", default="attention.png", help="picture to write")
    options = parser.parse_args()

    hidden = 32
    attention = cylstm.MultiplicativeAttention(2 * hidden, seed=2)
    embedding = cylstm.Embedding(SYMBOLS, 16, std=1.0, seed=0)
    lstm = cylstm.LSTM(16, hidden, bidirectional=True, seed=1)
    model = cylstm.Sequential(embedding, lstm, attention, cylstm.Linear(2 * hidden, SYMBOLS, seed=3))
    trainer = cylstm.Trainer(
        model, losses.CrossEntropy(), optim.Adam(5e-3), schedule=optim.CosineDecay(), clip_norm=1.0, seed=0
    )
    train, test = (
        data.Arrays(*sequences(n, options.longest, seed), 64, target_per="step")
        for n, seed in ((options.sequences, 0), (200, 1))
    )
    trainer.fit(train, epochs=options.epochs)
    found = trainer.evaluate(test, metrics=["accuracy"])
    print(f"accuracy on new sequences: {found['accuracy']:.1%} (chance: {1 / SYMBOLS:.1%})")

    x = test.x[int(test.lengths.argmax())]
    states, _ = lstm(embedding(x))
    draw(options.plot, attention.weights(states)[0, 0], x)
    print(f"Saved {options.plot}")


def draw(path: str, weights: np.ndarray, x: np.ndarray) -> None:
    """Plot the attention weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Blues", vmin=0)
    axes.set(xlabel="input step", ylabel="output step", title="Reversing a sequence")
    axes.set_xticks(range(len(x)), x)
    axes.set_yticks(range(len(x)), x[::-1])
    figure.colorbar(image, label="weight")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
