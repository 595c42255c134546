"""Sequences from `.ts` files and CSV files: what is read, and that every fault is named with its place."""

import numpy as np
import pytest

from cylstm.data.sequence_files import read_sequences, read_ts
from cylstm.data.tables import written

HEADER = "@problemName X\n@classLabel true up down\n@data\n"


def write(tmp_path, text, name="x.ts"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_sequences_of_different_length_with_their_classes(tmp_path):
    text = (
        "\ufeff# a comment\r\n\r\n@problemName A name\r\n@timeStamps false\n@missing false\n"
        "@univariate false\n"
        "@dimensions 2\n@equalLength false\n@classLabel\ttrue\ta-1 2\n@data\n"
        "1,2, 3:4,5,6e1:a-1\n# another\n-7.5:8:2\n\n"
    )
    sequences, labels = read_ts(write(tmp_path, text))
    np.testing.assert_array_equal(sequences[0], [[1, 4], [2, 5], [3, 60]])
    np.testing.assert_array_equal(sequences[1], [[-7.5, 8]])
    assert (len(sequences), labels) == (2, ["a-1", "2"])


def test_no_classes_are_no_labels(tmp_path):
    sequences, labels = read_ts(write(tmp_path, "@classLabel false\n@univariate true\n@data\n1,2\n3,4,5\n"))
    assert [len(sequence) for sequence in sequences] == [2, 3]
    assert labels is None


def test_missing_values_are_interpolated_on_request_only(tmp_path):
    path = write(tmp_path, HEADER + "1,2,?,NaN,5:1,1,1,1,1:up\n")
    with pytest.raises(
        ValueError, match=r"x\.ts, line 4: dimension 1, value 3: missing, '\?'; pass missing='interpolate'"
    ):
        read_ts(path)
    np.testing.assert_array_equal(read_ts(path, missing="interpolate")[0][0][:, 0], [1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="line 4: dimension 2: no values at all"):
        read_ts(write(tmp_path, HEADER + "1,2:?,?:up\n"), missing="interpolate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a .ts file: expected a line @data, got none"),
        ("a,b\n1,2\n", "line 1: expected a line of the header, @..., before @data, got 'a,b'"),
        ("@classLabel true a b\n", "expected a line @data"),
        (HEADER, "expected sequences after @data, got none"),
        ("@data\n1:a\n", "line 1: expected @classLabel before @data, got none"),
        ("@classLable true a b\n", "line 1: expected one of @timestamps.*, got @classlable"),
        ("@classLabel maybe\n", "line 1: expected @classlabel true or false, got 'maybe'"),
        ("@classLabel\n", "line 1: expected @classlabel true or false, got ''"),
        ("@classLabel true\n", "line 1: expected the names of the classes"),
        ("@classLabel true a a\n", "line 1: expected the names of the classes"),
        ("@classLabel true a\n@classLabel true b\n", "line 2: expected @classlabel once"),
        ("@dimensions two\n", "line 1: expected a positive int after @dimensions, got 'two'"),
        ("@dimensions 0\n", "line 1: expected a positive int after @dimensions, got '0'"),
        ("@timeStamps true\n" + HEADER, "line 4: expected @timeStamps false, got true"),
        ("@targetLabel true\n" + HEADER, "line 4: expected classes, got @targetLabel true"),
        (HEADER + "1,2:up\n@data\n", "line 5: expected a sequence after @data, got '@data'"),
        (HEADER + "1,2:left\n", "line 4: expected a class, one of up, down, at the end, got 'left'"),
        (HEADER + "1,2\n", "line 4: expected a class, one of up, down, at the end, got '1,2'"),
        (HEADER + "up\n", "line 4: expected 1 or more dimensions, got 0"),
        (HEADER + "1,2:3,4:up\n1,2:up\n", "line 5: expected 2 dimensions, got 1"),
        ("@dimensions 3\n" + HEADER + "1:2:up\n", "line 5: expected 3 dimensions, got 2"),
        ("@univariate true\n" + HEADER + "1:2:up\n", "line 5: expected 1 dimensions, got 2"),
        (HEADER + "1,2:3:up\n", "line 4: expected dimensions of one length, got 1 to 2 values"),
        (HEADER + "1,x:up\n", "line 4: dimension 1, value 2: expected a finite number, got 'x'"),
        (HEADER + "1,2:1,:up\n", "line 4: dimension 2, value 2: expected a finite number, got ''"),
        (HEADER + ":up\n", "line 4: dimension 1, value 1: expected a finite number, got ''"),
        (HEADER + "1,-1e100:up\n", "line 4: dimension 1, value 2: expected an absolute value below 1e\\+100"),
        (HEADER + "1,inf:up\n", "line 4: dimension 1, value 2: expected a finite number, got 'inf'"),
        (HEADER + "(0,1),(1,2):up\n", r"line 4: dimension 1, value 1: expected a finite number, got '\(0'"),
        (
            "@equalLength true\n" + HEADER + "1,2:up\n1:up\n",
            "line 6: expected 2 values because of @equalLength true",
        ),
        ("@equalLength true\n@seriesLength 3\n" + HEADER + "1,2:up\n", "line 6: expected 3 values"),
    ],
)
def test_faults_of_ts_files_are_named_with_their_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_ts(write(tmp_path, text))


def test_files_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.ts").write_bytes(b"@problemName \xff\n")
    with pytest.raises(ValueError, match="expected a text file in UTF-8"):
        read_ts(tmp_path / "x.ts")
    with pytest.raises(FileNotFoundError):
        read_ts(tmp_path / "none.ts")


def test_several_ts_files_are_one_set(tmp_path):
    one, two = (
        write(tmp_path, HEADER + "1:2:up\n", "1.ts"),
        write(tmp_path, HEADER + "3,4:5,6:down\n", "2.TS"),
    )
    read = read_sequences([one, two])
    assert [len(values) for values in read.values] == [1, 2]
    assert (read.labels, read.names, read.columns) == (["up", "down"], ["1", "2"], [])
    narrow = write(tmp_path, HEADER + "3,4:down\n", "3.ts")
    with pytest.raises(ValueError, match=r"3\.ts: expected 2 dimensions, as .*1\.ts has, got 1"):
        read_sequences([one, narrow])
    plain = write(tmp_path, "@classLabel false\n@data\n3,4:1,1\n", "4.ts")
    with pytest.raises(ValueError, match=r"4\.ts: expected labels in all files or in none"):
        read_sequences([one, plain])


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "t,x,y,note\nmon,1,2,a\ntue,3,4,b\n", "set/b.csv")
    write(tmp_path, "t,y,x,note\nmon,5,6,\n", "set/a.csv")
    write(tmp_path, "t,x,y,note\nmon,7,8,z\n", "set/c.CSV")
    write(tmp_path, "no table", "set/readme.txt")
    write(tmp_path, "label,file,who\nup,b.csv,me\ndown,a.csv,you\n", "labels.csv")
    return tmp_path


def test_csv_folder_uses_columns_of_first_file(folder):
    read = read_sequences([folder / "set"], folder / "labels.csv")
    assert (read.names, read.labels, read.columns) == (["b.csv", "a.csv"], ["up", "down"], ["x", "y"])
    np.testing.assert_array_equal(read.values[0], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read.values[1], [[6, 5]])
    everything = read_sequences([folder / "set"], columns=["y"])
    assert (everything.names, everything.labels) == (["a.csv", "b.csv", "c.CSV"], None)
    np.testing.assert_array_equal(everything.values[2], [[8]])
    listed = read_sequences([folder / "set/a.csv", folder / "set/b.csv"], folder / "labels.csv", ["x"])
    assert (listed.names, listed.labels) == (["a.csv", "b.csv"], ["down", "up"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "labels.csv",
            "file,class\na.csv,up\n",
            r"labels\.csv, line 1: expected columns file and label, got",
        ),
        ("labels.csv", "file,label\na.csv,\n", r"labels\.csv, line 2: expected a file and a label"),
        (
            "labels.csv",
            "file,label\na.csv,1\na.csv,2\n",
            r"line 3: expected each file once, got a\.csv again",
        ),
        ("labels.csv", "file,label\n", "expected lines of numbers, got 1 lines"),
        ("labels.csv", "", "expected lines of numbers, got 0 lines"),
        ("set/a.csv", "t,y,note\nmon,5,\n", r"a\.csv: no column x; it has t, y, note"),
        ("set/a.csv", "", r"a\.csv: expected lines of numbers, got 0 lines"),
        (
            "set/a.csv",
            "t,y,x\nmon,5,\ntue,5,1\n",
            r"a\.csv, column x: 1 missing values, the first in line 2",
        ),
        ("set/a.csv", "t,y,x\nmon,5,\n", r"a\.csv, column x: no values at all"),
        ("set/a.csv", "t,y,x\nmon,5,nope\n", r"a\.csv, line 2, column x: expected a finite number"),
        (
            "set/b.csv",
            "t,note\nmon,a\n",
            r"b\.csv, line 2: expected columns of numbers, got the cells \['mon', 'a'\]; pass delimiter=",
        ),
    ],
)
def test_faults_of_csv_sequences_are_named_with_their_file(folder, name, text, message):
    write(folder, text, name)
    with pytest.raises(ValueError, match=message):
        read_sequences([folder / "set"], folder / "labels.csv")


def test_inconsistent_files_are_rejected(folder):
    ts = write(folder, HEADER + "1,2:up\n")
    with pytest.raises(ValueError, match=r"expected \.ts files, or CSV files and folders of them"):
        read_sequences([ts, folder / "set"])
    with pytest.raises(ValueError, match=r"labels\.csv: expected no file of labels for \.ts files"):
        read_sequences([ts], folder / "labels.csv")
    with pytest.raises(ValueError, match=r"expected a label for each file, got none for c\.CSV"):
        read_sequences([folder / "set/c.CSV"], folder / "labels.csv")
    (folder / "set/a.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.csv"):
        read_sequences([folder / "set"], folder / "labels.csv")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected a folder of \.csv files, got none in it"):
        read_sequences([folder / "empty"])


def test_missing_ends_are_dropped_with_a_warning(tmp_path):
    path = write(tmp_path, HEADER + "1,?,3,?:5,6,7,?:up\n?,1,2,?:?,3,4,NaN:down\n")
    with pytest.warns(
        UserWarning, match=r"x\.ts, line 4 and 1 more: steps without values at the beginning or"
    ):
        sequences, _ = read_ts(path, missing="interpolate")
    np.testing.assert_array_equal(sequences[0], [[1, 5], [2, 6], [3, 7]])
    np.testing.assert_array_equal(sequences[1], [[1, 3], [2, 4]])
    for line, dimension in [("1,2,?:1,2,3:up", 1), ("1,2,3:?,2,3:up", 2)]:
        with pytest.raises(ValueError, match=f"line 4: dimension {dimension}: missing values at the start"):
            read_ts(write(tmp_path, HEADER + line + "\n"), missing="interpolate")


def test_missing_csv_ends_are_dropped_with_a_warning(folder):
    write(folder, "t,x,y,note\nmon,,,a\ntue,3,4,b\nwed,,5,b\nthu,5,6,b\nfri,,,b\n", "set/b.csv")
    with pytest.warns(UserWarning, match=r"b\.csv: steps without values at the beginning or the end"):
        read = read_sequences([folder / "set"], folder / "labels.csv", ["x", "y"], missing="interpolate")
    np.testing.assert_array_equal(read.values[0], [[3, 4], [4, 5], [5, 6]])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_all_encodings(folder, encoding):
    for name in ("labels.csv", "set/a.csv", "set/b.csv"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_bytes(text.encode(encoding))
    assert read_sequences([folder / "set"], folder / "labels.csv").columns == ["x", "y"]
    (folder / "x.ts").write_bytes((HEADER + "1,2:up\n").encode(encoding))
    assert read_ts(folder / "x.ts")[1] == ["up"]


def test_comments_of_ts_files_may_hold_any_bytes(tmp_path):
    path = tmp_path / "x.ts"
    path.write_bytes("# recorded 2003 \u2013 2004\n".encode("cp1252") + HEADER.encode() + b"1,2:up\n#\xff\n")
    assert read_ts(path)[1] == ["up"]


def test_the_table_of_labels_has_the_delimiter_of_the_files(folder):
    for name in ("labels.csv", "set/a.csv", "set/b.csv"):
        (folder / name).write_text((folder / name).read_text().replace(",", ";"))
    read = read_sequences([folder / "set"], folder / "labels.csv", delimiter=";")
    assert read.labels == ["up", "down"]
    with pytest.raises(
        ValueError, match=r"labels\.csv, line 1: expected columns file and label, got label;file"
    ):
        read_sequences([folder / "set"], folder / "labels.csv")


def test_labels_are_read_back_as_they_are_written(folder):
    labels = ["=1+1", "-1"]
    (folder / "labels.csv").write_text(written([["file", "label"], ["a.csv", "=1+1"], ["b.csv", "-1"]]))
    read = read_sequences([folder / "set"], folder / "labels.csv", ["x", "y"])
    assert read.labels == labels


@pytest.mark.parametrize("name", ["../out.csv", "{folder}/out.csv", "link.csv", "sub/../../out.csv", ".."])
def test_files_outside_of_the_folder_are_refused(folder, name):
    (folder / "out.csv").write_text("x,y\n1,2\n")
    (folder / "set" / "sub").mkdir()
    try:
        (folder / "set" / "link.csv").symlink_to(folder / "out.csv")
    except (OSError, NotImplementedError):
        pytest.skip("no links can be made here")
    (folder / "labels.csv").write_text(f"file,label\n{name.format(folder=folder)},up\n")
    with pytest.raises(
        ValueError, match=r"labels\.csv: expected a file inside of .*set, got .*, which is out"
    ):
        read_sequences([folder / "set"], folder / "labels.csv")
    with pytest.raises(ValueError, match=r"expected a file inside of .*set, got link\.csv, which is outside"):
        read_sequences([folder / "set"])
    (folder / "set" / "link.csv").unlink()
    (folder / "set" / "sub" / "in.csv").write_text("x,y\n1,2\n")
    (folder / "labels.csv").write_text("file,label\nsub/in.csv,up\n")
    assert read_sequences([folder / "set"], folder / "labels.csv").names == ["sub/in.csv"]
    (folder / "labels.csv").write_text("file,label\nsub/in.csv,up\n./sub/in.csv,down\n")
    with pytest.raises(ValueError, match=r"line 3: expected each file once, got \./sub/in\.csv again"):
        read_sequences([folder / "set"], folder / "labels.csv")


def test_folder_rejects_pipes_and_skips_hidden_files(folder, pipe):
    write(folder, "\0\5\x16\7", "set/._a.csv")
    assert read_sequences([folder / "set"], columns=["x", "y"], missing="interpolate").names[0] == "a.csv"
    pipe.rename(folder / "set" / "d.csv")
    with pytest.raises(OSError, match="not a regular file") as raised:
        read_sequences([folder / "set"], columns=["x", "y"])
    assert raised.value.filename.endswith("d.csv")


def test_a_column_that_counts_the_rows_is_read_with_a_warning(folder):
    (folder / "set" / "a.csv").write_text("t,x\n0,5\n1,7\n2,6\n")
    (folder / "set" / "b.csv").write_text("t,x\n0,5\n1,6\n")
    with pytest.warns(UserWarning, match="column t counts the rows of every file and is used as a channel"):
        read = read_sequences([folder / "set"], folder / "labels.csv")
    assert read.columns == ["t", "x"]
