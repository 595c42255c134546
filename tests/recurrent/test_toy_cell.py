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

REFERENCE = '''"""One step of an RNN with z / sqrt(1 + z^2) (Carlile et al. 2017)."""

import numpy as np


def isru_step(x, h, states, p, clip):
    """The state after one step, and what the backward step reads."""
    z = x @ p["w_ih"].T + p["b_ih"] + h @ p["w_hh"].T + p["b_hh"]
    clipped = np.clip(z, -clip, clip)
    slope = (abs(z) < clip) / (1 + clipped**2) ** 1.5
    return (clipped / np.sqrt(1 + clipped**2),), (x, h, slope)
'''
HEADER = """/* An RNN with h = z / sqrt(1 + z^2). */
#ifndef CYLSTM_ISRU_H
#define CYLSTM_ISRU_H

#include <math.h>

#include "gates.h"

#define CYL_BODY "isru_body.h"
#include "instantiate.h"

#endif
"""
BODY = """/* One real type and instruction set of isru.h. */
CYL_TARGET static void CYL_KERNEL(cyl_rnn_isru_fwd)(const CYL_TYPED(cyl_forward) * a) {
    for (ptrdiff_t b = 0; b < a->B; b++)
        for (ptrdiff_t j = 0; j < a->H; j++) {
            CYL_REAL *gate = a->gates + b * a->ld_gates + j, z = *gate + (a->b_ih[j] + a->b_hh[j]);
            z = z > a->clip ? a->clip : z < -a->clip ? -a->clip : z;
            *gate = a->h[b * a->ld_h + j] = z / (CYL_REAL)sqrt(1 + (double)z * z);
        }
}
CYL_TARGET static void CYL_KERNEL(cyl_rnn_isru_bwd)(const CYL_TYPED(cyl_backward) * a) {
    const double clip = a->clip;
    const CYL_REAL limit = clip > 1e9 ? 1 : (CYL_REAL)(clip / sqrt(1 + clip * clip));
    for (ptrdiff_t b = 0; b < a->B; b++)
        for (ptrdiff_t j = 0; j < a->H; j++) {
            CYL_REAL *gate = a->gates + b * a->ld_gates + j, *dh = a->dh + b * a->ld_d + j;
            const CYL_REAL y = *gate < 0 ? -*gate : *gate, rest = 1 - y * y;
            *gate = *dh * rest * (CYL_REAL)sqrt((double)rest) * (CYL_REAL)(y < limit);
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
    (package / "reference" / "isru.py").write_text(REFERENCE)
    initial = package / "reference" / "__init__.py"
    replace(initial, "\nCELLS = {\n", "\nfrom cylstm.reference.isru import isru_step\n\nCELLS = {\n")
    row = '    "lstm_norm": (lstm_norm_step, lstm_norm_step_back),\n'
    replace(initial, row, f'{row}    "rnn_isru": (isru_step, rnn_step_back),\n')
    # 2. Its kernel
    (headers / "isru.h").write_text(HEADER)
    (headers / "isru_body.h").write_text(BODY)
    # 3. Its rows in the tables of cells.h
    table = headers / "cells.h"
    replace(table, '#include "rnn.h"\n', '#include "rnn.h"\n#include "isru.h"\n')
    replace(table, "CYL_CELL_COUNT = 9", "CYL_RNN_ISRU = 9,\n    CYL_CELL_COUNT = 10")
    row = "    {4, 2, 8, 14, 1, 1, {{0, 0, 4, 0, 1}, {0, 0, 0, 0, 0}}, 1, 0, 0, cyl_norms},\n"
    new = "    {1, 1, 0, 0, 1, 1, {{0, 0, 1, 0, 0}, {0, 0, 0, 0, 0}}, 0, 0, 1, cyl_no_parameters},\n"
    replace(table, row, row + new)
    last = "CYL_ONE_STAGE(lstm_norm, type)"
    replace(table, f"{last}}}", f"{last}, CYL_ONE_STAGE(rnn_isru, type)}}")
    # 4. Its CellSpec
    row = '        CellSpec("rnn_isru", ("h",), ("h",)),\n    )\n}'
    replace(package / "recurrent" / "cells.py", "    )\n}", row)
    # 5. An option of a layer
    allowed = 'not in ("tanh", "relu"'
    replace(package / "recurrent" / "rnn.py", f"{allowed})", f'{allowed}, "isru")')
    # The grid of the tests
    problems = next((top / "tests").rglob("problems.py"))
    text = problems.read_text()
    end = text.index("\n}\n", text.index("LAYERS = {"))
    problems.write_text(
        f'{text[:end]}\n    "rnn_isru": (cylstm.RNN, {{"nonlinearity": "isru"}}),{text[end:]}'
    )


def test_toy_cell_passes_the_grid(tmp_path):
    top, ignored = tmp_path / "copy", shutil.ignore_patterns("*.so", "_*.c", "__pycache__")
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
        tests = ["-k", "isru or recipe", "tests/recurrent", "tests/reference"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
            cwd=top, env=environment | chosen, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
