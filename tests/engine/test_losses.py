"""Kernels of losses on every instruction set, around the widths of registers; sizes that do not fit."""

import itertools

import numpy as np
import pytest
import tolerances

from cylstm import reference
from cylstm._engine import _ctc, _losses, isa

WIDTHS = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65]
EVERY = [
    pytest.mark.parametrize("instruction_set", isa.available()),
    pytest.mark.parametrize("dtype", ["float32", "float64"]),
]


def every(test):
    for mark in EVERY:
        test = mark(test)
    return test


def softmax(x, instruction_set):
    out = np.empty_like(x)
    _losses.softmax_rows(out, x, isa.NAMES.index(instruction_set))
    return out


@every
@pytest.mark.parametrize("V", WIDTHS)
def test_agrees_with_the_reference(rng, V, dtype, instruction_set):
    x = (3 * rng.standard_normal((5, V))).astype(dtype)
    expected = np.exp(reference.log_softmax(x.astype(float)))
    ours = softmax(x, instruction_set)
    # Relative: exp is good to 2 units, its argument x - max to half a unit of at most 16, and 16 lanes sum.
    limits = tolerances.FLOAT64 if dtype == "float64" else {"rtol": 16 * np.finfo(np.float32).eps}
    np.testing.assert_allclose(ours, expected, **limits)


@every
def test_the_loss_does_not_depend_on_the_instruction_set(rng, dtype, instruction_set):
    y, labels = rng.standard_normal((6, 4, 33)).astype(dtype), rng.integers(0, 33, (6, 4))
    steps = np.zeros(4, np.intp), np.full(4, 6, np.intp)
    results = []
    for name in ("scalar", instruction_set):
        dy = np.empty_like(y)
        index = isa.NAMES.index(name)
        value, _ = _losses.cross_entropy(dy, y, labels, *steps, np.ones(33), None, 0.1, index)
        results.append((value, dy))
    limits = tolerances.FLOAT64 if dtype == "float64" else {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(results[1][0], results[0][0], **limits)
    np.testing.assert_allclose(results[1][1], results[0][1], **limits)


@every
def test_a_huge_number_at_any_place_overflows_nowhere(dtype, instruction_set):
    places = np.eye(33, dtype=dtype)
    np.testing.assert_array_equal(softmax(1000 * places, instruction_set), places)


@every
def test_special_values(dtype, instruction_set):
    large = np.finfo(dtype).max / 4
    rows = {
        (large, large, -large): (0.5, 0.5, 0),
        (1e4, -1e4, 1e4): (0.5, 0, 0.5),
        (-np.inf, 0, 0): (0, 0.5, 0.5),
        (np.nan, 0, 0): (np.nan,) * 3,
        (0, 0, np.nan): (np.nan,) * 3,
        (np.inf, 0, 0): (np.nan,) * 3,
        (-np.inf, -np.inf, -np.inf): (np.nan,) * 3,
    }
    x = np.repeat(np.array(list(rows), dtype), 11, axis=1)  # 33 wide: whole registers and a rest
    expected = np.repeat(np.array(list(rows.values()), dtype), 11, axis=1) / 11
    np.testing.assert_allclose(softmax(x, instruction_set), expected, rtol=1e-6)


@every
@pytest.mark.parametrize("V", WIDTHS)
def test_rows_far_below_zero_and_far_apart(V, dtype, instruction_set):
    x = np.array([[-2000], [-1000], [3000]], dtype).repeat(V, axis=1)
    np.testing.assert_allclose(softmax(x, instruction_set), 1 / V, rtol=1e-6)


def test_out_may_be_x(rng):
    x = rng.standard_normal((3, 5))
    expected = softmax(x, "scalar")
    _losses.softmax_rows(x, x, 0)
    np.testing.assert_array_equal(x, expected)


REFERENCE = {
    "square": lambda y, z, p: reference.mse(y, z),
    "absolute": lambda y, z, p: reference.mae(y, z),
    "huber": reference.huber,
    "pinball": lambda y, z, p: reference.quantile(y, z, np.array([p])),
    "logistic": reference.binary_cross_entropy,
}


@every
@pytest.mark.parametrize("kind", _losses.KINDS)
@pytest.mark.parametrize("V", [*WIDTHS, 255, 256, 257])
def test_elementwise_losses_agree_with_the_reference(rng, V, kind, dtype, instruction_set):
    """Adjacent numbers with one parameter, and neither."""
    y = (3 * rng.standard_normal((V, 1))).astype(dtype)
    target, p = rng.random((V, 1)).astype(dtype), 0.625
    expected, dy_expected = REFERENCE[kind](y.astype(float), target.astype(float), p)
    begin, end = np.zeros(1, np.intp), np.ones(1, np.intp)
    for step in (1, 2):
        dy = np.empty((V * step, 1), dtype)
        rows = [array[::step] for array in (dy, np.repeat(y, step, 0), np.repeat(target, step, 0))]
        parameter = np.broadcast_to(np.array(p, dtype), (V, 1))
        value = _losses.elementwise(
            kind,
            *(row[None, None] for row in rows),
            parameter if step == 1 else parameter.copy(),
            begin,
            end,
            1 / V,
            isa.NAMES.index(instruction_set),
        )
        limits = tolerances.FLOAT64 if dtype == "float64" else {"rtol": 1e-6, "atol": 1e-7 / V}
        np.testing.assert_allclose(value / V, expected, **limits)
        np.testing.assert_allclose(rows[0], dy_expected, **limits)


@every
@pytest.mark.parametrize("kind", _losses.KINDS)
@pytest.mark.parametrize("apart", itertools.product((1, 2), (1, 2), (0, 1)))
def test_elementwise_losses_of_numbers_at_any_distance(rng, kind, apart, dtype, instruction_set):
    """Of outputs, targets and parameters; adjacent ones with one parameter have a loop of their own."""
    V, limits = 19, tolerances.FLOAT64 if dtype == "float64" else {"rtol": 1e-6, "atol": 1e-6}
    y, target, p = (a.astype(dtype)[:, None] for a in (3 * rng.standard_normal(V), *rng.random((2, V))))
    p = p if apart[2] else np.broadcast_to(p[0], p.shape)
    alone = [
        REFERENCE[kind](*(a[v : v + 1].astype(float) for a in (y, target)), float(p[v, 0])) for v in range(V)
    ]
    dy, y = (np.repeat(y, apart[0], 0)[:: apart[0]] for _ in range(2))
    target = np.repeat(target, apart[1], 0)[:: apart[1]]
    steps, index = (np.zeros(1, np.intp), np.ones(1, np.intp)), isa.NAMES.index(instruction_set)
    value = _losses.elementwise(kind, *(a[None, None] for a in (dy, y, target)), p, *steps, 1.0, index)
    np.testing.assert_allclose(value, sum(loss for loss, _ in alone), **limits)
    np.testing.assert_allclose(dy, np.concatenate([slope for _, slope in alone]), **limits)


@every
@pytest.mark.parametrize("kind", _losses.KINDS)
def test_elementwise_losses_at_their_kinks(kind, dtype, instruction_set):
    """Predictions that are exact, and those that are just as far from the target as a loss bends or as 1."""
    y = np.array([[0, 1, -1, 0.625, -0.625]], dtype).T
    target, p = np.zeros_like(y), 0.625
    expected, dy_expected = REFERENCE[kind](y.astype(float), target.astype(float), p)
    dy, parameter = np.empty_like(y), np.full(y.shape, p, dtype)
    steps = np.zeros(1, np.intp), np.ones(1, np.intp)
    arrays = (array[None, None] for array in (dy, y, target))
    value = _losses.elementwise(
        kind, *arrays, parameter, *steps, 1 / len(y), isa.NAMES.index(instruction_set)
    )
    np.testing.assert_allclose(value / len(y), expected, rtol=1e-6)
    np.testing.assert_allclose(dy, dy_expected, rtol=1e-6)


@every
def test_logistic_loss_relative_accuracy_near_zero(dtype, instruction_set):
    begin, end, index = np.zeros(1, np.intp), np.ones(1, np.intp), isa.NAMES.index(instruction_set)
    for y in np.concatenate([np.linspace(-80, 80, 161), [1e-3, -1e-3]]):
        for target in (0.0, 1.0):
            row, z, p = (np.full((1, 1, 16, 1), a, dtype) for a in (y, target, 1.0))
            dy = np.empty_like(row)
            value = _losses.elementwise("logistic", dy, row, z, p[0, 0], begin, end, 1.0, index)
            sign = 1 if target == 0 else -1
            exact = np.logaddexp(0, sign * float(row[0, 0, 0, 0]))
            slope = sign * np.exp(sign * float(row[0, 0, 0, 0]) - exact)
            eps = np.finfo(dtype).eps
            # Measured: 1.4 units here, and NumPy has its own; without a late term of the series it is 5.6.
            np.testing.assert_allclose(value / 16, exact, rtol=4 * eps)
            # NumPy's own rounding in float64: |y| units in the exponent.
            limits = {"rtol": 8 * eps if dtype == "float32" else 2e-14}
            np.testing.assert_allclose(dy, np.full_like(dy, slope), **limits)


def refuses(function, message, arguments, replacements):
    """That the function takes the arguments, and not with any one of them replaced."""
    function(*arguments.values())
    for name, value in replacements:
        with pytest.raises(ValueError, match=message):
            function(*(arguments | {name: value}).values())


BEGIN, END = np.zeros(1, np.intp), np.full(1, 2, np.intp)
X = np.zeros((2, 3))
Y = np.zeros((2, 1, 3))
NARROW = np.zeros((2, 1, 6))[:, :, ::2]  # outputs that are not adjacent
STEPS = [("begin", BEGIN[:0]), ("end", END[:0]), ("begin", BEGIN - 1), ("end", END + 1)]


def test_softmax_rejects_invalid_arguments():
    wrong = [("out", np.zeros((2, 4))), ("x", X[:1]), ("isa", -1), ("isa", len(isa.NAMES))]
    refuses(_losses.softmax_rows, "softmax_rows: ", {"out": X.copy(), "x": X, "isa": 0}, wrong)


def test_cross_entropy_rejects_invalid_arguments():
    labels, weight = np.zeros((2, 1), np.int64), np.ones(3)
    arguments = {"dy": Y.copy(), "y": Y, "labels": labels, "begin": BEGIN, "end": END}
    arguments |= {"weight": weight, "ignored": None, "smoothing": 0.0, "isa": 0}
    wrong = [
        ("dy", Y[:1].copy()),
        ("dy", NARROW),
        ("y", NARROW),
        ("labels", labels[:1]),
        ("labels", labels - 1),
    ]
    wrong += [("labels", labels + 3), ("weight", weight[:2]), ("isa", -1), *STEPS]
    refuses(_losses.cross_entropy, "losses: expected|cross_entropy: |target: ", arguments, wrong)


def test_elementwise_rejects_invalid_arguments():
    y, parameter = Y[..., None], np.zeros((3, 1))
    arguments = {"kind": "square", "dy": y.copy(), "y": y, "target": y, "parameter": parameter}
    arguments |= {"begin": BEGIN, "end": END, "scale": 1.0, "isa": 0}
    wrong = [("kind", "cube"), ("dy", y[:1].copy()), ("dy", y[:, :, :2].copy()), ("target", y[:1])]
    wrong += [("target", y[:, :, :2]), ("parameter", parameter[:2]), *STEPS]
    wrong += [("isa", -1), ("isa", len(isa.NAMES)), ("dy", np.zeros((2, 1, 6, 1))[:, :, ::2])]
    refuses(_losses.elementwise, "losses: expected|not in tuple", arguments, wrong)


def test_ctc_rejects_invalid_arguments():
    labels, starts = np.ones(1, np.int64), np.array([0, 1], np.intp)
    arguments = {"dy": Y.copy(), "y": Y, "labels": labels, "starts": starts, "lengths": END}
    arguments |= {"blank": 0, "zero_infinity": False, "sequences": 1.0}
    arguments |= {"log_p": X.copy(), "alpha": X.copy(), "beta": X[0].copy(), "occupied": X[0].copy()}
    wrong = [("dy", Y[:1].copy()), ("labels", labels[:0]), ("labels", labels + 2), ("labels", labels - 2)]
    wrong += [("starts", starts[:1]), ("starts", starts[::-1].copy()), ("starts", starts + 1)]
    wrong += [("lengths", END + 1), ("lengths", END[:0]), ("blank", 3), ("blank", -1)]
    wrong += [
        ("log_p", X[:1].copy()),
        ("alpha", X[:1].copy()),
        ("beta", X[0, :2].copy()),
        ("occupied", X[0, :2].copy()),
    ]
    refuses(_ctc.ctc, "ctc: ", arguments, wrong)
