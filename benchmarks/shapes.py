"""The shapes of the benchmarks, each with the reason for including it."""

from typing import NamedTuple

import numpy as np

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Shape(NamedTuple):
    """Recurrent layers and a batch: B, T, input and hidden size, and options."""

    name: str
    B: int
    T: int
    I: int
    H: int
    why: str
    group: str = "main"
    cell: str = "lstm"
    layers: int = 1
    both: bool = False  # directions
    ragged: bool = False  # sequences of 1 to T steps
    proj: int = 0
    dtype: str = "float32"

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.both else 1

    @property
    def width(self) -> int:
        """The size of h: that of the projection, or H."""
        return self.proj or self.H

    def inputs(self, layer: int) -> int:
        """Return the number of input features of a layer."""
        return self.directions * self.width if layer else self.I

    def lengths(self) -> np.ndarray:
        """Return the lengths (B,), evenly spaced from 1 to T for ragged batches."""
        if not self.ragged:
            return np.full(self.B, self.T)
        return np.random.default_rng(0).permutation(np.linspace(1, self.T, self.B).round().astype(int))

    def flops(self, mode: str) -> int:
        """Count floating-point operations, without padding and without the gradient of x."""
        steps = int(self.lengths().sum())
        forward = 0
        for layer in range(self.layers):
            products = GATES[self.cell] * self.H * (self.inputs(layer) + self.width) + self.proj * self.H
            forward += 2 * steps * self.directions * products
        if mode != "training":
            return forward
        return 3 * forward - 2 * steps * self.directions * GATES[self.cell] * self.H * self.I

    def x(self) -> np.ndarray:
        """(T, B, I)."""
        return np.random.default_rng(0).standard_normal((self.T, self.B, self.I)).astype(self.dtype)


MODES = ("forward", "training", "step")
SHAPES = [
    Shape("tiny-1", 1, 100, 64, 64, "one small sequence: overhead of each step"),
    Shape("tiny-32", 32, 100, 64, 64, "a small model in a batch"),
    Shape("small-1", 1, 100, 128, 128, "one sequence, weights in the L2 cache"),
    Shape("small-64", 64, 100, 128, 128, "training of a small model"),
    Shape("medium-1", 1, 100, 256, 256, "one sequence, a megabyte of recurrent weights"),
    Shape("medium-16", 16, 100, 256, 256, "a small batch: products of few rows at every step"),
    Shape("medium-64", 64, 100, 256, 256, "training of a language model"),
    Shape("large-1", 1, 50, 512, 512, "one sequence, weights beyond the L2 cache"),
    Shape("large-32", 32, 50, 512, 512, "large products: limited by arithmetic"),
    Shape("huge-1", 1, 50, 1024, 1024, "one sequence, 32 MB of weights"),
    Shape("huge-64", 64, 25, 1024, 1024, "weights beyond every cache but the last"),
    Shape("gru-32", 32, 100, 256, 256, "GRU, which few libraries fuse", "other", "gru"),
    Shape("gru-1", 1, 100, 256, 256, "GRU of one sequence", "other", "gru"),
    Shape("rnn-32", 32, 100, 256, 256, "RNN: least work between products", "other", "rnn"),
    Shape("stack-32", 32, 100, 128, 256, "three layers, as in language models", "other", layers=3),
    Shape("both-16", 16, 100, 80, 256, "speech: two layers of both directions", "other", layers=2, both=True),
    Shape("narrow-32", 32, 60, 1, 50, "one series: hardly any input", "other"),
    Shape("elnino", 16, 120, 4, 32, "the demo: windows of a time series, few units", "other"),
    Shape("series-128", 128, 96, 7, 32, "seven series, two layers, a large batch", "other", layers=2),
    Shape("dense-32", 32, 100, 128, 256, "what the next three differ from", "variant"),
    Shape(
        "ragged-32", 32, 100, 128, 256, "sequences of 1 to 100 steps: half the work", "variant", ragged=True
    ),
    Shape("float64-32", 32, 100, 128, 256, "double precision", "variant", dtype="float64"),
    Shape("projected-32", 32, 100, 128, 256, "projection to 64", "variant", proj=64),
    Shape("step-64", 1, 1, 64, 64, "one step from Python, as a server takes it", "step"),
    Shape("step-128", 1, 1, 128, 128, "one step, weights in L2", "step"),
    Shape("step-256", 1, 1, 256, 256, "one step, weights beyond L2", "step"),
    Shape("step-512", 1, 1, 512, 512, "one step, limited by reading weights", "step"),
    Shape("long-64", 64, 1000, 256, 256, "memory of a training pass", "memory"),
]


def modes_of(shape: Shape) -> tuple[str, ...]:
    """Return the passes to measure for a shape."""
    return {"step": ("step",), "memory": ("training",)}.get(shape.group, ("forward", "training"))
