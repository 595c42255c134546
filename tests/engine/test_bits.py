"""Bit for bit: the packed path's results do not depend on batch, threads, chunks or streaming."""

import itertools

import numpy as np
import pytest
from problems import DIRECTIONS, GRID, LAYERS, for_caller, make, options_of, parts_of, problem

import cylstm
from cylstm._engine import isa

pytestmark = pytest.mark.skipif(
    isa.path() != "packed",
    reason="BLAS cuts its sums by sizes and threads; only the packed path promises bits",
)

# Sizes at which a call is divided: by sequences, by units, by units of weights beyond the L2 cache.
DIVIDED = {"rows": (40, 24, 30, 70), "units": (40, 5, 30, 70), "large": (6, 24, 40, 300)}


def same(ours, theirs, what=""):
    assert ours.tobytes() == theirs.tobytes(), f"{what}: {np.abs(ours - theirs).max()} apart"


STREAMED = [(cell, option) for cell, option in GRID if option in ("none", "projection", "all")]


@pytest.fixture(autouse=True)
def _restore():
    with cylstm.num_threads(cylstm.get_num_threads()):
        yield


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", LAYERS)
def test_a_sequence_alone_and_in_any_batch(rng, cell, dtype):
    layer = make(cell, 5, 37, seed=0, dtype=dtype)
    x, state, *_ = problem(rng, layer, 7, 40)
    y, final = layer(x, for_caller(state))
    for B in range(1, 41):
        cut = [part[:, :B].copy() for part in state]
        few, last = layer(x[:, :B], for_caller(cut))
        same(few, np.ascontiguousarray(y[:, :B]), f"B {B}")
        for ours, theirs in zip(parts_of(last), parts_of(final), strict=True):
            same(ours, np.ascontiguousarray(theirs[:, :B]), f"B {B}")
    alone, _ = layer(x[:, 39], for_caller([part[:, 39] for part in state]))
    same(alone, np.ascontiguousarray(y[:, 39]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell, option", STREAMED)
def test_chunks_and_steps_are_the_whole(rng, cell, option, dtype):
    layer = make(cell, 3, 33, 2, seed=0, dtype=dtype, **options_of(option))
    for B in (1, 3, 17):
        x = rng.standard_normal((60, B, 3)).astype(dtype)
        y, final = layer(x)
        stream, pieces, t = cylstm.Stream(layer, batch_size=B), [], 0
        while t < 60:
            n = int(rng.integers(1, 23))
            pieces.append(stream.step(x[t])[None] if n == 1 else stream.run(x[t : t + n]))
            t += len(pieces[-1])
        same(np.concatenate(pieces), y, f"B {B}")
        for ours, theirs in zip(parts_of(stream.state), parts_of(final), strict=True):
            same(ours, theirs)


def training_pass(layer, x, state, dy, dlast, lengths):
    y, final = layer.train()(x, for_caller(state), lengths=lengths)
    layer.zero_grad()
    dx, first = layer.backward(dy, for_caller(dlast))
    results = {"y": y, "dx": dx} | {name: g.copy() for name, g in layer.gradients.items()}
    for name, part, gradient in zip(layer.spec.states, parts_of(final), parts_of(first), strict=True):
        results |= {f"{name}_n": part, f"d{name}_0": gradient}
    return results


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", DIVIDED)
@pytest.mark.parametrize("cell", LAYERS)
def test_any_number_of_threads(rng, cell, sizes, dtype):
    T, B, I, H = DIVIDED[sizes]
    options = {"proj_size": 40, "zoneout": 0.1} if cell == "lstm" else {}
    layer = make(cell, I, H, seed=0, dtype=dtype, **options)
    given = problem(rng, layer, T, B)
    lengths = rng.integers(1, T + 1, B) if sizes == "rows" else None
    results = {}
    for n in (1, 2, 3, 4, 7):
        layer._set_random_state(make(cell, I, H, seed=0)._random_state())  # the same masks
        cylstm.set_num_threads(n)
        results[n] = training_pass(layer, *given, lengths)
        for name, value in results[n].items():
            same(value, results[1][name], f"{name} of {n} threads")


@pytest.mark.parametrize("cell", LAYERS)
def test_directions_side_by_side(rng, cell):
    layer = make(cell, 30, 70, 2, bidirectional=True, seed=0)
    x = rng.standard_normal((60, 3, 30)).astype("f")
    y, final = layer(x, threads=1)
    for n in (2, 3, 5):
        again, last = layer(x, threads=n)
        same(again, y, f"{n} threads")
        for ours, theirs in zip(parts_of(last), parts_of(final), strict=True):
            same(ours, theirs, f"{n} threads")


@pytest.mark.parametrize("cell", LAYERS)
def test_gradients_over_chunks_of_time(rng, cell):
    """Backward through the second half, then, with the gradient of the state between, through the first."""
    layer = make(cell, 5, 37, seed=0)
    x, state, dy, dlast = problem(rng, layer, 30, 11)
    whole = training_pass(layer, x, state, dy, dlast, None)
    layer.eval()
    _, between = layer(x[:13], for_caller(state))
    layer.train()
    layer.zero_grad()
    layer(x[13:], between)
    dx_late, dbetween = layer.backward(dy[13:], for_caller(dlast))
    layer(x[:13], for_caller(state))
    dx_early, first = layer.backward(dy[:13], dbetween)
    same(np.concatenate([dx_early, dx_late]), whole["dx"], "dx")
    for name, part in zip(layer.spec.states, parts_of(first), strict=True):
        same(part, whole[f"d{name}_0"], name)
    for name, gradient in layer.gradients.items():
        same(gradient, whole[name], name)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_sequences_of_different_length_are_those_alone(rng, direction):
    layer = make("lstm", 6, 40, 2, seed=0, **DIRECTIONS[direction])
    lengths = rng.integers(0, 20, 23)
    x = rng.standard_normal((20, 23, 6)).astype("f")
    y, (h, c) = layer(x, lengths=lengths)
    for b, n in enumerate(lengths):
        alone, (h_b, c_b) = layer(x[:n, b])
        same(alone, np.ascontiguousarray(y[:n, b]))
        same(h_b, np.ascontiguousarray(h[:, b]))
        same(c_b, np.ascontiguousarray(c[:, b]))


# With bias and without, divided by inputs and by outputs, several blocks of rows.
ROW_LAYERS = {
    "Linear by inputs": lambda dtype: cylstm.Linear(257, 5, dtype=dtype, seed=0),
    "Linear by outputs": lambda dtype: cylstm.Linear(33, 130, False, dtype=dtype, seed=0),
    "Linear of one tile": lambda dtype: cylstm.Linear(7, 2, dtype=dtype, seed=0),
    "Embedding": lambda dtype: cylstm.Embedding(30, 21, dtype=dtype, seed=0),
    "LayerNorm": lambda dtype: cylstm.LayerNorm(37, dtype=dtype),
}


def row_problem(rng, name, dtype, N):
    layer = ROW_LAYERS[name](dtype).train()
    dy = rng.standard_normal((N, layer.output_size)).astype(dtype)
    if name == "Embedding":
        return layer, rng.integers(0, 30, N), dy
    return layer, rng.standard_normal((N, layer.input_size)).astype(dtype), dy


def row_gradients(layer, x, dy, cuts=(), threads=1):
    """dx and the gradients, from calls for the parts between cuts, the last one first."""
    layer.zero_grad()
    edges, dx = [0, *cuts, len(x)], []
    for first, last in reversed(list(itertools.pairwise(edges))):
        layer(x[first:last], threads=threads)
        dx.append(layer.backward(dy[first:last], threads=threads))
    results = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    return results if dx[0] is None else results | {"dx": np.concatenate(dx[::-1])}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ROW_LAYERS)
def test_gradients_over_chunks_of_rows_and_any_number_of_threads(rng, name, dtype):
    layer, x, dy = row_problem(rng, name, dtype, 1100)
    whole = row_gradients(layer, x, dy)
    for trial in range(6):
        cuts = np.sort(rng.integers(0, len(x), 2 * trial))
        for threads in (1, 2, 3, 4):
            for key, value in row_gradients(layer, x, dy, cuts, threads).items():
                same(value, whole[key], f"{key} of {threads} threads, cut at {cuts}")


@pytest.mark.parametrize("name", [name for name in ROW_LAYERS if name != "Embedding"])
def test_a_row_alone_has_the_gradient_it_has_among_others(rng, name):
    layer, x, dy = row_problem(rng, name, "float32", 300)
    dx = row_gradients(layer, x, dy)["dx"]
    for n in (0, 1, 17, 299):
        same(row_gradients(layer, x[n : n + 1], dy[n : n + 1])["dx"], dx[n : n + 1], f"row {n}")
