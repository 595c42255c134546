"""Mutants of the C kernels, one defect each: the tests have to see every one.

    python proof/c_mutants.py --every 25 > c-mutants.jsonl
    python proof/c_mutants.py --file lstm

A mutant is one of the bodies in `include/cylstm` with one operator, comparison, constant, term or factor
changed or left out, and is named by the line that this makes. The extension module that computes with it is
compiled, for the compiler's baseline of instruction sets only and without optimisation, and imported in place
of the real one by a forked process, which runs the tests of that body until one fails. The reference was not
changed, so it is the oracle. Needs clang or gcc, and the C files that `python setup.py build_ext --inplace`
leaves. Lines of JSON like those of `mutants.py`; what does not compile is counted as "seen by compiler", and
what compiles to the same code (lines for AVX2 and AVX-512 alone) is left out.
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
WHOLE = ["tests/test_recurrent.py", "tests/test_options.py"]
SPANS = "tests/test_spans.py"
PASS = [*WHOLE, SPANS, "tests/test_bits.py", "tests/test_stream.py", "tests/test_guards.py"]
PLAIN = "agrees_with_reference and not any and not both and not reverse"
ONE = "test_recurrent and lstm and not norm and not peephole and not coupled"
SEVERAL = f"same_bits or pads or test_options and (all or gru_reset) and {PLAIN}"
DENSE = ["tests/test_dense.py", "tests/test_sequential.py", "tests/test_layers.py", "tests/test_bits.py"]
LOSSES = ["tests/engine/test_losses.py", "tests/test_losses.py"]
TESTS = {  # of each body: the modules that are compiled with it, all tests, which of them come first
    "activations": (["_kernels"], ["tests/engine/test_activations.py"], "special or ulp"),
    "activations_array": (["_kernels"], ["tests/engine/test_activations.py"], "special or ulp"),
    "gates": (["_packed"], WHOLE, f"test_options and clip and {PLAIN}"),
    "lstm": (
        ["_packed"],
        [*WHOLE, SPANS],
        f"same_bits or lstm and not norm and (test_recurrent or clip) and {PLAIN}",
    ),
    "gru": (["_packed"], WHOLE, f"gru and (test_recurrent or clip) and {PLAIN}"),
    "rnn": (["_packed"], WHOLE, f"rnn and (test_recurrent or clip) and {PLAIN}"),
    "lstm_norm": (["_packed"], WHOLE, f"lstm_norm and (test_recurrent or clip) and {PLAIN}"),
    "product": (["_packed", "_packed_dense"], [*DENSE, *PASS], f"test_dense or {ONE} and {PLAIN}"),
    "gradient": (["_packed", "_packed_dense"], [*DENSE, *PASS], f"test_dense or {ONE} and {PLAIN}"),
    "pack": (["_packed"], PASS, f"{ONE} and {PLAIN}"),
    "pass_forward": (["_packed"], PASS, SEVERAL),
    "pass_backward": (["_packed"], PASS, SEVERAL),
    "dense": (["_packed_dense"], DENSE, "test_dense"),
    "elementwise": (["_losses"], LOSSES, "engine and not refuse"),
    "elementwise_array": (["_losses"], LOSSES, "engine and not refuse"),
    "softmax": (["_losses"], LOSSES, "engine and not refuse"),
    "optimizers": (["_optim"], ["tests/test_optim.py"], "reference"),
}
SAME, UNREAD = (
    "where both are equal it is the same number",
    "rows beyond the step's, whose states nobody reads",
)
I_IS_0 = "the input gate comes first"
BLOCKS = "blocks end elsewhere; no sum depends on where they do"
EQUIVALENT = {  # by "body: the line it makes", or by the line, with the reason why no test can see it
    "lstm: const CYL_REAL dz_f = coupled ? 1 : dcell * c_prev[j] * CYL_TYPED(cyl_sigmoid_slope)(f, bound, "
    "clips);": "with coupled gates nobody reads it",
    "product: const ptrdiff_t most = lda * (ptrdiff_t)sizeof(CYL_REAL) % 4096 ? CYL_TILE : 6, "
    "tiles = (rows + most + 1) / most;": "one more tile, to the same bits",
    "product: const ptrdiff_t whole = (to - from) / CYL_PANEL, rest = (to) % CYL_PANEL;": (
        "from is a multiple of CYL_PANEL"
    ),
    "pass_backward: if (q->to_extra) memset(CYL_ROW(p->extra, r, p->ld_extra) + g + p->H, 0, bytes);": (
        "of the cells that come here only the GRU writes to extra, one gate"
    ),
    "product: const ptrdiff_t at_once = rows == 0 ? 2 : panels;": "another order, to the same bits",
    "pass_backward: for (ptrdiff_t r = s->start; r < s->start + row_end; r++)": (
        "zeros that the other parts write, too"
    ),
    "pass_backward: if (q->to_extra) memset(CYL_ROW(p->extra, r, p->ld_extra) + g * p->Hp + p->H, 1, "
    "bytes);": "2e-38 times the zeros that pad the weights",
    "pass_backward: const ptrdiff_t first = row + w->index / w->count, last = row + rows * (w->index + 1) / "
    "w->count;": "rows of other parts once more, to the same bits",
    "pass_backward: if (block.count < CYL_ROWS_AT_ONCE && (r > 0 && t_end > t)) continue;": BLOCKS,
    "pass_backward: while (t > 0 && (t == last || (t != span && end + start + p->rows[t - 1] <= "
    "CYL_ROWS_AT_ONCE))) {": BLOCKS,
    "pass_backward: while (t > 0 && (t == last || (t != span && end - start + p->rows[t - 0] <= "
    "CYL_ROWS_AT_ONCE))) {": BLOCKS,
    "pass_backward: const ptrdiff_t rows = w->row_end < p->rows[step] ? w->row_end : "
    "p->rows[step + 1];": UNREAD,
    "pass_backward: const ptrdiff_t rows = w->row_end < p->rows[step + 1] ? w->row_end : "
    "p->rows[step + 0];": UNREAD,
    "lstm: gates[j] = i;": I_IS_0,
    "lstm: const CYL_REAL i = gates[j], g = gates[G + j], o = gates[O + j];": I_IS_0,
    "lstm: for (ptrdiff_t first = 0; first <= a->B; first += CYL_ROWS_TOGETHER) {": "of no rows",
    "product: for (; j + 2 < panels; j += 2)": "the last pair is computed panel by panel, to the same bits",
    "product: __builtin_prefetch((const char *)(b + k * ldb) + 2048);": "a hint to the caches",
    "gradient: for (ptrdiff_t first = from; first <= to; first += CYL_TILE, out += count * CYL_TILE) {": (
        "after whole tiles a last one of no columns, of which nothing is copied"
    ),
    "gradient: for (ptrdiff_t m = 0; m <= n; m++) out[k * CYL_TILE + m] = row[m];": (
        "no tile reads what is in the strip beyond its columns; only a sanitizer could see the read"
    ),
    "pass_forward: #define CYL_COLUMNS(panel, width) ((panel) * CYL_PANEL <= (width) "
    "? (panel) * CYL_PANEL : (width))": SAME,
    "pass_backward: ((CYL_REAL *)p->dw_hr + from * p->H, p->H, to - from, p->H, strips, 1, 0, 1, "
    "(const CYL_REAL *)p->m, p->Hp,": "the distance of gates, of which there is one",
    "pass_backward: while (t > 0 && (t == last || (t != span && end - start + p->rows[t - 1] < "
    "CYL_ROWS_AT_ONCE))) {": BLOCKS,
    "pass_forward: for (ptrdiff_t r = row; r < row_end && from <= to; r++)": (
        "nothing is copied where they are equal"
    ),
    "pass_forward: const ptrdiff_t end = w->row_end <= s->rows ? w->row_end : s->rows, "
    "place = (t + 1) / CYL_SPAN * p->B;": SAME,
    "pass_backward: ptrdiff_t start = end, step = t > 1 ? t - 1 : 0;": "t is a multiple of CYL_SPAN",
    "pass_backward: const ptrdiff_t rows = w->row_end <= p->rows[0] ? w->row_end : p->rows[0];": SAME,
    "pass_backward: const ptrdiff_t rows = w->row_end > p->rows[0] ? w->row_end : p->rows[0];": UNREAD,
    "pass_backward: const ptrdiff_t rows = w->row_end < p->rows[1] ? w->row_end : p->rows[0];": UNREAD,
    "pass_backward: const ptrdiff_t rows = w->row_end <= p->rows[step + 1] ? w->row_end : "
    "p->rows[step + 1];": SAME,
    "pass_backward: const ptrdiff_t rows = w->row_end < p->rows[1] ? w->row_end : p->rows[step + 1];": UNREAD,
    "elementwise: *slope = (no * (y > 0 ? 1 : e) - yes * (y >= 0 ? e : 1)) / (1 + e);": "e is 1 at y = 0",
}

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


class Bench:
    """A folder with changed headers, the good modules, and one from changed headers."""

    def __init__(self, folder):
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
            header.write_text("".join([*lines[:number], changed + "\n", *lines[number + 1 :]]))
            made = compiled(modules, self.include, self.made)
            header.write_text(good)
            seen = "compiler"
            if made and all(file.read_bytes() == self.good[name].read_bytes() for name, file in made.items()):
                continue
            if made:
                files = {**self.good, **made}
                seen = mutation.seen_by(functools.partial(replace, files), tests, first, quick)
            mutant, line = (f"{body}: {text.strip().rstrip(CONTINUED)}" for text in (changed, line))
            yield mutant, line, seen


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        mutation.report(__doc__.splitlines()[0], TESTS, Bench(folder).mutants, EQUIVALENT)
