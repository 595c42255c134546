"""Every pass writes inside its buffers only, and reads what was written: guard cells, and NaN where unset."""

import copy

import numpy as np
import pytest
from c_models import models
from guards import Guards
from problems import DIRECTIONS, GRID, assert_agrees_with_reference, for_caller, make, options_of, problem

import cylstm
from cylstm._engine import isa
from cylstm.layers import states

PROBLEMS = [
    ("float32", "both", (4, 3, 5, 17)),
    ("float64", "reverse", (3, 2, 9, 8)),
    ("float32", "forward", (2, 1, 3, 32)),  # no padding, no row beside
]
PATHS = [*isa.available(), "blas"]


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each instruction set of the packed path, and the BLAS path."""
    if request.param == "blas":
        monkeypatch.setattr(isa, "path", lambda: "blas")
    elif isa.path() == "blas":
        pytest.skip("CYLSTM_PATH=blas: the packed path is not to be used")
    else:
        monkeypatch.setattr(isa, "selected", lambda: isa.NAMES.index(request.param))
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("cell, option", GRID)
def test_training_and_evaluation_of_every_cell_and_option(rng, monkeypatch, path, cell, option):
    guards = Guards().install(monkeypatch)
    for dtype, direction, (T, B, I, H) in PROBLEMS:
        layer = make(cell, I, H, 2, dtype=dtype, seed=1, **options_of(option), **DIRECTIONS[direction])
        x, state, dy, dlast = problem(rng, layer, T, B)
        given = (
            guards.copy(x),
            [guards.copy(s) for s in state],
            guards.copy(dy),
            [guards.copy(s) for s in dlast],
        )
        assert_agrees_with_reference(layer, *given, rng.integers(0, T + 1, B) if B > 1 else None)
    assert guards.check() > 40


def results(model, rng, made=np.copy, threads=1):
    """What a model gives in a call, a session, a stream and training; made(array) makes callers' arrays."""
    T, B = 7, 5
    if model.reads_indices:
        shape = (T, B) if model.reads_single_indices else (T, B, model.input_size)
        x = rng.integers(0, 9, shape)
    else:
        x = rng.standard_normal((T, B, model.input_size)).astype(model.dtype)
    if model.batch_first:
        x = x.swapaxes(0, 1)
    x, session, found = made(x), cylstm.Session(model, threads=threads), []
    y, state = session.run(x)
    out, final = made(np.zeros_like(y)), states.arrays(session.run(x, out=made(np.zeros_like(y)))[1])
    for _ in range(3):  # the short way, from the second call on
        session.run(x, out=out)
    found += [y, *states.arrays(state), out, *final]
    if model.causal:
        steps = x.swapaxes(0, 1) if model.batch_first else x
        stream = cylstm.Stream(model, batch_size=B)
        found += [stream.step(made(x_t)) for x_t in steps] + [stream.run(made(steps))]
        found += [stream.step(made(steps[0][:3]), rows=[4, 0, 2])]
    y, _ = model.train()(x, threads=threads)
    model.zero_grad()
    dx = model.backward(made(rng.standard_normal(y.shape).astype(y.dtype)), threads=threads)[0]
    model.eval()
    return [value.copy() for value in [*found, y, dx, *model.gradients.values()] if value is not None]


ATTENTION = {
    "attention": cylstm.Sequential(cylstm.GRU(3, 8, seed=0), cylstm.MultiHeadAttention(8, 2, seed=1)),
    "additive": cylstm.Sequential(cylstm.LSTM(3, 5, seed=0), cylstm.AdditiveAttention(5, 4, seed=1)),
}  # which C does not have
MODELS = models() | ATTENTION


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("threads", [1, 3])
def test_sessions_streams_and_training_of_every_layer(monkeypatch, name, threads):
    model = MODELS[name]
    expected = results(copy.deepcopy(model), np.random.default_rng(1))
    guards = Guards().install(monkeypatch)
    got = results(copy.deepcopy(model), np.random.default_rng(1), guards.copy, threads)
    assert guards.check() > 3
    for ours, theirs in zip(got, expected, strict=True):
        if isa.path() == "packed":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("buffer", ["gates0_0", "h0_0", "c0_0"])
def test_a_buffer_that_is_a_row_short_is_seen(rng, monkeypatch, path, buffer):
    guards = Guards(short={buffer: 1}).install(monkeypatch)
    layer = make("lstm", 5, 17, seed=1).train()
    x, state, *_ = problem(rng, layer, 4, 3)
    layer(x, for_caller(state))
    assert buffer in [name for name, *_ in guards.blocks]
    with pytest.raises(AssertionError, match=f"written behind {buffer}"):
        guards.check()
