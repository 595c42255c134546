"""A cell that is added to a copy of the sources by the recipe docs/how-to/add-a-cell.md passes all tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiler,
    pytest.mark.process,
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree"),
    pytest.mark.skipif(sys.platform == "win32", reason="the compiler is called through a shell script"),
]

REFERENCE = '''"""One step of an RNN with the softsign, z / (1 + |z|)."""

import numpy as np


def softsign_step(x, h, states, p, clip):
    """The state after one step, and what the backward step reads."""
    z = x @ p["w_ih"].T + p["b_ih"] + h @ p["w_hh"].T + p["b_hh"]
    clipped = np.clip(z, -clip, clip)
    return (clipped / (1 + abs(clipped)),), (x, h, (abs(z) < clip) / (1 + abs(clipped)) ** 2)
'''
HEADER = """/* An RNN with the softsign: h = z / (1 + |z|). */
#ifndef CYLSTM_SOFTSIGN_H
#define CYLSTM_SOFTSIGN_H

#include "gates.h"

#define CYL_BODY "softsign_body.h"
#include "instantiate.h"

#endif
"""
BODY = """/* One real type and instruction set of softsign.h. */
CYL_TARGET static void CYL_KERNEL(cyl_rnn_softsign_fwd)(const CYL_TYPED(cyl_forward) * a) {
    for (ptrdiff_t b = 0; b < a->B; b++)
        for (ptrdiff_t j = 0; j < a->H; j++) {
            CYL_REAL *gate = a->gates + b * a->ld_gates + j, z = *gate + (a->b_ih[j] + a->b_hh[j]);
            z = z > a->clip ? a->clip : z < -a->clip ? -a->clip : z;
            *gate = a->h[b * a->ld_h + j] = z / (1 + (z < 0 ? -z : z));
        }
}
CYL_TARGET static void CYL_KERNEL(cyl_rnn_softsign_bwd)(const CYL_TYPED(cyl_backward) * a) {
    const CYL_REAL limit = a->clip > (CYL_REAL)1e30 ? 1 : a->clip / (1 + a->clip);
    for (ptrdiff_t b = 0; b < a->B; b++)
        for (ptrdiff_t j = 0; j < a->H; j++) {
            CYL_REAL *gate = a->gates + b * a->ld_gates + j, *dh = a->dh + b * a->ld_d + j;
            const CYL_REAL y = *gate < 0 ? -*gate : *gate;
            *gate = *dh * (1 - y) * (1 - y) * (CYL_REAL)(y < limit);
            *dh = 0;
        }
}
"""


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name}: the recipe expects {old!r} once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def add_cell(top):
    """The five places of the recipe, and the line of the tests."""
    package, headers = top / "cylstm", top / "include" / "cylstm"
    # 1. Its definition
    (package / "reference" / "softsign.py").write_text(REFERENCE)
    initial = package / "reference" / "__init__.py"
    replace(initial, "\nCELLS = {\n", "\nfrom cylstm.reference.softsign import softsign_step\n\nCELLS = {\n")
    row = '    "lstm_norm": (lstm_norm_step, lstm_norm_step_back),\n'
    replace(initial, row, f'{row}    "rnn_softsign": (softsign_step, rnn_step_back),\n')
    # 2. Its kernel
    (headers / "softsign.h").write_text(HEADER)
    (headers / "softsign_body.h").write_text(BODY)
    # 3. Its rows in the tables of cells.h
    table = headers / "cells.h"
    replace(table, '#include "rnn.h"\n', '#include "rnn.h"\n#include "softsign.h"\n')
    replace(table, "CYL_CELL_COUNT = 9", "CYL_RNN_SOFTSIGN = 9,\n    CYL_CELL_COUNT = 10")
    row = "    {4, 2, 8, 14, 1, 1, {{0, 0, 4, 0, 1}, {0, 0, 0, 0, 0}}},\n"
    replace(table, row, f"{row}    {{1, 1, 0, 0, 1, 1, {{{{0, 0, 1, 0, 0}}, {{0, 0, 0, 0, 0}}}}}},\n")
    replace(
        table,
        "CYL_ONE_STAGE(lstm_norm, type)}",
        "CYL_ONE_STAGE(lstm_norm, type), CYL_ONE_STAGE(rnn_softsign, type)}",
    )
    # 4. Its CellSpec
    replace(
        package / "recurrent" / "cells.py",
        "biases=False),",
        'biases=False),\n        CellSpec("rnn_softsign", ("h",), ("h",)),',
    )
    # 5. An option of a layer
    replace(
        package / "recurrent" / "rnn.py", 'not in ("tanh", "relu")', 'not in ("tanh", "relu", "softsign")'
    )
    # The grid of the tests
    problems = next((top / "tests").rglob("problems.py"))
    text = problems.read_text()
    end = text.index("\n}\n", text.index("LAYERS = {"))
    problems.write_text(
        f'{text[:end]}\n    "rnn_softsign": (cylstm.RNN, {{"nonlinearity": "softsign"}}),{text[end:]}'
    )


def test_toy_cell_passes_the_grid(tmp_path):
    top, ignored = tmp_path / "copy", shutil.ignore_patterns("*.so", "*.c", "__pycache__", "build")
    for name in ("cylstm", "include", "tests"):
        shutil.copytree(ROOT / name, top / name, ignore=ignored if name == "cylstm" else None)
    for name in ("setup.py", "pyproject.toml", "conftest.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, top)
    add_cell(top)
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O1\n')
    compiler.chmod(0o755)
    environment = os.environ | {"CC": str(compiler), "CFLAGS": "-DCYL_BASELINE_ONLY", "PYTHONPATH": str(top)}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=top, env=environment, check=True, capture_output=True)
    for path in (None, "blas"):
        chosen = {} if path is None else {"CYLSTM_PATH": path}
        tests = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-m",
            "",
            "-k",
            "softsign or recipe",
        ]
        done = subprocess.run(
            [*tests, "tests/recurrent", "tests/reference"], cwd=top, env=environment | chosen,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
