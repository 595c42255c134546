"""Gradient flow: which cells learn long-term dependencies.

    python examples/long_memory.py                   # about a minute, long_memory.png
    python examples/long_memory.py --updates 50 --steps 40

The adding problem (Hochreiter and Schmidhuber 1997): of T random numbers, two are marked, one in each half;
the target is their sum. Always predicting 1 has a mean squared error of 1/6. An LSTM and a GRU solve it for T
= 200; a plain RNN does not. The picture shows the reason: gradients from the last step vanish at early steps.
"""

import argparse

import numpy as np

import cylstm
from cylstm import losses, optim
from cylstm.data import Minibatch, Source
from cylstm.diagnostics import gradient_flow
from cylstm.init import initialize

CELLS = {"LSTM": cylstm.LSTM, "GRU": cylstm.GRU, "RNN": cylstm.RNN}
HIDDEN = 64
ALWAYS_ONE = 1 / 6


class Adding(Source):
    """New problems for every update: x (T, B, 2) and targets (B, 1)."""

    targets = np.ones((1, 1))  # an example, for checks

    def __init__(self, T: int, B: int, updates: int) -> None:
        self.T, self.B, self.updates = T, B, updates

    def __len__(self) -> int:
        return self.updates

    def check(self) -> None:
        """Generated numbers are always valid."""

    def _plan(self, rng: np.random.Generator | None) -> np.ndarray:
        rng = np.random.default_rng(0) if rng is None else rng
        return rng.integers(0, 2**62, self.updates)

    def _batch(self, seed: int) -> Minibatch:
        rng, b = np.random.default_rng(seed), np.arange(self.B)
        x = np.zeros((self.T, self.B, 2), np.float32)
        x[..., 0] = rng.random((self.T, self.B))
        first, second = rng.integers(0, self.T // 2, self.B), rng.integers(self.T // 2, self.T, self.B)
        x[first, b, 1] = x[second, b, 1] = 1
        return Minibatch(x, (x[first, b, 0] + x[second, b, 0])[:, None])


def layer_for(name: str, T: int) -> cylstm.LSTM | cylstm.GRU | cylstm.RNN:
    """Create a layer whose gates initially have time constants of 1 to T steps, if it has gates.

    The biases follow Tallec and Ollivier 2018, equation 16: 1 - sigmoid(log u) = 1 / (1 + u).
    """
    layer = CELLS[name](2, HIDDEN, seed=0)
    initialize(layer, seed=0)
    keep = np.log(np.random.default_rng(0).uniform(1, T - 1, HIDDEN))
    state = layer.state_dict()
    if name == "LSTM":  # gates i, f, g, o
        state["bias_ih_l0"][:HIDDEN], state["bias_ih_l0"][HIDDEN : 2 * HIDDEN] = -keep, keep
    elif name == "GRU":  # gates r, z, n
        state["bias_ih_l0"][HIDDEN : 2 * HIDDEN] = keep
    layer.load_state_dict(state)
    return layer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="T, of each problem (default: 200)")
    parser.add_argument("--updates", type=int, default=1200, help="of each cell (default: 1200)")
    parser.add_argument("--plot", default="long_memory.png", help="picture to write")
    options = parser.parse_args()

    histories, flows = {}, {}
    test = Adding(options.steps, 50, 20)
    for name in CELLS:
        layer = layer_for(name, options.steps)
        flows[name] = gradient_flow(layer, next(test.epoch()).x)[0]
        model = cylstm.Sequential(layer, cylstm.Pooling("last"), cylstm.Linear(HIDDEN, 1, seed=1))
        trainer = cylstm.Trainer(
            model, losses.MSE(), optim.Adam(5e-3), schedule=optim.CosineDecay(), clip_norm=1.0, seed=0
        )
        histories[name] = trainer.fit(Adding(options.steps, 50, options.updates), epochs=1)
        error = trainer.evaluate(test)["loss"]
        solved = "solved" if error < ALWAYS_ONE / 10 else "not solved"
        print(f"{name:<4} mean squared error {error:.4f}, {solved} (always 1: {ALWAYS_ONE:.4f})")
    draw(options.plot, histories, flows)
    print(f"Saved {options.plot}")


def draw(path: str, histories: dict, flows: dict) -> None:
    """Plot training errors, and gradients over time before training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, history in histories.items():
        loss = np.array(history.steps["loss"])
        width = max(1, len(loss) // 60)
        smooth = loss[: len(loss) // width * width].reshape(-1, width).mean(axis=1)
        left.plot((np.arange(len(smooth)) + 0.5) * width, smooth, label=name)
        right.plot(np.arange(1, len(flows[name]) + 1), flows[name], label=name)
    left.axhline(ALWAYS_ONE, color="gray", ls=":", label="always 1")
    left.set(xlabel="updates", ylabel="mean squared error", title="Adding two distant numbers")
    right.set(
        xlabel="step t",
        ylabel="norm of dL/dh at step t",
        yscale="log",
        title="Gradient of the last step before training",
    )
    left.legend(frameon=False)
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
