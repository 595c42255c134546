"""Which modules of the package import which, read from their sources: no circles, and one direction."""

import ast
import re
from pathlib import Path

import pytest

import cylstm

PACKAGE = Path(cylstm.__file__).parent

# A folder, or a module on the top level, imports only from those before it. `cylstm/__init__.py` is not among
# them: it imports the public names from everywhere, and no module imports it.
ORDER = [
    # Without dependencies
    "_version", "_checks", "_reprs", "reference", "datasets",
    # The compiled engine before what chooses its threads and reports its versions
    "_engine", "_system", "_formats",
    # Data before layers: a model has scalers
    "sequences", "data", "series", "sequence_files",
    "layers", "recurrent", "losses", "optim", "init", "files", "diagnostics", "plotting",
    # What is done with a model
    "training", "inference", "convert",
    # Tasks
    "forecasting", "classification", "text",
    # Interfaces without numerics
    "sklearn", "serve", "cli", "__main__",
]  # fmt: skip


def sources():
    """The Python and Cython files of the package by module name."""
    found = {}
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]:
        parts = ("cylstm", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path):
    """Full names of what a file imports, anywhere in it; those for type checkers are included."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pyx":
        for module, names in re.findall(r"^\s*from ([\w.]+) c?import ([\w, ]+|\()", text, re.MULTILINE):
            yield from (f"{module}.{name}" for name in names.replace(" ", "").split(","))
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def import_graph():
    """For each module of the package, the modules that it imports."""
    modules = sources()
    graph = {name: set() for name in modules}
    for name, path in modules.items():
        for imported in imported_names(path):
            target = imported if imported in modules else imported.rpartition(".")[0]
            if target in modules and target != name:
                graph[name].add(target)
    return graph


def reachable(graph, start):
    found, waiting = set(), [start]
    while waiting:
        for name in graph[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


def folder_of(module):
    """The first part below the package; the package for `cylstm/__init__.py`."""
    return module.split(".")[min(1, module.count("."))]


def test_the_import_graph_is_complete():
    graph = import_graph()
    assert len(graph) > 150
    assert "cylstm.plotting" in graph["cylstm.training.history"]  # inside a function
    assert "cylstm.data.scalers" in graph["cylstm.layers.base"]  # for type checkers
    assert "cylstm._engine._kernels" in graph["cylstm._engine._optim"]  # of a Cython module


def test_no_import_circle():
    graph = import_graph()
    after = {name: reachable(graph, name) for name in graph}
    circles = {frozenset(m for m in after[name] if name in after[m]) for name in graph if name in after[name]}
    assert not circles


@pytest.mark.slow
def test_folders_import_only_earlier_folders():
    graph = import_graph()
    folders = {folder_of(name) for name in graph} - {"cylstm"}
    assert folders == set(ORDER)
    wrong = [
        f"{name} imports {target}"
        for name in graph
        for target in graph[name]
        if name != "cylstm" and folder_of(name) != folder_of(target)
        and (target == "cylstm" or ORDER.index(folder_of(target)) > ORDER.index(folder_of(name)))
    ]  # fmt: skip
    assert not wrong
