"""Activations against higher precision, over the whole range of each type."""

import numpy as np
import pytest
import tolerances

from cylstm._engine import _kernels, isa

EXACT = {
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
HIGHER = {"float32": np.float64, "float64": np.longdouble}


def apply(name, x, instruction_set):
    y = np.empty_like(x)
    _kernels.activation(name, y, x, isa.NAMES.index(instruction_set))
    return y


def every_kind_of_number(dtype):
    """Numbers of every exponent and sign: bit patterns at even distances, without NaN."""
    unsigned = np.uint32 if dtype == "float32" else np.uint64
    step = 2_039 if dtype == "float32" else 2**43 + 12_345_679
    bits = np.arange(0, np.iinfo(unsigned).max, step, dtype=unsigned)
    x = bits.view(dtype)
    return x[np.isfinite(x)]


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="long double is no wider than double here")
@pytest.mark.parametrize("instruction_set", isa.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", _kernels.ACTIVATIONS)
def test_error_in_ulp(name, dtype, instruction_set):
    ordinary = np.linspace(-100, 100, 1_000_003)
    x = np.concatenate([every_kind_of_number(dtype), ordinary.astype(dtype), (ordinary / 100).astype(dtype)])
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(HIGHER[dtype]))
        rounded = exact.astype(dtype)
    y = apply(name, x, instruction_set)
    limits = np.finfo(dtype)
    subnormal = np.abs(exact) < limits.tiny
    if name != "tanh":
        allowed = limits.tiny if name == "sigmoid" else limits.smallest_subnormal
        assert (np.abs(y[subnormal] - exact[subnormal]) <= allowed).all()
    counted = np.isfinite(rounded) & (~subnormal | (name == "tanh"))
    unit = np.spacing(np.abs(rounded[counted])).astype(HIGHER[dtype])
    error = np.abs(y[counted] - exact[counted]) / unit
    assert error.max() <= tolerances.ULP[name], x[counted][error.argmax()]
    assert (y[np.isinf(rounded)] == rounded[np.isinf(rounded)]).all()


@pytest.mark.parametrize("instruction_set", isa.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype, instruction_set):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0] * 7, dtype)
    expected = {
        "exp": [np.nan, np.inf, 0, 1, 1],
        "sigmoid": [np.nan, 1, 0, 0.5, 0.5],
        "tanh": [np.nan, 1, -1, 0, -0.0],
    }
    for name, values in expected.items():
        y = apply(name, x, instruction_set)
        np.testing.assert_array_equal(y, np.array(values * 7, dtype))
        np.testing.assert_array_equal(np.signbit(y[3:5]), np.signbit(values[3:]))


def test_best_instruction_set_is_selected_by_default(monkeypatch):
    isa.selected.cache_clear()
    monkeypatch.delenv("CYLSTM_ISA", raising=False)
    assert isa.NAMES[isa.selected()] == isa.available()[-1]
    isa.selected.cache_clear()
    monkeypatch.setenv("CYLSTM_ISA", "scalar")
    assert isa.selected() == 0
    isa.selected.cache_clear()
    monkeypatch.setenv("CYLSTM_ISA", "sse9")
    with pytest.raises(ValueError, match="CYLSTM_ISA: expected one of"):
        isa.selected()
    isa.selected.cache_clear()
