"""Windows over a series, its parts, and streams of tokens: every value where it belongs, and just once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cylstm.data import TokenStream, Windows, split

few = settings(max_examples=60, deadline=None)
sizes = st.integers(1, 12)


@few
@given(
    n=st.integers(1, 60),
    I=st.integers(1, 3),
    length=sizes,
    horizon=st.integers(1, 4),
    stride=st.integers(1, 5),
    ahead=st.integers(1, 4),
    batch_size=sizes,
    data=st.data(),
)
def test_windows_are_followed_by_their_targets(n, I, length, horizon, stride, ahead, batch_size, data):
    n += length + horizon + ahead - 2
    columns = data.draw(st.lists(st.integers(0, I - 1), min_size=1, max_size=3, unique=True))
    series = np.arange(n * I).reshape(n, I)
    windows = Windows(series, length, horizon, columns, stride, batch_size, ahead)
    starts = range(0, n - length - ahead - horizon + 2, stride)
    assert windows.x.shape == (len(starts), length, I)
    seen = []
    for batch in windows.epoch(np.random.default_rng(0)):
        target = batch.target.reshape(-1, horizon, len(columns))
        for b in range(len(target)):
            start = batch.x[0, b, 0] // I
            first = start + length + ahead - 1
            seen.append(start)
            np.testing.assert_array_equal(batch.x[:, b], series[start : start + length])
            np.testing.assert_array_equal(target[b], series[first : first + horizon, columns])
    assert sorted(seen) == list(starts)


def test_windows_are_views_of_the_series():
    series = np.zeros((1000, 3))
    windows = Windows(series, 100, 10, [1, 2])
    for view in (windows.x, windows.y, windows.series):
        assert np.shares_memory(view, series)
    assert not np.shares_memory(next(windows.epoch()).x, series)
    assert not windows.x.flags.writeable


@few
@given(
    n=st.integers(30, 200), validation=st.floats(0.1, 0.4), test=st.floats(0.1, 0.3), gap=st.integers(0, 3)
)
def test_windows_of_a_split_never_straddle(n, validation, test, gap):
    windows = Windows(np.arange(n), 1, 1, stride=1)
    parts = windows.split(validation, test, gap)
    bounds = [(part.x.min(), part.y.max()) for part in parts]
    slices = split(n, validation, test, gap)
    assert bounds == [(part.start, part.stop - 1) for part in slices]
    for (_, before), (after, _) in itertools.pairwise(bounds):
        assert after - before == gap + 1
    assert slices[-1].stop == n


def test_a_mask_chooses_columns():
    series = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(
        Windows(series, 2, targets=[True, False, True]).y, Windows(series, 2, targets=[0, 2]).y
    )


def test_split_omits_empty_parts():
    assert split(10, 0) == (slice(0, 10),)
    assert split(10, 0, 0.2) == (slice(0, 8), slice(8, 10))
    assert split(range(3), 0.01) == (slice(0, 2), slice(2, 3))


@few
@given(n=st.integers(2, 200), batch_size=sizes, length=sizes)
def test_every_token_is_predicted_once_from_the_one_before(n, batch_size, length):
    if n <= batch_size:
        n += batch_size
    batches = list(TokenStream(np.arange(n), batch_size, length).epoch())
    x, y = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("x", "target"))
    np.testing.assert_array_equal(y, x + 1)
    assert sorted(y.T.ravel()) == list(range(1, y.size + 1))
    assert n - 1 - y.size < batch_size
    np.testing.assert_array_equal(x[1:], y[:-1])  # each stream goes on where it was
    assert [batch.continues for batch in batches] == [False] + [True] * (len(batches) - 1)
    assert [len(batch.x) for batch in batches[:-1]] == [length] * (len(batches) - 1)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Windows(np.zeros(5), 4, 2), ValueError, "series: expected at least 6 rows .* got 5"),
        (lambda: Windows(np.zeros(5), 4, ahead=2), ValueError, "series: expected at least 6 rows .* got 5"),
        (lambda: Windows(np.zeros((5, 2, 1)), 2), ValueError, r"series: expected \(n, I\) or \(n,\), got"),
        (lambda: Windows(np.zeros((5, 2)), 2, targets=2), ValueError, r"among \[0, 1\], got 2"),
        (lambda: Windows(np.zeros((5, 2)), 2, targets=["a"]), ValueError, r"among \[0, 1\], got 'a'"),
        (
            lambda: Windows(np.zeros((5, 2)), 2, targets=[]),
            ValueError,
            "targets: expected at least one column",
        ),
        (
            lambda: Windows(np.zeros((5, 2)), 2, targets=[True]),
            ValueError,
            r"targets: expected a mask of 2 columns, got shape \(1,\)",
        ),
        (lambda: Windows(["a", "b"], 1), TypeError, r"series\[0\]: expected real numbers, got 'a'"),
        (
            lambda: TokenStream(np.arange(3), 3, 2),
            ValueError,
            "ids: expected more than batch_size = 3 of them",
        ),
        (lambda: TokenStream(np.arange(3.0), 1, 2), ValueError, "ids: expected a vector of ints"),
        (lambda: split(5, 0.6, 0.5), ValueError, "series: expected at least one training row, got 5 rows"),
        (lambda: split(5, 1.5), ValueError, r"validation: expected a number in \[0, 1\)"),
        (lambda: split(1), ValueError, "series: expected at least one training row"),
    ],
)
def test_invalid_series_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()
