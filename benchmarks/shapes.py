"""The shapes that are timed, each with the reason why it is here."""

from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """One LSTM layer: batch, time steps, input size, hidden size; sequences of one length, or of many."""

    name: str
    B: int
    T: int
    I: int
    H: int
    why: str
    ragged: bool = False

    def lengths(self) -> np.ndarray:
        """(B,), the steps of every sequence; evenly from 1 to T if they differ, so half of T on average."""
        if not self.ragged:
            return np.full(self.B, self.T)
        return np.random.default_rng(0).permutation(np.linspace(1, self.T, self.B).round().astype(int))

    def flops(self, mode: str) -> int:
        """Multiply-adds counted as two; the backward pass without the gradient of x."""
        steps = int(self.lengths().sum())
        forward = 2 * steps * 4 * self.H * (self.I + self.H)
        without_dx = 2 * forward - 2 * steps * 4 * self.H * self.I
        return forward if mode == "forward" else forward + without_dx


SHAPES = [
    Shape("elnino", 16, 120, 4, 32, "the demo: windows of a time series, few units"),
    Shape("tiny-1", 1, 100, 64, 64, "one small sequence: overhead of each step"),
    Shape("tiny-32", 32, 100, 64, 64, "a small model in a batch"),
    Shape("small-1", 1, 100, 128, 128, "one sequence, weights in the L2 cache"),
    Shape("small-64", 64, 100, 128, 128, "training of a small model"),
    Shape("ragged-64", 64, 100, 128, 128, "small-64 with sequences of 1 to 100 steps: half the work", True),
    Shape("medium-1", 1, 100, 256, 256, "one sequence, a megabyte of recurrent weights"),
    Shape("medium-16", 16, 100, 256, 256, "a small batch: products of few rows at every step"),
    Shape("medium-64", 64, 100, 256, 256, "training of a language model"),
    Shape("large-1", 1, 50, 512, 512, "one sequence, weights beyond the L2 cache"),
    Shape("large-32", 32, 50, 512, 512, "large products: limited by arithmetic"),
]
