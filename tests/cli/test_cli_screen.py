"""What the command prints: no control characters from files, an error in one line, the right usage."""

import argparse
import ast
import importlib.util
import io
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from cli_runs import command, train

import cylstm
import cylstm.cli
from cylstm import cli
from cylstm.classification import Classifier
from cylstm.cli import options
from cylstm.cli._common import REWORDED, in_options
from cylstm.cli._screen import printable, show_data
from cylstm.text import CharacterModel

ESCAPE = "\x1b[2Jx\x07\x9b31m\u202e"


class Terminal(io.StringIO):
    """A standard output that says it is one."""

    def isatty(self):
        return True


def test_printable_escapes_control_characters():
    assert printable("é 漢 \u200d\t") == "é 漢 \u200d\\t"
    assert printable("a\nb\tc\r", but="\n\t") == "a\nb\tc\\r"
    for character in [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u061c\u202a\u2069\u2028\ud83d"]:
        assert printable(character).isascii()
        assert printable(character).isprintable()
        assert ast.literal_eval(f"'{printable(character)}'") == character


def test_data_are_raw_in_files_and_printable_at_a_terminal(monkeypatch):
    for stream, expected in [(io.StringIO(), "a\x1b[2J\n"), (Terminal(), "a\\x1b[2J\n")]:
        monkeypatch.setattr(sys, "stdout", stream)
        show_data("a\x1b[2J\n")
        assert stream.getvalue() == expected


def test_only_one_module_of_the_command_prints():
    """print() and the streams would bypass it."""
    for path in Path(cylstm.cli.__file__).parent.glob("*.py"):
        if path.name != "_screen.py":
            assert not re.search(r"\bprint\(|sys\.std(out|err)\.write", path.read_text(encoding="utf-8")), (
                path
            )


def is_harmless(text):
    return printable(text, but="\n") == text


@pytest.fixture
def hostile(tmp_path):
    """A table, a folder of sequences and their models, whose names hold control characters."""
    t = np.arange(120)
    rows = "".join(f"{np.sin(i / 4)},{np.cos(i / 4)}\n" for i in t)
    (tmp_path / "data.csv").write_text(f'"{ESCAPE}",b\n{rows}', encoding="utf-8")
    assert train(tmp_path / "data.csv", "--columns", f"{ESCAPE},b", "--output", str(tmp_path / "f")) == 0
    x = [np.random.default_rng(i).standard_normal((4, 1)) + i % 2 for i in range(8)]
    classifier = Classifier(hidden_size=4)
    classifier.fit((x, [f"{ESCAPE}{i % 2}" for i in range(8)]), epochs=1, progress=False)
    classifier.save(tmp_path / "c")
    (tmp_path / "x.ts").write_text("@classLabel false\n@data\n1,2\n3,4\n")
    labelled = f"@classLabel true {ESCAPE}0 {ESCAPE}1\n@data\n1,2:{ESCAPE}0\n3,4:{ESCAPE}1\n"
    (tmp_path / "y.ts").write_text(labelled, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["predict", "data.csv", "--model", "f"], 0),
        (["evaluate", "f", "data.csv"], 0),
        (["train", "data.csv", "--output", "m"], 1),
        (["train", "data.csv", "--columns", ESCAPE, "--output", ESCAPE, "--epochs", "1"], 0),
        (["predict", "x.ts", "--model", "c"], 0),
        (["evaluate", "c", "y.ts"], 0),
        (["predict", ESCAPE, "--model", "c"], 1),
        (["predict", "data.csv", "--model", ESCAPE], 1),
    ],
)
def test_names_are_escaped_on_the_terminal(hostile, monkeypatch, capsys, arguments, status):
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli.main(arguments) == status
    shown, error = sys.stdout.getvalue(), capsys.readouterr().err
    assert "\\x1b[2Jx\\x07\\x9b31m\\u202e" in shown + error
    assert is_harmless(shown)
    assert is_harmless(error)
    assert error.count("\n") == (status == 1)


def test_generated_text_reaches_no_terminal_raw(tmp_path, monkeypatch):
    model = CharacterModel(hidden_size=8)
    model.fit("\x1b[2J\n\t" * 60, epochs=1, batch_size=2, length=10, progress=False)
    model.save(tmp_path / "t")
    sample = ["sample", str(tmp_path / "t"), "--prompt", "\x1b[2J\n", "--characters", "40", "--seed", "1"]
    shown = {}
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(sample) == 0
        shown[stream.isatty()] = stream.getvalue()
    assert shown[False].startswith("\x1b[2J\n")
    assert shown[True] == printable(shown[False], but="\n\t")


def test_predicted_classes_are_no_formulas_and_are_read_back(tmp_path, capsys):
    labels = ["=1+1", "-1"]
    x = [np.full((4, 1), 5.0 * (i % 2)) for i in range(12)]
    classifier = Classifier(hidden_size=8)
    classifier.fit((x, [labels[i % 2] for i in range(12)]), epochs=20, lr=0.03, progress=False)
    classifier.save(tmp_path / "c")
    (tmp_path / "x.ts").write_text("@classLabel false\n@data\n0,0,0,0\n5,5,5,5\n")
    assert cli.main(["predict", str(tmp_path / "x.ts"), "--model", str(tmp_path / "c")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["'=1+1", "-1"]
    (tmp_path / "set").mkdir()
    for name, value in [("1", 0), ("2", 5)]:
        (tmp_path / "set" / name).write_text(f"a\n{value}\n{value}\n")
    renamed = "\n".join(["file,label", *(",".join(line.split(",")[:2]) for line in lines[1:])])
    (tmp_path / "labels.csv").write_text(renamed)
    evaluate = [
        "evaluate",
        str(tmp_path / "c"),
        str(tmp_path / "set"),
        "--labels",
        str(tmp_path / "labels.csv"),
    ]
    assert cli.main([*evaluate, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epohcs", "3"], "cylstm train: error: unknown option --epohcs; did you mean --epochs?"),
        (
            ["train", "a.csv", "--epohcs=3", "--output", "m"],
            "unknown option --epohcs; did you mean --epochs?",
        ),
        (["predict", "a", "--model", "m", "--bogus"], "cylstm predict: error: unknown option --bogus\n"),
        (["convert", "a", "b", "c"], "cylstm convert: error: unrecognized arguments: c"),
        (["train", "--\x1b[2J"], "unknown option --\\x1b[2J"),
        (["train", "a", "--output", "m", "--missing", "\x1b"], "invalid choice: '\\x1b'"),
    ],
)
def test_an_unknown_option_shows_the_usage_of_its_command(capsys, arguments, message):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert raised.value.code == 2
    assert error.startswith(f"usage: cylstm {arguments[0]} ")
    assert message in error
    assert is_harmless(error)


def test_abbreviated_options_and_double_dash(capsys):
    parsed = cli.parser().parse_args(["train", "--epoc", "3", "--output=m", "--", "--table.csv"])
    assert isinstance(parsed, argparse.Namespace)
    assert (parsed.epochs, parsed.csv) == (3, "--table.csv")


def test_warnings_of_the_library_are_lines_of_the_command(tmp_path, capsys):
    before = warnings.showwarning
    (tmp_path / "data.csv").write_text(",a\n" + "".join(f"{i},{i % 7}\n" for i in range(99)))
    assert train(tmp_path / "data.csv", "--output", str(tmp_path / "m")) == 0
    expected = "data.csv: column 1 has no name and is left out\n"
    assert capsys.readouterr().err == f"cylstm: warning: {tmp_path}{os.sep}{expected}"
    assert warnings.showwarning is before


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        process = command("info", stdout=full)
        assert process.communicate(timeout=60)[1] == "cylstm: standard output: No space left on device\n"
    assert process.returncode == 1


@pytest.mark.slow
@pytest.mark.process
def test_a_reader_of_the_help_that_goes_away_is_no_error():
    process = command("train", "--help", env=dict(os.environ, PYTHONUNBUFFERED=""))
    process.stdout.close()
    with process.stderr as error:
        assert error.read() == ""
    assert process.wait(timeout=60) == 1


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="this system has no /dev/fd")
def test_a_table_is_read_from_a_pipe_and_a_device_is_refused(table, tmp_path):
    options = ["--columns", "a", "--horizon", "3", "--epochs", "1", "--hidden", "4", "--output", "m"]
    run = subprocess.run(
        [sys.executable, "-m", "cylstm", "train", "/dev/stdin", *options],
        input=table.read_text(), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for arguments in (["/dev/zero"], ["--text", "/dev/zero"], ["--classify", "/dev/zero", "--labels", "x"]):
        (tmp_path / "x").write_text("file,label\nzero,a\n")
        run = command("train", *arguments, "--output", "m", cwd=tmp_path)
        assert run.communicate(timeout=60)[1] == "cylstm: /dev/zero: not a regular file\n"


def write_model_files(folder):
    """Files that are given as models by mistake."""
    (folder / "data.csv").write_text("a\n1\n2\n")
    (folder / "w.pkl").write_bytes(pickle.dumps({"w": np.zeros(3)}))
    np.save(folder / "w.npy", np.zeros(3))
    np.savez(folder / "w.npz", w=np.zeros(3))
    (folder / "m.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    cylstm.convert.to_safetensors(cylstm.Sequential(cylstm.LSTM(3, 4)), folder / "w.safetensors")
    cylstm.save(cylstm.LSTM(3, 4), folder / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data.csv", "it is a text file\n"),
        (
            "w.pkl",
            "it is a pickle of NumPy arrays, which could run arbitrary code; save weights, under",
        ),
        ("w.npy", "it is a NumPy array file (.npy), not a model\n"),
        (
            "w.npz",
            "with safetensors.numpy.save_file(weights, path), then `cylstm convert` makes a model of them",
        ),
        (
            "m.onnx",
            "it is an ONNX model; `cylstm convert m.onnx MODEL.safetensors` converts it for `cylstm",
        ),
        (
            "w.safetensors",
            "it is a safetensors file of another library; `cylstm convert w.safetensors MODEL.",
        ),
    ],
)
def test_a_file_of_another_kind_given_as_a_model_is_named(tmp_path, monkeypatch, capsys, name, message):
    write_model_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [["predict", "data.csv", "--model", name], ["evaluate", name, "data.csv"], ["sample", name]]
    for module in ("starlette", "uvicorn", "prometheus_client", "websockets"):
        if importlib.util.find_spec(module) is None:
            break
    else:
        commands.append(["serve", name, "--port", "0"])
    for arguments in commands:
        assert cli.main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"cylstm: {name}: not a readable cylstm model: it is ")
        assert message in error
        assert "PyTorch file" not in error
        assert error.count("\n") == 1


def test_a_model_and_data_that_are_swapped_are_told(tmp_path, monkeypatch, capsys):
    write_model_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["predict", "m.safetensors", "--model", "data.csv"],
        ["evaluate", "data.csv", "m.safetensors"],
    ):
        assert cli.main(arguments) == 1
        swapped = "it is a text file; m.safetensors is one: are the model and the data swapped?\n"
        assert capsys.readouterr().err == f"cylstm: data.csv: not a readable cylstm model: {swapped}"
    assert cli.main(["predict", "m.safetensors", "--model", "m.safetensors"]) == 1
    expected = "m.safetensors: expected a model of `cylstm train`, got another cylstm model\n"
    assert capsys.readouterr().err == f"cylstm: {expected}"


def test_a_model_given_as_data_is_named(table, tmp_path, capsys):
    model = str(tmp_path / "m.safetensors")
    assert train(table, "--columns", "a", "--output", model) == 0
    capsys.readouterr()
    assert cli.main(["predict", model, "--model", model]) == 1
    assert capsys.readouterr().err == f"cylstm: {model}: expected a text file, got a safetensors file\n"


def test_errors_of_the_library_name_no_option_of_the_command():
    """The command words them itself, by their arguments."""
    package = Path(cylstm.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        raised = [
            n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Raise)
        ]
        for constant in (c for node in raised for c in ast.walk(node) if isinstance(c, ast.Constant)):
            assert not re.search(r"(?<![\w-])--[a-z]|`cylstm ", str(constant.value)), (path, constant.value)


def test_a_checkpoint_of_other_epochs_names_the_options(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("the cat sat on the mat. " * 600)
    train_text = [
        "train",
        "--text",
        str(tmp_path / "t.txt"),
        "--hidden",
        "4",
        "--batch",
        "2",
        "--length",
        "20",
    ]
    train_text += [
        "--output",
        str(tmp_path / "m"),
        "--checkpoint",
        str(tmp_path / "c"),
        "--resume",
        "--epochs",
    ]
    assert cli.main([*train_text, "1"]) == 0
    capsys.readouterr()
    assert cli.main([*train_text, "3"]) == 1
    error = capsys.readouterr().err
    assert "the checkpoint was made with --epochs 1, got 3; " in error
    assert error.endswith("would jump: pass --epochs 1, or start another training run, without --resume\n")


def library_messages():
    """All text of the library outside the command, with 0 in place of values."""
    folder = Path(cylstm.__file__).parent
    for path in folder.rglob("*.py"):
        if "cli" not in path.relative_to(folder).parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        part.value if isinstance(part, ast.Constant) else "0" for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_reworded_message_exists():
    messages = list(library_messages())
    unused = [pattern for pattern, _ in REWORDED if not any(re.search(pattern, text) for text in messages)]
    assert not unused


@pytest.mark.slow
def test_library_messages_name_no_options():
    """The flags of other programs (pip, gunicorn) are in these messages, those of `cylstm` are not."""
    flags = {option.flag for option in (*options.TRAIN, *options.PREDICT, *options.EVALUATE)}
    flags |= {
        "--threads",
        "--json",
        "--order",
        "--config",
        "--nonlinearity",
        "--output",
        "--classify",
        "--model",
    }
    pattern = re.compile(rf"(?<![\w-])({'|'.join(flags)})(?![\w-])")
    assert not [text for text in library_messages() if pattern.search(text)]


@pytest.mark.parametrize(
    ("message", "reworded"),
    [
        ("layers in their own order, a, b (order=)", "layers in their own order, a, b (--order)"),
        (
            "RNN with tanh: a (nonlinearity='tanh' or 'relu')",
            "RNN with tanh: a (--nonlinearity tanh or relu)",
        ),
        ("order: expected each of ['a'] once", "--order: expected each of ['a'] once"),
        ("lower the learning rate (lr=0.003)", "lower the learning rate (--rate 0.003)"),
        ("few updates; Trainer(truncate=100) makes one", "few updates; --length 100 makes one"),
    ],
)
def test_messages_name_options(message, reworded):
    assert in_options(message) == reworded
