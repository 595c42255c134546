"""The recipe for adding a cell, docs/how-to/add-a-cell.md: its five places agree, for every cell."""

import itertools
import re
from pathlib import Path

import pytest
from problems import LAYERS, make

import cylstm
from cylstm import reference
from cylstm._engine import _layer_pass
from cylstm.recurrent.cells import CELLS

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "include" / "cylstm"
PAGE = ROOT / "docs" / "how-to" / "add-a-cell.md"


@pytest.mark.skipif(not PAGE.exists(), reason="needs the source tree, for its documentation")
def test_recipe_names_the_five_places():
    page = PAGE.read_text(encoding="utf-8")
    places = re.findall(r"^## (\d)\. ", page, re.MULTILINE)
    assert places == list("12345")
    for place in (
        "reference.CELLS",
        "include/cylstm/<cell>.h",
        "cells.h",
        "CellSpec",
        "cylstm/recurrent/rnn.py",
    ):
        assert place in page


def test_reference_and_engine_cell_tables_agree():
    assert list(reference.CELLS) == list(CELLS)
    for row, (cell, spec) in enumerate(CELLS.items()):
        assert (spec.name, spec.row) == (cell, row)
        counts = (len(spec.gates), len(spec.states), spec.extra, spec.planes)
        assert _layer_pass.cell_shape(row) == (*counts, spec.cell_parameters, spec.biases)
    with pytest.raises(ValueError, match="cell: expected 0 to"):
        _layer_pass.cell_shape(len(CELLS))


@pytest.mark.skipif(not HEADERS.exists(), reason="needs the source tree, for its C headers")
def test_the_c_tables_are_in_the_same_order():
    table = (HEADERS / "cells.h").read_text()
    rows = re.findall(r"    CYL_(\w+) = (\d+)", table.split("typedef enum")[1])
    assert [(name.lower(), int(row)) for name, row in rows] == [
        *((spec.name, spec.row) for spec in CELLS.values()),
        ("cell_count", len(CELLS)),
    ]
    functions = table.split("#define CYL_CELLS(type)")[1].split("CYL_UNUSED")[0]
    first = re.findall(r"CYL_(?:ONE_STAGE|TWO_STAGES)\((\w+),", functions)
    assert len(first) == len(CELLS)
    for cell, function in zip(CELLS, first, strict=True):
        assert function in (cell, "gru_reset"), cell
        assert any(function in path.read_text() for path in HEADERS.glob("*_body.h"))


def test_every_cell_is_chosen_by_the_options_of_a_layer():
    """And every choice of options is a cell, or is rejected with an error that names the option."""
    values: dict[str, dict] = {}
    for layer_type, options in LAYERS.values():
        for name in layer_type.cell_options:
            if name not in ("proj_size", "zoneout_cell"):  # which no cell depends on
                default = getattr(layer_type(2, 3), name)
                values.setdefault(name, {default: None})[options.get(name, default)] = None
    chosen = set()
    for layer_type in (cylstm.LSTM, cylstm.GRU, cylstm.RNN):
        names = [name for name in layer_type.cell_options if name in values]
        for choice in itertools.product(*(values[name] for name in names)):
            options = dict(zip(names, choice, strict=True))
            if options.get("layer_norm") and (options["peephole"] or options["coupled"]):
                with pytest.raises(ValueError, match="layer_norm"):
                    layer_type(2, 3, **options)
                continue
            cell = layer_type(2, 3, **options).spec.name
            assert layer_type.cell_of(options) == cell
            chosen.add(cell)
    assert chosen == set(CELLS)


def test_the_grid_of_the_tests_has_every_cell():
    assert list(LAYERS) == list(CELLS)
    for cell, spec in CELLS.items():
        layer = make(cell, 2, 3)
        assert layer.spec == spec
        own = {f"{name}_l0": (width * 3,) for name, width in spec.cell_parameters}
        assert own.items() <= {name: value.shape for name, value in layer.parameters.items()}.items()
