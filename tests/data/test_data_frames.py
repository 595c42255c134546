"""Data frames and columns go where arrays go, and their libraries are not loaded for anybody else."""

import datetime
import subprocess
import sys

import numpy as np
import pytest

import cylstm
from cylstm import _checks
from cylstm.data import Arrays, StandardScaler, TokenStream, Windows

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
        ValueError, match="targets: expected a unique column name, got 'load', which several columns have"
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
    with pytest.raises(TypeError, match=r"series\[0\]: expected real numbers, got 'a'"):
        Windows(pandas.Series(["a", "b"], name="s"), 1)
    gaps = frame().assign(load=pandas.array([1.0] * 8 + [None], dtype="Float64"))
    with pytest.raises(ValueError, match=r"series\['load'\]\[8\]: expected a value, got a missing one"):
        Windows(gaps, 3)


@pytest.mark.process
def test_pandas_is_loaded_by_nobody_but_the_caller():
    code = """
import sys, numpy as np, cylstm
from cylstm.data import Arrays, Windows
list(Windows(np.zeros((9, 2)), 3).epoch()), list(Arrays([np.zeros((3, 2))], [1]).epoch())
print([name for name in sys.modules if name.split(".")[0] in ("pandas", "scipy")])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def read(value, gaps=False):
    return _checks.real_array("x", value, gaps)


def test_columns_of_pandas_that_mark_their_gaps_elsewhere():
    for dtype, plain in [("Int64", "i8"), ("Float32", "f4"), ("boolean", "?")]:
        whole = pandas.Series([1, 0], dtype=dtype)
        assert read(whole).dtype == np.dtype(plain)
        gap = pandas.Series([1, None], dtype=dtype)
        with pytest.raises(ValueError, match=r"x\[1\]: expected a value, got a missing one"):
            read(gap)
        np.testing.assert_array_equal(read(gap, gaps=True), [1, np.nan])
    both = pandas.DataFrame({"a": pandas.array([1, 2], dtype="Int64"), "b": [True, False]})
    np.testing.assert_array_equal(read(both), [[1, 1], [2, 0]])
    objects = pandas.DataFrame({"a": [1, None]}, dtype=object)
    with pytest.raises(ValueError, match=r"x\['a'\]\[1\]: expected a value, got a missing one"):
        read(objects)
    np.testing.assert_array_equal(read(pandas.Series([0.0, 2.0], dtype=pandas.SparseDtype(float))), [0, 2])
    np.testing.assert_array_equal(read(pandas.Index([3, 4])), [3, 4])


@pytest.mark.parametrize(
    "column, message",
    [
        (lambda: pandas.date_range("2020", periods=2), "x: expected real numbers, got dtype datetime64"),
        (lambda: pandas.Series(pandas.date_range("2020", periods=2, tz="UTC")), r"x\[0\].*got Timestamp"),
        (lambda: pandas.Series([pandas.Timedelta(1)]), "x: expected real numbers, got dtype timedelta64"),
        (lambda: pandas.Series([1, 2], dtype="category"), "x: expected real numbers, got categories; pass"),
        (lambda: pandas.Series(pandas.period_range("2020", periods=2)), r"x\[0\].*got Period"),
        (lambda: pandas.DataFrame({"a": [1j], "b": [1.0]}), r"got others: \['a'\] \(complex128\)"),
        (
            lambda: pandas.DataFrame({"when": pandas.to_datetime(["2020"]), "site": ["x"], "load": [1.0]}),
            r"x: expected columns of real numbers, got others: \['when', 'site'\] \(datetime64",
        ),
    ],
)
def test_dates_categories_and_texts_of_pandas_are_refused(column, message):
    with pytest.raises(TypeError, match=message):
        read(column())


def test_polars_frames_and_columns_are_read():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    table = polars.DataFrame({"load": np.arange(9.0), "day": np.arange(9)})
    windows = Windows(table, 3, targets="day")
    np.testing.assert_array_equal(windows.series, np.repeat(np.arange(9.0)[:, None], 2, axis=1))
    assert windows.columns == [1]
    layer = cylstm.GRU(2, 3, seed=0)
    np.testing.assert_array_equal(layer(table)[0], layer(table.to_numpy())[0])
    np.testing.assert_array_equal(read([polars.Series([1, 2]), polars.Series([3, 4])]), [[1, 2], [3, 4]])
    (batch,) = Arrays([table, table[:4]], polars.Series([0, 1])).epoch()
    assert (batch.x.shape, batch.target.tolist()) == ((9, 2, 2), [0, 1])
    assert len(TokenStream(polars.Series([1, 2, 3]), 1, 1)) == 2


def test_gaps_of_polars_are_missing_values():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    gap = polars.DataFrame({"load": [1.0, 2.0, 3.0], "cold": [True, None, False]})
    with pytest.raises(ValueError, match=r"series\['cold'\]\[1\]: expected a value, got a missing one"):
        Windows(gap, 1)
    with pytest.raises(ValueError, match=r"x\[0\]: expected a value, got a missing one"):
        read(polars.Series([None, 2]))
    np.testing.assert_array_equal(StandardScaler().fit(gap).offset, [2, 0.5])
    assert np.isnan(StandardScaler().fit(gap).transform(gap)[1, 1])


def test_other_columns_of_polars_are_refused_by_name():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    days = [datetime.date(2020, 1, day) for day in (1, 2)]
    table = polars.DataFrame({"when": days, "site": ["a", "b"], "load": [1.0, 2.0]})
    with pytest.raises(TypeError, match=r"got others: \['when', 'site'\] \(Date, String\)"):
        read(table)
    nested = polars.DataFrame({"a": [1.0], "pair": [[1, 2]]}, schema_overrides={"pair": polars.Array(int, 2)})
    with pytest.raises(TypeError, match=r"got others: \['pair'\] \(Array"):
        read(nested)
    with pytest.raises(TypeError, match=r"got a LazyFrame, which is not computed yet; pass x.collect\(\)"):
        read(table.lazy())
    with pytest.raises(TypeError, match="x: expected real numbers, got dtype datetime64"):
        read(table["when"])


def test_tables_of_pyarrow_are_read():
    arrow = pytest.importorskip("pyarrow", reason="PyArrow is not installed")
    np.testing.assert_array_equal(read(arrow.table({"a": [1, 2], "b": [0.5, 1]})), [[1, 0.5], [2, 1]])
    gap = arrow.table({"a": [1, None]})
    with pytest.raises(ValueError, match=r"x\['a'\]\[1\]: expected a value, got a missing one"):
        read(gap)
    np.testing.assert_array_equal(read(gap, gaps=True), [[1], [np.nan]])
    with pytest.raises(TypeError, match=r"got others: \['s'\] \(string\)"):
        read(arrow.table({"s": ["a"]}))


def test_arrays_of_xarray_and_dask_are_read():
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    np.testing.assert_array_equal(read(xarray.DataArray(np.ones((2, 3)))), np.ones((2, 3)))
    with pytest.raises(TypeError, match="got a Dataset, which NumPy cannot read"):
        read(xarray.Dataset({"a": ("t", [1.0])}))
    dask = pytest.importorskip("dask.array", reason="dask is not installed")
    masked = dask.ma.masked_equal(dask.from_array(np.array([1.0, -9.0])), -9.0)
    with pytest.raises(ValueError, match=r"x\[1\]: expected a value, got a missing one"):
        read(masked)
