"""Music: prediction of the next notes in Bach's chorales, and a generated piece.

    python examples/music.py --data JSB_Chorales.mat         # about two minutes

A step is a row of 88 piano keys, each 1 if it sounds. The model predicts the probability of each key at the
next step. A new piece is sampled from it step by step, carrying over the state of the LSTM.
"""

import argparse

import numpy as np
from scipy.io import loadmat

import cylstm
from cylstm import data, losses, optim

KEYS = 88


def pieces_of(table: np.ndarray) -> list[np.ndarray]:
    """Return the pieces (T, 88) of a table."""
    return [np.asarray(piece, np.float32) for piece in table.ravel()]


def source_of(pieces: list[np.ndarray]) -> data.Arrays:
    """Create a source in which the target of each step is the next step."""
    return data.Arrays(
        [piece[:-1] for piece in pieces], [piece[1:] for piece in pieces], 4, target_per="step"
    )


def compose(model: cylstm.Sequential, opening: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Continue an opening (T, 88) for a number of steps."""
    rng, stream = np.random.default_rng(seed), cylstm.Stream(model)
    rows = list(opening)
    logits = [stream.step(row[None]) for row in opening][-1]
    for _ in range(steps):
        rows.append((rng.random(KEYS) < 1 / (1 + np.exp(-logits[0]))).astype(np.float32))
        logits = stream.step(rows[-1][None])
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="JSB_Chorales.mat")
    parser.add_argument("--pieces", type=int, help="use only the first pieces")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=300)
    parser.add_argument("--plot", default="music.png", help="picture to write")
    options = parser.parse_args()

    tables = loadmat(options.data)
    train, validation, test = (
        pieces_of(tables[f"{part}data"])[: options.pieces] for part in ("train", "valid", "test")
    )
    model = cylstm.Sequential(
        cylstm.Dropout(0.2, features=KEYS, seed=0),
        cylstm.LSTM(KEYS, options.hidden, seed=1),
        cylstm.Dropout(0.6, seed=2),
        cylstm.Linear(options.hidden, KEYS, seed=3),
    )
    trainer = cylstm.Trainer(
        model, losses.BinaryCrossEntropy(), optim.AdamW(5e-3, weight_decay=0.1),
        schedule=optim.CosineDecay(), clip_norm=1.0, seed=0,
    )  # fmt: skip
    trainer.fit(source_of(train), source_of(validation), options.epochs, patience=15)
    nats = KEYS * trainer.evaluate(source_of(test))["loss"]
    keys = np.concatenate(train).mean(axis=0).clip(1e-4)
    sounded = np.concatenate(test)
    baseline = -(sounded * np.log(keys) + (1 - sounded) * np.log1p(-keys)).sum(axis=1).mean()
    print(f"{nats:.2f} nats per step; {baseline:.2f} from key frequencies alone")

    piece = compose(model, test[0][:16], 96, seed=0)
    print(f"a piece of {len(piece)} steps, {piece.sum(axis=1).mean():.1f} keys at once")
    draw(options.plot, test[0], piece)
    print(f"Saved {options.plot}")


def draw(path: str, original: np.ndarray, piece: np.ndarray) -> None:
    """Plot both pieces as piano rolls."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, roll, title in zip(
        figure.subplots(2, 1, sharex=True), (original, piece),
        ("A chorale", "Its first 16 steps, continued by the model"), strict=True,
    ):  # fmt: skip
        axes.imshow(roll.T, origin="lower", aspect="auto", cmap="Greys", interpolation="nearest")
        axes.set(title=title, ylabel="key", ylim=(15, 65))
    axes.set_xlabel("step")
    axes.axvline(15.5, color="tab:red", lw=1)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
