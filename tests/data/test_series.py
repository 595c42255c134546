import numpy as np
import pytest

from cylstm.data.series import interpolated, known_rows, read_csv
from cylstm.data.tables import written


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_are_chosen_by_name_in_the_order_asked_for(tmp_path):
    path = write(tmp_path, "\ufeffdate, a ,b\r\n2020-01,1,2\r\n2020-02,3,4e1\r\n\r\n")
    values, names = read_csv(path, ["b", "a"])
    np.testing.assert_array_equal(values, [[2, 1], [40, 3]])
    assert names == ["b", "a"]


def test_the_only_column_of_numbers_is_the_default(tmp_path):
    values, names = read_csv(write(tmp_path, 'day,"sales, €"\nmon,1\ntue,2\n'))
    np.testing.assert_array_equal(values, [[1], [2]])
    assert names == ["sales, €"]


def test_without_a_header_columns_have_numbers(tmp_path):
    values, names = read_csv(write(tmp_path, "1;2\n3;4"), ["2"], header=False, delimiter=";")
    np.testing.assert_array_equal(values, [[2], [4]])
    assert names == ["2"]


def test_missing_values_are_interpolated_on_request_only(tmp_path):
    path = write(tmp_path, "a,b\n,1\n2,1\nNA,1\nnan,1\n8,1\n?,1\n")
    with pytest.raises(
        ValueError, match=r"column a: 4 missing values, the first in line 2; pass missing='interpolate' to"
    ):
        read_csv(path, ["a"])
    values, _ = read_csv(path, ["a"], missing="interpolate")
    np.testing.assert_array_equal(interpolated(values)[:, 0], [np.nan, 2, 4, 6, 8, np.nan])
    np.testing.assert_array_equal(interpolated(values[known_rows(values)])[:, 0], [2, 4, 6, 8])
    with pytest.raises(ValueError, match="column a: no values at all"):
        read_csv(write(tmp_path, "a,b\n,1\n,2\n"), ["a"], missing="interpolate")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "expected lines of numbers, got 0 lines"),
        ("a,b\n", {}, "expected lines of numbers, got 1 lines"),
        (
            "a,b\n1,2\n3\n",
            {"columns": ["a"]},
            "line 3: expected 2 cells as in line 1, got 1; pass delimiter= if the cells were cut",
        ),
        ("a,b\n1,2\n", {}, "expected one column of numbers, got a, b; pass columns= to select"),
        (
            "a,b\nx,y\n",
            {},
            r"line 2: expected columns of numbers, got the cells \['x', 'y'\]; pass delimiter= if they",
        ),
        ("a,b\n1,2\n", {"columns": ["c"]}, "no column c; it has a, b"),
        ("a,b\n1,2\nx,2\n", {"columns": ["a"]}, "line 3, column a: expected a finite number, got 'x'"),
        ("a,b\n1,2\ninf,2\n", {"columns": ["a"]}, "line 3, column a: expected a finite number, got 'inf'"),
        (
            "a,b\n1,2\n1e200,2\n",
            {"columns": ["a"]},
            "line 3, column a: expected an absolute value below 1e.100",
        ),
        ("1,2\n3,4\n", {}, "line 1: expected names of columns, got numbers; pass header=False if"),
        ("a,a\n1,2\n", {"columns": ["a"]}, "column a: expected once, got it more than once"),
        ('a,b\n1,"2\n', {}, "line 2: not a row of CSV: unclosed quote"),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path, text), **options)


def test_files_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a text file in UTF-8"):
        read_csv(write(tmp_path, "größe\n1\n", "latin-1"))
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv")
    path = tmp_path / "zeros.csv"
    path.write_bytes(b"a\n\0\0\n")
    with pytest.raises(ValueError, match=r"zeros\.csv"):
        read_csv(path, ["a"])


def test_empty_line_is_empty_cell_in_single_column(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("a\n1\n\n3\n\n")
    values, _ = read_csv(path, missing="interpolate")
    np.testing.assert_array_equal(values[:, 0], [1, np.nan, 3])
    with pytest.raises(ValueError, match="1 missing values, the first in line 3"):
        read_csv(path)


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('note,a\n"two\nlines",1\nshort,x\n')
    with pytest.raises(ValueError, match="line 4, column a: expected a finite number, got 'x'"):
        read_csv(path, ["a"])


def test_values_are_never_invented_at_the_ends(tmp_path):
    path = write(tmp_path, "t,a,b\n1,,\n2,1,5\n3,,6\n4,3,7\n5,,\n6,,\n,,\n")
    values, _ = read_csv(path, ["a", "b"], missing="interpolate")
    assert known_rows(values) == slice(1, 4)  # of 6: a row without any cell is none
    filled = interpolated(values)
    np.testing.assert_array_equal(filled[1:4], [[1, 5], [2, 6], [3, 7]])
    assert np.isnan(filled[[0, 4, 5]]).all()
    assert known_rows(np.full((3, 2), np.nan)) == slice(0, 0)
    with pytest.raises(ValueError, match="column a: 4 missing values, the first in line 2; pass missing="):
        read_csv(path, ["a", "b"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "1,5\n2,6\n,7\n",
            "column a: has values from line 2 to 3, others from line 2 to 4; missing values at the start",
        ),
        (
            ",5\n1,6\n2,\n",
            "column a: has values from line 3 to 4, others from line 2 to 4; missing values at the start",
        ),
    ],
)
def test_columns_that_begin_or_end_at_other_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path, "a,b\n" + rows), ["a", "b"], missing="interpolate")


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_column_without_a_name_is_left_out_with_a_warning(tmp_path, name):
    path = write(tmp_path, f"{name},a,note\n0,5,x\n1,6,y\n")
    with pytest.warns(UserWarning, match=r"data\.csv: column 1 has no name and is left out"):
        values, names = read_csv(path)
    np.testing.assert_array_equal(values, [[5], [6]])
    assert names == ["a"]
    np.testing.assert_array_equal(read_csv(path, [name])[0], [[0], [1]])
    with pytest.raises(
        ValueError, match="line 2: expected columns of numbers that have a name, got the cells"
    ):
        read_csv(write(tmp_path, f"{name},note\n0,x\n"))


@pytest.mark.slow
def test_tables_of_thousands_of_columns_have_short_messages(tmp_path):
    names = [f"c{i}" for i in range(30_000)]
    path = write(tmp_path, ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert read_csv(path, "numbers")[0].shape == (1, 30_000)
    for columns in (None, ["d"]):
        with pytest.raises(ValueError, match="30000 in all") as raised:
            read_csv(path, columns)
        assert len(str(raised.value)) < 400 + len(str(path))


def test_memory_that_does_not_suffice_names_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, "a\n1\n")

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("cylstm.data.series.np.frombuffer", exhausted)
    with pytest.raises(MemoryError, match=r"data\.csv: does not fit into memory"):
        read_csv(path)


def test_header_of_our_own_output_is_read_back(tmp_path):
    text = written([["step", "=sum", "-a"], [1, -1.5, 2.0]])
    values, names = read_csv(write(tmp_path, text), ["=sum", "-a"])
    np.testing.assert_array_equal(values, [[-1.5, 2]])
    assert names == ["=sum", "-a"]
