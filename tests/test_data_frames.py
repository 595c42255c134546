"""Data frames go where arrays go, and pandas is not loaded for anybody else."""

import subprocess
import sys

import numpy as np
import pytest

from cylstm.data import Arrays, TokenStream, Windows

pandas = pytest.importorskip("pandas", reason="pandas is not installed")


def frame():
    return pandas.DataFrame({"load": np.arange(9.0), "day": np.arange(9), "cold": np.arange(9) % 2 == 0})


def test_windows_over_a_frame_know_its_columns():
    windows = Windows(frame(), 3, 2, targets="day")
    assert windows.x.shape == (5, 3, 3)
    np.testing.assert_array_equal(windows.y[:, :, 0], [[3, 4], [4, 5], [5, 6], [6, 7], [7, 8]])
    assert Windows(frame(), 3, targets=["cold", "load"]).columns == [2, 0]
    twice = frame().set_axis(["load", "load", "cold"], axis=1)
    with pytest.raises(
        ValueError, match="targets: expected a name of one column, got 'load', that of several"
    ):
        Windows(twice, 3, targets="load")
    with pytest.raises(ValueError, match=r"expected columns among \['load', 'day', 'cold'\], got 'dya'"):
        Windows(frame(), 3, targets=["dya"])
    train, validation = Windows(frame(), 2, targets="day").split(0.4)
    assert (train.columns, len(train.x), len(validation.x)) == ([1], 3, 2)
    assert Windows(frame()["load"], 3).x.shape == (6, 3, 1)


def test_a_frame_of_one_dtype_is_not_copied():
    table = pandas.DataFrame(np.zeros((50, 3)))
    assert np.shares_memory(Windows(table, 5).x, table.to_numpy())


def test_frames_and_columns_as_samples_and_targets():
    ids = pandas.DataFrame(np.arange(8).reshape(4, 2))
    source = Arrays(ids, pandas.Series([0, 1, 0, 1], index=list("abcd")), 4)
    (batch,) = source.epoch()
    np.testing.assert_array_equal(batch.x, np.arange(8).reshape(4, 2).T)
    np.testing.assert_array_equal(batch.target, [0, 1, 0, 1])
    parts = [frame()[["load", "day"]], frame()[["load", "day"]][:4]]
    (batch,) = Arrays(parts, [1.0, 2.0]).epoch()
    assert (batch.x.shape, batch.lengths.tolist()) == ((9, 2, 2), [9, 4])
    assert len(TokenStream(pandas.Series([1, 2, 3]), 1, 1)) == 2


def test_columns_that_are_no_numbers_are_named_and_gaps_found():
    with pytest.raises(TypeError, match=r"series: expected columns of real numbers, got others: \['name'\]"):
        Windows(frame().assign(name="a"), 3)
    with pytest.raises(TypeError, match="expected columns of real numbers, got others"):
        Windows(pandas.Series(["a", "b"], name="s"), 1)
    gaps = frame().assign(load=pandas.array([1.0] * 8 + [None], dtype="Float64"))
    with pytest.raises(
        ValueError, match=r"series\[8, 0\] \(row, column\): expected a finite number, got nan"
    ):
        Windows(gaps, 3).check()


def test_pandas_is_loaded_by_nobody_but_the_caller():
    code = """
import sys, numpy as np, cylstm
from cylstm.data import Arrays, Windows
list(Windows(np.zeros((9, 2)), 3).epoch()), list(Arrays([np.zeros((3, 2))], [1]).epoch())
print([name for name in sys.modules if name.split(".")[0] in ("pandas", "scipy")])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
