"""CSV files: rows that are read, cells that are written."""

import csv
import io

import pytest

from cylstm.data.tables import cell_read, cell_written, open_table, read_table, written
from cylstm.data.text_files import DataFileError


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_rows_of_all_encodings_and_ends_of_lines(tmp_path, encoding, end):
    path = write(tmp_path, end.join(["file,label", '"a,1",größer', "b, x ", ""]), encoding)
    assert read_table(path) == ([["a,1", "größer"], ["b", "x"]], ["file", "label"], [2, 3])


def test_empty_rows_at_the_end_and_before_the_header_are_no_rows(tmp_path):
    text = "\n,,\na,b,c\n1,,\n" + ",,\n" * 3 + " , ,\n\n\n"
    assert read_table(write(tmp_path, text)) == ([["1", "", ""]], ["a", "b", "c"], [4])
    _, rows = open_table(write(tmp_path, "a,b\n1,2\n,\n3,4\n,\n"))
    assert [row.cells for row in rows] == [["1", "2"], ["", ""], ["3", "4"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n\n3,4\n", "line 3: expected 2 cells, got an empty line"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3: not a row of CSV: unclosed quote"),
        ('a,b\n1,"2"x\n', "line 2: not a row of CSV: ',' expected after '\"'"),
        ("a,b\n1," + "2" * 200_000 + "\n", "line 2: .* a cell of more than 131072 characters; is a quote"),
        ("a,b\n1,2,3\n", "line 2: expected 2 cells as in line 1, got 3; pass delimiter= if the cells were"),
        ("\na,b\n1\n", "line 3: expected 2 cells as in line 2, got 1"),
        ("a,b\n,\n", "expected lines of numbers, got 1 lines"),
        ("a,b\n1,\0\n", "line 2: .* got a NUL byte"),
    ],
)
def test_rows_that_are_none_are_named_with_their_line(tmp_path, text, message):
    with pytest.raises(DataFileError, match=message):
        read_table(write(tmp_path, text))


@pytest.mark.parametrize("delimiter", ["", ";;", "\n", '"', None])
def test_a_delimiter_is_one_character(tmp_path, delimiter):
    with pytest.raises(ValueError, match="delimiter: expected one character"):
        read_table(write(tmp_path, "a,b\n1,2\n"), delimiter=delimiter)


FORMULAS = [
    "=1+1",
    "+1+1",
    "-a",
    "-1-1",
    "@sum(a1)",
    "\t=1",
    "\r=1",
    " =1",
    "＝1",
    "-",
    "=",
    "'=1",
    "''@",
    "a;=1",
]


@pytest.mark.parametrize("text", [*FORMULAS, "up", "it's", "'quoted'", "-1.5", "+1e-3", "", "a,b", 'say "x"'])
def test_written_cells_are_no_formulas_and_read_back(tmp_path, text):
    line = written([[text, "end"]])
    (row,) = csv.reader(io.StringIO(line, newline=""))
    assert cell_read(row[0]) == text
    assert row[1] == "end"
    if text in FORMULAS and text != "a;=1":
        assert row[0] == "'" + text
    else:
        assert row[0] == text
    if ";" in text:  # which is a delimiter for spreadsheets of half of Europe
        assert line.startswith('"')
    if text == text.strip():
        rows, _, _ = read_table(write(tmp_path, "a,b,c\n" + "x," + written([["y", text]])))
        assert rows == [["x", "y", text]]


def test_numbers_are_written_as_they_are():
    assert written([[1, -1.5, 1e-7, -2e300, "-1"]]) == "1,-1.5,1e-07,-2e+300,-1\n"
    assert cell_written(-1.5) == "-1.5"
