"""Mutants of the NumPy reference, one defect each: the tests have to see every one.

    python proof/mutants.py > mutants.jsonl          # all of them, about ten minutes on a quiet CPU
    python proof/mutants.py --every 5 --file gru

A mutant is a module of `cylstm/reference` with one sign, operation, comparison, constant, function or
term exchanged or left out. It is imported in a forked process, which runs the tests of that module until
one fails. The engine was compiled from C that nobody changed, so it is an oracle, as are finite
differences and PyTorch. Lines of JSON: one a mutant, then the counts; status 1 if there
are any that are not in EQUIVALENT.
"""

import argparse
import ast
import collections
import importlib.machinery
import io
import json
import os
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from cylstm import versions

ROOT = Path(__file__).resolve().parent.parent
CELLS = ["tests/reference/test_cells.py", "tests/test_recurrent.py"]
QUICK = "finite_differences or agrees_with_reference and not any and not set and not widths"
TESTS = {  # of each module: all its tests, and which of them see nearly everything, for they come first
    "lstm": (CELLS, f"lstm and ({QUICK})"),
    "gru": (CELLS, f"gru and ({QUICK})"),
    "rnn": (CELLS, f"rnn and ({QUICK})"),
    "layer": ([*CELLS, "tests/test_options.py"], f"gru and ({QUICK}) or projection"),
    "losses": (["tests/reference/test_losses.py", "tests/test_losses.py"], "reference or differences"),
    "layers": (
        ["tests/reference/test_layers.py", "tests/test_layers.py"],
        "reference or differences or function",
    ),
    "dense": (["tests/test_dense.py"], "reference"),
    "optimizers": (["tests/test_optim.py"], "reference"),
}
EQUIVALENT = {}  # by "module:line: what", with the reason why no test can see it
SECONDS = 300  # of CPU time for the tests of one

OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.MatMult: None, ast.FloorDiv: ast.Div,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
FUNCTIONS = {
    "tanh": "arctan", "sigmoid": "tanh", "exp": "expm1", "log": "log1p", "sqrt": "abs", "maximum": "minimum",
    "minimum": "maximum", "sum": "mean", "mean": "sum", "argmax": "argmin", "max": "min", "min": "max",
    "zeros_like": "ones_like", "zeros": "ones", "ones": "zeros",
}  # fmt: skip


def mutations(tree):
    """(line, what, change) of each; change(node) makes it, in the node that it is called with."""
    for number, node in enumerate(ast.walk(tree)):
        for what, change in changes_of(node):
            yield number, node.lineno, what, change


def changes_of(node):
    if isinstance(node, ast.BinOp):
        name, other = type(node.op).__name__, OTHER.get(type(node.op))
        if other and not isinstance(node.left, (ast.List, ast.Constant)):
            yield f"{name} -> {other.__name__}", lambda n: setattr(n, "op", other())
        if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
            yield f"{name}: right left out", lambda n: become(n, n.left)
            yield f"{name}: left left out", lambda n: become(n, n.right)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        other = OTHER[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {other.__name__}", lambda n: setattr(n, "ops", [other()])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "minus left out", lambda n: become(n, n.operand)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} -> {node.value + 1}", lambda n: setattr(n, "value", n.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr in FUNCTIONS:
        yield f"{node.attr} -> {FUNCTIONS[node.attr]}", lambda n: setattr(n, "attr", FUNCTIONS[n.attr])
    elif isinstance(node, ast.AugAssign) and type(node.op) in OTHER:
        other = OTHER[type(node.op)]
        yield f"{type(node.op).__name__}= -> {other.__name__}=", lambda n: setattr(n, "op", other())


def become(node, other):
    """The node is now the other expression."""
    node.__class__, node.__dict__ = other.__class__, other.__dict__


def mutant(source, number, change):
    tree = ast.parse(source)
    change(list(ast.walk(tree))[number])
    return compile(ast.fix_missing_locations(tree), "mutant", "exec")


def passes(module, code, *options):
    """Whether tests of the module pass with this code in its place."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        load = importlib.machinery.SourceFileLoader.get_code
        name = f"cylstm.reference.{module}"
        importlib.machinery.SourceFileLoader.get_code = lambda self, asked: (
            code if asked == name else load(self, asked)
        )
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *options, *TESTS[module][0]])
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def seen_by(module, code, quick):
    """Which tests see it: the quick ones, all, or none."""
    if not passes(module, code, "-k", TESTS[module][1]):
        return "quick"
    return None if quick or passes(module, code) else "all"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", action="append", choices=TESTS, help="of these modules only")
    parser.add_argument("--every", type=int, default=1, help="only every so many")
    parser.add_argument("--quick", action="store_true", help="the quick tests only: not all see every defect")
    options = parser.parse_args()
    os.chdir(ROOT)
    assert "cylstm.reference" not in sys.modules
    print(json.dumps(versions.describe()), flush=True)
    counts, unknown = collections.Counter(), 0
    for module in options.file or TESTS:
        source = Path("cylstm/reference", f"{module}.py").read_text()
        if not passes(module, compile(source, "good", "exec"), "-k", TESTS[module][1]):
            sys.exit(f"{module}: its tests fail without a defect")
        for number, line, what, change in list(mutations(ast.parse(source)))[:: options.every]:
            key, text = f"{module}:{line}: {what}", source.splitlines()[line - 1].strip()
            seen = seen_by(module, mutant(source, number, change), options.quick)
            counts[f"seen by {seen}"] += 1
            unknown += seen is None and key not in EQUIVALENT
            record = {"mutant": key, "line": text, "seen": seen, "why": EQUIVALENT.get(key)}
            print(json.dumps(record), flush=True)
    print(json.dumps({"mutants": sum(counts.values()), **counts, "unknown survivors": unknown}), flush=True)
    sys.exit(bool(unknown))


if __name__ == "__main__":
    main()
