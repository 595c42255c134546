"""Mutants of the C kernels, one defect each: the tests have to see every one.

    python proof/c_mutants.py --every 25 > c-mutants.jsonl
    python proof/c_mutants.py --file lstm

A mutant is one of the bodies in `include/cylstm` with one operator, comparison, constant, term or factor
changed or left out, and is named by the line that this makes. The extension module that computes with it is
compiled, for the compiler's baseline of instruction sets only and without optimisation, and imported in
place of the real one by a forked process, which runs the tests of that body until one fails; if none does,
a program of `tests/c` runs it under sanitizers. The reference was not changed, so it is the oracle. Needs
gcc, is faster with clang, and needs the C files that `python setup.py build_ext --inplace` leaves. Lines of
JSON like those of `mutants.py`; what does not compile is counted as "seen by compiler", and what compiles
to the same code (lines for AVX2 and AVX-512 alone) is left out. In `c_equivalent.txt` are mutants, or lines
for all mutants of them, below the reason why no test can see them: they get quick tests.
"""

import functools
import importlib.abc
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import mutation

INCLUDE, ENGINE = mutation.ROOT / "include", mutation.ROOT / "cylstm" / "_engine"
COMPILER = shutil.which("clang") or "gcc"  # clang takes half the time
COMPILE = [COMPILER, "-O0", "-w", "-fPIC", "-shared", "-DCYL_BASELINE_ONLY"]
COMPILE += ["-fno-math-errno", "-fno-trapping-math"]  # as setup.py does
SPANS = "tests/test_spans.py"
WHOLE = ["tests/test_guards.py", "tests/test_recurrent.py", "tests/test_options.py"]
PASS = [SPANS, "tests/test_bits.py", "tests/test_stream.py", *WHOLE]
PLAIN = "agrees_with_reference and not any and not both and not reverse"
ONE = "test_recurrent and lstm and not norm and not peephole and not coupled"
FEW = "float32 and (lstm or gru) and not norm and not peephole and not coupled"
THREADS = f"(any_number or many_rows) and {FEW} or wider_than_a_panel and float32"
SEVERAL = f"{THREADS} or same_bits or pads or test_options and (all or gru_reset) and {PLAIN}"
PRODUCTS = f"test_dense or {ONE} and {PLAIN} or {THREADS}"
DENSE = ["tests/test_dense.py", "tests/test_sequential.py", "tests/test_layers.py", "tests/test_bits.py"]
LOSSES = ["tests/engine/test_losses.py", "tests/test_losses.py"]
TESTS = {  # of each body: the modules that are compiled with it, all tests, which of them come first
    "activations": (["_kernels"], ["tests/engine/test_activations.py"], "special or ulp"),
    "activations_array": (["_kernels"], ["tests/engine/test_activations.py"], "special or ulp"),
    "gates": (["_packed"], WHOLE, f"test_options and clip and {PLAIN}"),
    "lstm": (
        ["_packed"],
        [SPANS, *WHOLE],
        f"same_bits or lstm and not norm and (test_recurrent or clip) and {PLAIN}",
    ),
    "gru": (["_packed"], WHOLE, f"gru and (test_recurrent or clip) and {PLAIN}"),
    "rnn": (["_packed"], WHOLE, f"rnn and (test_recurrent or clip) and {PLAIN}"),
    "lstm_norm": (["_packed"], WHOLE, f"lstm_norm and (test_recurrent or clip) and {PLAIN}"),
    "product": (["_packed", "_packed_dense"], [*DENSE, *PASS], PRODUCTS),
    "gradient": (["_packed", "_packed_dense"], [*DENSE, *PASS], PRODUCTS),
    "pack": (["_packed"], PASS, f"{ONE} and {PLAIN}"),
    "pass_forward": (["_packed"], PASS, SEVERAL),
    "pass_backward": (["_packed"], PASS, SEVERAL),
    "dense": (["_packed_dense"], DENSE, "test_dense"),
    "elementwise": (["_losses"], LOSSES, "engine and not refuse"),
    "elementwise_array": (["_losses"], LOSSES, "engine and not refuse"),
    "softmax": (["_losses"], LOSSES, "engine and not refuse"),
    "optimizers": (["_optim"], ["tests/test_optim.py"], "reference"),
}
SANITIZE = ["gcc", "-std=gnu99", "-w", "-DCYL_BASELINE_ONLY", "-DREAL=float", "-DTYPE=f32", "-g1"]
SANITIZE += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]  # as tests/test_c_headers.py does
IN_PASS = {"product", "gradient", "pack", "pass_forward", "pass_backward", "dense"}

OPERAND = r"(?:\w+->)?\w[\w.]*(?:\[[^][]*\])?"
OTHER = {
    "+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=",
    "!=": "==", "&&": "||", "||": "&&", "+=": "=", "-=": "+=", "*=": "=", "/=": "*=",
}  # fmt: skip
CHANGES = [  # what is looked for, and what stands there in a mutant
    *[(f" {re.escape(old)} ", f" {new} ") for old, new in OTHER.items()],
    (r" < (?=[^;]* \? )", " > "), (r" > (?=[^;]* \? )", " < "),  # the larger of two, the smaller
    (r"(?<![\w.])0(?![\w.])", "1"), (r"(?<![\w.])1(?![\w.])", "0"),
    (r"(?<=[( ])-(?=[\w(])", ""), (r"!(?=[\w(])", ""),
    (rf" [+*-] {OPERAND}(?![\w(\[.]|->)", ""),  # without the right side
    (rf"(?<![\w.\])>]){OPERAND} [+*] (?=[\w(])", ""),  # and without the left one
]  # fmt: skip
CONTINUED = " \\"  # the end of a line within a macro
POINTER = re.compile(r"CYL_(TYPED|KERNEL)\(\w+\) \* ?\w+[,)]")  # a parameter that looks like a product
BEGINS = re.compile(r"\s*#define \w+(\([^)]*\))?(?=\s)")


def equivalent():
    """Reasons by mutant, or by the line that they were made from."""
    why, reasons = "", {}
    for line in Path(__file__).with_name("c_equivalent.txt").read_text().splitlines():
        if line.startswith("    "):
            reasons[line.strip()] = why
        else:
            why = line
    return reasons


def named(body, line):
    return f"{body}: {line.strip().rstrip(CONTINUED)}"


def mutations(text):
    """(number, line, changed line) in order, without comments and directives."""
    code = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)
    for number, line in enumerate(code.splitlines()):
        begin = BEGINS.match(line)
        if (line.lstrip().startswith("#") and not begin) or POINTER.search(line):
            continue
        start, made = begin.end() if begin else 0, set()
        for old, new in CHANGES:
            for found in re.finditer(old, line[start:]):
                a, b = found.start() + start, found.end() + start
                made.add((a, line[:a] + new + line[b:]))
        yield from ((number, line, changed) for _, changed in sorted(made))


class Replaced(importlib.abc.MetaPathFinder):
    """Extension modules from elsewhere than the package."""

    def __init__(self, files):
        self.files = files

    def find_spec(self, name, path, target=None):
        file = self.files.get(name)
        return file and importlib.util.spec_from_file_location(name, file)


def replace(files):
    sys.meta_path.insert(0, Replaced(files))


def compiled(modules, include, folder):
    """Extension modules built against these headers, by name; None if they do not compile."""
    paths, made = [f"-I{path}" for path in (include, ENGINE, sysconfig.get_path("include"))], {}
    for module in modules:
        made[f"cylstm._engine.{module}"] = out = Path(folder, f"{module}.so")
        command = [*COMPILE, *paths, ENGINE / f"{module}.c", "-o", out, "-lm"]
        if subprocess.run(command, capture_output=True).returncode:
            return None
    return made


def sanitized(body, include, folder):
    """Whether the program of `tests/c` that runs a body finds nothing wrong, and sanitizers neither."""
    if body == "optimizers":
        return True  # none runs it
    source = mutation.ROOT / "tests" / "c" / ("pass.c" if body in IN_PASS else "kernels.c")
    built = Path(folder, "program")
    paths = [f"-I{include}", f"-I{ENGINE}", source, "-o", built]
    subprocess.run([*SANITIZE, *paths, "-lm", "-lpthread"], check=True)
    try:
        return subprocess.run([built], capture_output=True, timeout=mutation.FIRST).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class Bench:
    """A folder with changed headers, the good modules, and one from changed headers."""

    def __init__(self, folder, reasons):
        self.reasons = reasons
        self.include, self.made = Path(folder, "include"), Path(folder, "made")
        shutil.copytree(INCLUDE, self.include)
        self.made.mkdir()
        self.passed = []
        sources = [path.stem for path in ENGINE.glob("_*.c") if '#include "cylstm/' in path.read_text()]
        assert sources, "no C files: python setup.py build_ext --inplace"
        self.good = compiled(sources, self.include, folder)
        assert self.good, "the kernels do not compile"

    def mutants(self, body, every, quick):
        modules, tests, first = TESTS[body]
        if (first, tests) not in self.passed and not mutation.passes(
            functools.partial(replace, self.good), "-k", first, *tests
        ):
            sys.exit(f"{body}: its tests fail without a defect")
        self.passed.append((first, tests))
        header = self.include / "cylstm" / f"{body}_body.h"
        good = header.read_text()
        lines = good.splitlines(keepends=True)
        for number, line, changed in list(mutations(good))[::every]:
            mutant, original = named(body, changed), named(body, line)
            header.write_text("".join([*lines[:number], changed + "\n", *lines[number + 1 :]]))
            made = compiled(modules, self.include, self.made)
            if made is None:
                yield mutant, original, "compiler"
            elif any(file.read_bytes() != self.good[name].read_bytes() for name, file in made.items()):
                known = mutant in self.reasons or original in self.reasons
                yield mutant, original, self.seen_by(body, {**self.good, **made}, quick or known)
            header.write_text(good)

    def seen_by(self, body, files, quick):
        """Which tests see what the headers are now: quick ones, all, sanitizers, or none."""
        seen = mutation.seen_by(functools.partial(replace, files), *TESTS[body][1:], quick)
        if seen or quick or sanitized(body, self.include, self.made):
            return seen
        return "sanitizers"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        reasons = equivalent()
        mutation.report(__doc__.splitlines()[0], TESTS, Bench(folder, reasons).mutants, reasons)
