"""Every tolerance of the tests, with its reason. One is loosened only with the measured value beside it."""

import math

import numpy as np

# float64 engine against the float64 reference: the same sums in another order. The absolute part is a
# rounding of the terms, of size 1, where they cancel.
FLOAT64 = {"rtol": 1e-12, "atol": 1e-14}

# Gradients against 4th-order central differences with h = 1e-3: truncation h^4 / 30 times the
# fifth derivative, rounding eps / h.
DIFFERENCES = {"rtol": 5e-6, "atol": 1e-10}


def differences(cell: str, clip: float | None = None) -> tuple[float, dict[str, float]]:
    """Step and tolerance for a cell.

    At the kinks of relu and clip no difference is right: a small step seldom meets them, at the price of a
    rounding of eps / h = 2e-10 times the loss. Layer normalisation of almost equal numbers bends strongly:
    with h = 1e-4 the truncation is the same for derivatives 6 times as large.
    """
    if cell == "rnn_relu" or clip is not None:
        return 1e-6, {"rtol": 5e-6, "atol": 1e-8}
    return (1e-4, {"rtol": 5e-6, "atol": 1e-8}) if cell == "lstm_norm" else (1e-3, DIFFERENCES)


def amplification(cell: str) -> float:
    """Factor on tolerances.

    Layer normalisation divides by the deviation of a row, and so multiplies its rounding: 17 times the
    rounding unit was the worst of 600 random layers with more than 3 units and no dropout.
    """
    return 16 if cell == "lstm_norm" else 1


# Rows of few units, or of masked ones, are almost flat at times, and a layer multiplies what the one below it
# does: there the results move by up to 1000 times the tolerance when the numbers that go in move to their
# neighbours. So many times the largest move of three draws is allowed besides. Of 5455 random layers, half of
# them of 1 to 4 units, 22 needed any of it: 21 up to 1.8 times, one 74 times.
MOVES = 64


def float64(scale: float, factor: float = 1) -> dict[str, float]:
    """FLOAT64 times a factor, for terms of size `scale`."""
    return {"rtol": 1e-12 * factor, "atol": 1e-14 * factor * max(1, scale)}


# PyTorch in float64 on the same values: other library, other order, other exp and tanh.
TORCH = {"rtol": 1e-10, "atol": 1e-12}

# Ten Adam steps divide by the root of a mean of squares, which amplifies rounding of tiny gradients.
TRAJECTORY = {"rtol": 1e-9, "atol": 1e-12}

# Largest errors of the activations, in units in the last place (include/cylstm/activations.h);
# measured: 1.01, 2.47 and 2.54.
ULP = {"exp": 2, "sigmoid": 3, "tanh": 3}


def float32(inner: int, steps: int, scale: float, backward: bool = False) -> dict[str, float]:
    """float32 engine against the float64 reference, k eps ceil(log2((I+H) T)), twice that backward.

    Relative to the largest element of all results, of the products with weights, of the first states, and of
    the gradients that come in: a small one is a sum of large ones, or a product with 1 - y^2 where y is
    almost 1. k = 4; relative to results alone, measured over 1500 problems like those of
    tests/recurrent/test_recurrent.py: at most 2.3 forward and 2.4 backward, but more than 4 in 6 of 1000
    layers of one or two units, whose products cancel.
    """
    k = 4 * (2 if backward else 1)
    eps = float(np.finfo(np.float32).eps)
    return {
        "rtol": 0.0,
        "atol": k * eps * max(1, math.ceil(math.log2(max(2, inner * steps)))) * max(scale, 1e-30),
    }
