"""Mutants of the NumPy reference, one defect each: the tests have to see every one.

    python proof/mutants.py > mutants.jsonl          # all of them, about an hour and a half of a CPU
    python proof/mutants.py --every 5 --file gru

A mutant is a module of `cylstm/reference` with one sign, operation, comparison, constant, function or
term exchanged or left out. It is imported in a forked process, which runs the tests of that module until
one fails. The engine was compiled from C that nobody changed, so it is an oracle, as are finite
differences and PyTorch. Lines of JSON: those that the tests which come first do not see, and counts;
status 1 if any is seen by none and not in EQUIVALENT.
"""

import ast
import importlib.machinery
import sys
from pathlib import Path

import mutation

import cylstm

CELLS = ["tests/reference/test_cells.py", "tests/test_recurrent.py", "tests/test_options.py"]
QUICK = "just_at or finite_differences or agrees_with_reference and not any and not set and not widths"
TESTS = {  # of each module: all its tests, and which of them see nearly everything, for they come first
    "lstm": (CELLS, f"lstm and ({QUICK})"),
    "gru": (CELLS, f"gru and ({QUICK})"),
    "rnn": (CELLS, f"rnn and ({QUICK})"),
    "layer": (CELLS, f"gru and ({QUICK}) or projection"),
    "losses": (
        ["tests/reference/test_losses.py", "tests/test_losses.py"],
        "reference or differences or right",
    ),
    "layers": (
        ["tests/reference/test_layers.py", "tests/test_layers.py"],
        "reference or differences or function or huge or threshold",
    ),
    "dense": (["tests/test_dense.py", "tests/test_sequential.py"], "reference or linear"),
    "optimizers": (["tests/test_optim.py"], "reference"),
}
BLANK = "place 2 is a blank, as place 0 is, so it is no skip either way"
EQUIVALENT = {  # by "module:line:column: what", or by the line, with the reason why no test can see it
    "losses:24:22: LtE -> Lt": "both branches are delta^2 / 2 at d = delta",
    "losses:104:12: GtE -> Gt": BLANK,
    "losses:104:17: 2 -> 3": BLANK,
    "optimizers:56:37: Gt -> GtE": "the factor is 1 where they are equal",
    "layers:86:53: 80 -> 81": "80 nodes are as exact as float64",
    "layers:101:37: GtE -> Gt": "both branches are 0 at 0",
    "layers:102:30: GtE -> Gt": "both branches are 0 at 0",
    "layers:103:36: GtE -> Gt": "both branches are 0 at 0",
}

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
    """(number, place, what, change) of each; change(node) makes it, in the node that it is called with."""
    for number, node in enumerate(ast.walk(tree)):
        for what, change in changes_of(node):
            yield number, f"{node.lineno}:{node.col_offset}", what, change


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


def put_in_place(module, code):
    """Imports of the module get this code from now on."""
    load, name = importlib.machinery.SourceFileLoader.get_code, f"cylstm.reference.{module}"
    importlib.machinery.SourceFileLoader.get_code = lambda self, asked: (
        code if asked == name else load(self, asked)
    )


def mutants(module, every, quick):
    source = Path("cylstm/reference", f"{module}.py").read_text()
    tests, first = TESTS[module]
    if not mutation.passes(lambda: None, "-k", first, *tests):
        sys.exit(f"{module}: its tests fail without a defect")
    for number, place, what, change in list(mutations(ast.parse(source)))[::every]:
        code, line = mutant(source, number, change), source.splitlines()[int(place.split(":")[0]) - 1]
        seen = mutation.seen_by(lambda code=code: put_in_place(module, code), tests, first, quick)
        yield f"{module}:{place}: {what}", line.strip(), seen


if __name__ == "__main__":
    assert "cylstm.reference" not in sys.modules, f"{cylstm.__name__} has loaded what is to be replaced"
    mutation.report(__doc__.splitlines()[0], TESTS, mutants, EQUIVALENT)
