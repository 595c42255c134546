"""The losses of the reference: CTC by all of its paths, the others by differences.

PyTorch is compared with the engine, which is compared with the reference, in tests/losses/test_losses.py.
"""

import itertools

import numpy as np
import pytest
import tolerances
from differences import gradient
from loss_cases import CASES

from cylstm import reference


def said(path, blank):
    """What a path says: repetitions are one, blanks none."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 3], [3, 1, 3], [1, 1, 1]])
@pytest.mark.parametrize("T", [1, 3, 5])
def test_ctc_is_the_sum_over_all_paths(rng, T, labels, blank):
    y = rng.standard_normal((T, 4))
    p = np.exp(reference.log_softmax(y))
    paths = [path for path in itertools.product(range(4), repeat=T) if said(path, blank) == labels]
    probability = sum(np.prod(p[range(T), path]) for path in paths)
    with np.errstate(invalid="ignore"):  # no path: infinite, without a gradient
        value, dy = reference.ctc(y, np.array(labels, int), blank)
    if not paths:
        assert value == np.inf
        return
    np.testing.assert_allclose(value, -np.log(probability), **tolerances.FLOAT64)
    numerical = gradient(lambda: reference.ctc(y, np.array(labels, int), blank)[0], y)
    np.testing.assert_allclose(dy, numerical, rtol=5e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_agree_with_differences(rng, case):
    y, target = rng.standard_normal((6, 1, case.outputs)), case.target(rng, 6, [6])
    own = [case.part(target, 0, slice(None))]
    (dy,) = case.expected([y[:, 0]], own)[1]
    numerical = gradient(lambda: case.expected([y[:, 0]], own)[0], y, 1e-6)
    np.testing.assert_allclose(dy, numerical[:, 0], rtol=5e-6, atol=1e-8)


def test_ignored_labels_are_a_loss_of_zero(rng):
    y, labels = rng.standard_normal((4, 3)), np.ones(4, int)
    value, dy, total = reference.cross_entropy(y, labels, np.ones(3), 1, 0.1)
    assert (value, total) == (0, 0)
    np.testing.assert_array_equal(dy, np.zeros((4, 3)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_without_weight_leave_the_sum_of_the_smoothing(rng, smoothing):
    y, labels, weight = rng.standard_normal((4, 3)), np.ones(4, int), np.array([1.0, 0.0, 2.0])
    value, dy, total = reference.cross_entropy(y, labels, weight, None, smoothing)
    log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(value, -(smoothing / 3 * weight * log_p).sum(), **tolerances.FLOAT64)
    assert total == 0
    numerical = gradient(lambda: reference.cross_entropy(y, labels, weight, None, smoothing)[0], y)
    np.testing.assert_allclose(dy, numerical, rtol=5e-6, atol=1e-9)
