"""What README.md, ARCHITECTURE.md and the pages of docs/ say is true."""

import ast
import doctest
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import cylstm
from cylstm._engine import isa

ROOT = Path(__file__).parents[2]
README, ARCHITECTURE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "ARCHITECTURE.md")
)

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts)
in_the_source_tree = pytest.mark.skipif(
    not (ROOT / "cylstm").exists(), reason="needs the source tree, which the documents describe"
)


def examples_of(page):
    """The page without all that is not in a block of Python, line by line."""
    lines, inside = [], False
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        inside = line == "```python" if fence else inside
        lines.append(line if inside and not fence else "")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.skipif(isa.path() != "packed", reason="the pages show bits that only the packed path promises")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    text = examples_of(page)
    test = doctest.DocTestParser().get_doctest(text, {}, page, str(DOCS / page), 0)
    for module in imported(test.examples):
        pytest.importorskip(module, reason=f"{module} is not installed; the page shows how to work with it")
    blocks = re.findall(r"^```python\n(.*)", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert all(first.startswith(">>> ") for first in blocks), "a block of Python that is no example"
    monkeypatch.chdir(tmp_path)
    with np.printoptions():
        failed, _ = doctest.DocTestRunner(verbose=False).run(test)
    assert not failed, capsys.readouterr().out


def imported(examples):
    """The modules that examples import, by the first part of their names."""
    for node in (node for example in examples for node in ast.walk(ast.parse(example.source))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@in_the_source_tree
def test_pages_show_all_generated_pictures():
    text = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    made = re.findall(r'^    "([\w-]+)": ', (DOCS / "pictures.py").read_text(encoding="utf-8"), re.MULTILINE)
    pictures = {path.stem: path for path in (DOCS / "pictures").iterdir()}
    assert set(made) == set(pictures) == set(re.findall(r"pictures/([\w-]+)\.png", text))
    assert all(path.stat().st_size < 150_000 for path in pictures.values())


@pytest.mark.slow
@in_the_source_tree
def test_pictures_are_drawn_from_the_tutorial_and_from_results(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the pictures")
    names = ["worked-example", "memory", "curves"]
    monkeypatch.setattr(sys, "argv", ["pictures.py", *names, "--folder", str(tmp_path)])
    runpy.run_path(str(DOCS / "pictures.py"), run_name="__main__")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in names)


@in_the_source_tree
def test_the_reference_has_every_public_name():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "api").glob("*.md"))
    documented = {name.split(".")[-1] for name in re.findall(r"auto\w+:: ([\w.]+)", text)}
    documented |= set(cylstm.convert.__all__)  # by its module
    assert {*cylstm.__all__, *cylstm.training.__all__} <= documented | {"__version__"}


def test_readme_fits_its_screens():
    lines = README.splitlines()
    assert len(lines) <= 130
    assert lines.index("<!-- summary: end -->") < 45


@pytest.mark.slow
def test_readme_example_runs_and_learns(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 14
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert "mean squared error" in capsys.readouterr().out
    assert np.mean((names["y"] - names["validation"].y[:, 0]) ** 2) < 0.005
    assert cylstm.load("waves.safetensors")


@in_the_source_tree
def test_architecture_names_every_folder_and_top_level_module():
    tree = ARCHITECTURE.split("```")[1]
    assert len(tree.strip().splitlines()) <= 25
    packages = {path.parent.name for path in (ROOT / "cylstm").glob("*/__init__.py")}
    folders = {path.name for path in (ROOT / "include").iterdir()} | {
        "benchmarks",
        "docs",
        "examples",
        "tests",
        "verification",
    }
    modules = {path.name for path in (ROOT / "cylstm").glob("[a-z]*.py")}
    missing = {name for name in packages | folders | modules if name not in tree}
    assert missing <= {"cylstm"}


@in_the_source_tree
def test_files_that_the_architecture_names_exist():
    for name in re.findall(r"`([\w/.]+/[\w.]+\.\w+)`", ARCHITECTURE):
        places = [ROOT / name, ROOT / "cylstm" / name]
        assert any(place.exists() for place in places) or "<" in name, name
