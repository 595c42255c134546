"""What everything is checked against must not share code with what it checks."""

import ast
from pathlib import Path

from cylstm import reference


def test_reference_is_independent_of_package():
    for path in Path(reference.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module.startswith(
                    ("cylstm.reference", "numpy", "typing", "functools", "collections")
                ), path
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"numpy"}, path
