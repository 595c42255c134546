"""Long trainings of an LSTM keep few of its states: backward computes them again, and h is the caller's y."""

import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from guards import Guards
from problems import DIRECTIONS, for_caller, make, parts_of, problem

import cylstm
from cylstm._engine import _packed, isa
from cylstm.layers.base import describe
from cylstm.recurrent import stack_buffers

pytestmark = pytest.mark.skipif(isa.path() != "packed", reason="only the packed path computes states again")

CELLS = {
    "plain": {},
    "clipped": {"clip": 0.4},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "coupled peephole": {"coupled": True, "peephole": True},
    "recurrent dropout": {"recurrent_dropout": 0.3},
}


@pytest.fixture(autouse=True)
def _restore():
    with cylstm.num_threads(cylstm.get_num_threads()):
        yield


@pytest.fixture
def again(monkeypatch):
    """again(True): trainings compute their states again, however short; again(False): none does."""

    def choose(yes):
        monkeypatch.setattr(stack_buffers, "MIN_SEGMENTS", 1)
        monkeypatch.setattr(stack_buffers, "MIN_STATE_BYTES", 0 if yes else 1 << 60)

    return choose


def passes(layer, x, state, dy, dlast, lengths):
    """All results of two trainings, one after the other."""
    results = []
    for _ in range(2):
        y, final = layer.train()(x, for_caller(state), lengths=lengths)
        dx, first = layer.backward(dy, for_caller(dlast))
        results += [y, *parts_of(final), dx, *parts_of(first), *(g.copy() for g in layer.gradients.values())]
    return results


@pytest.mark.parametrize("name", isa.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_same_bits_as_with_all_states(monkeypatch, again, name, dtype, cell):
    monkeypatch.setattr(isa, "selected", lambda: isa.NAMES.index(name))
    cases = [("forward", 1, (19, 3, 5, 17)), ("both", 2, (33, 2, 3, 40)), ("reverse", 2, (8, 1, 4, 64))]
    for direction, layers, (T, B, I, H) in cases:
        options = CELLS[cell] | DIRECTIONS[direction]
        for n, ragged in ((1, False), (3, True), (2, False)):
            found = []
            for yes in (False, True):
                again(yes)
                layer = make("lstm", I, H, layers, dtype=dtype, seed=1, **options).train()
                numbers = np.random.default_rng(n)
                given = problem(numbers, layer, T, B)
                lengths = numbers.integers(0, T + 1, B) if ragged else None
                if ragged:
                    lengths[1:2] = 1  # its state before the only step is the first one
                cylstm.set_num_threads(n)
                found.append(passes(layer, *given, lengths))
                assert (describe(layer).training_workspace.plan.segments > 0) == (
                    yes and len(describe(layer).training_workspace.packing.rows) > 0
                )
            for kept, computed in zip(*found, strict=True):
                assert kept.tobytes() == computed.tobytes(), (direction, n, np.abs(kept - computed).max())


@pytest.mark.parametrize("sizes", [(40, 24, 30, 70), (40, 5, 30, 70), (30, 24, 40, 300)])
def test_any_number_of_threads(rng, again, sizes):
    """Where a call is divided by sequences, by units, and by units of weights beyond the L2 cache."""
    again(True)
    T, B, I, H = sizes
    layer = make("lstm", I, H, seed=0)
    given, results = problem(rng, layer, T, B), []
    for n in (1, 2, 3, 7):
        cylstm.set_num_threads(n)
        layer.zero_grad()
        layer.train()(given[0], for_caller(given[1]))
        layer.backward(given[2], for_caller(given[3]), need_dx=False)
        results.append(describe(layer).store.grad.copy())
    for other in results[1:]:
        assert other.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_within_the_buffers(rng, monkeypatch, again, dtype):
    guards = Guards().install(monkeypatch)
    again(True)
    for T, B, I, H in ((1, 1, 1, 1), (8, 3, 2, 17), (9, 2, 5, 8), (25, 17, 3, 33)):
        layer = make("lstm", I, H, 2, dtype=dtype, seed=1)
        x, state, dy, dlast = problem(rng, layer, T, B)
        layer.train()(guards.copy(x), for_caller(state))
        layer.backward(guards.copy(dy), for_caller(dlast))
        assert all(np.isfinite(g).all() for g in layer.gradients.values())
    names = {name for name, *_ in guards.blocks}
    assert {"h_checkpoint0_0", "c_checkpoints1_0", "h_recomputed", "c_recomputed"} <= names
    assert guards.check() > 40


def test_y_is_the_callers(rng, again):
    """It may be written to before backward, and outlives what comes after."""
    again(True)
    x, dy = rng.standard_normal((20, 3, 5)), rng.standard_normal((20, 3, 32))
    layer = cylstm.LSTM(5, 32, seed=0).train()
    y, _ = layer(x)
    expected = y.copy()
    dx, _ = layer.backward(dy)
    first = describe(layer).store.grad.copy()
    layer.zero_grad()
    other, _ = layer(x)
    assert not np.shares_memory(y, other)
    other[...] = np.nan
    dx_again, _ = layer.backward(dy)
    np.testing.assert_array_equal(dx_again, dx)
    np.testing.assert_array_equal(describe(layer).store.grad, first)
    layer.eval()(x)
    np.testing.assert_array_equal(y, expected)
    assert y.flags.c_contiguous
    assert y.flags.writeable


def test_y_keeps_no_memory_of_a_longer_batch(rng, again):
    again(True)
    layer, x = cylstm.LSTM(5, 32, seed=0).train(), rng.standard_normal((200, 3, 5))
    layer(x, out=np.empty((200, 3, 32), np.float32))
    y, _ = layer(x[:20])
    assert y.base is None
    y, _ = cylstm.LSTM(5, 32, seed=0).train()(x[:20])
    assert y.base.nbytes < 1.5 * y.nbytes


@pytest.mark.parametrize("form", ["batch first", "one sequence", "packed", "out", "lengths"])
def test_y_in_every_form(again, form):
    results = []
    for yes in (False, True):
        again(yes)
        layer = cylstm.LSTM(5, 32, seed=0, batch_first=form == "batch first").train()
        x = np.random.default_rng(0).standard_normal((4, 20, 5)).astype("f")
        out = np.empty((4, 20, 32), "f") if form == "out" else None
        given = {"one sequence": x[0], "packed": cylstm.data.pack(list(x))}.get(form, x)
        y, _ = layer(given, out=out, lengths=[3, 1, 2, 4] * 5 if form == "lengths" else None)
        assert (out is None) or y is out
        dx, _ = layer.backward(y)
        results.append([y, dx] if form != "packed" else [y.rows, dx.rows])
    for kept, computed in zip(*results, strict=True):
        assert kept.flags.c_contiguous
        assert computed.flags.c_contiguous
        np.testing.assert_array_equal(kept, computed)


def test_a_layer_above_reads_the_states_where_they_stand(again):
    results = []
    for yes in (False, True):
        again(yes)
        results.append([])
        model = cylstm.Sequential(cylstm.LSTM(5, 32, seed=0), cylstm.Linear(32, 2, seed=1)).train()
        for _ in range(2):
            y, _ = model(np.random.default_rng(0).standard_normal((20, 4, 5)))
            recurrent, dense = describe(model).training_workspace.workspaces
            assert np.shares_memory(recurrent.buffers.hidden(0, 0), dense.x) == yes
            dx, _ = model.backward(np.ones_like(y))
            results[-1:] = [[y.copy(), dx, *(g.copy() for g in model.gradients.values())]]
    for kept, computed in zip(*results, strict=True):
        np.testing.assert_array_equal(kept, computed)


def test_a_long_training_keeps_its_gates_and_x_only():
    """Of c an eighth, and the scratch that makes states again; h is y, and the caller's alone."""
    T, B, H = 1000, 16, 256
    layer, x = cylstm.LSTM(H, H, seed=0).train(), np.zeros((T, B, H), np.float32)
    y, _ = layer(x)
    layer.backward(y)
    plane = y.nbytes
    assert describe(layer).training_workspace.plan.segments == 125
    assert (
        describe(layer).training_workspace.arena._block.nbytes < (4 + 1 + 1 + 0.5) * plane
    )  # gates, x, the place of a dy
    assert describe(layer).training_workspace.buffers.donated._block.nbytes == 0
    memory = weakref.ref(layer(x)[0].base)
    assert memory() is None


def test_short_trainings_keep_their_states():
    layer = cylstm.LSTM(8, 16, seed=0).train()
    layer(np.zeros((200, 4, 8), np.float32))
    assert describe(layer).training_workspace.plan.segments == 0


def test_engine_rejects_invalid_arguments(again):
    again(True)
    layer = cylstm.LSTM(3, 64, seed=0).train()
    y, _ = layer(np.zeros((20, 2, 3), np.float32))
    one = describe(layer).training_workspace.passes[0, 0]
    with pytest.raises(ValueError, match="forward: the hidden states of this pass have been donated"):
        one.forward()
    layer.backward(y)
    again(False)
    layer(np.zeros((20, 2, 3), np.float32))
    with pytest.raises(ValueError, match="donate_h: backward reads them"):
        describe(layer).training_workspace.passes[0, 0].donate_h()
    arrays = describe(layer).training_workspace.buffers.engine_arrays(0, 0) | describe(
        layer
    ).training_workspace._weights(0, 0)
    with pytest.raises(ValueError, match="c_checkpoints: expected training of an LSTM"):
        _packed.PackedPass(
            layer.spec.row, isa.selected(), describe(layer).training_workspace.packing.rows, 2, 3, 64, 64,
            arrays | {"c_checkpoints": arrays["c"]}, zoneout_h=0.5,
        )  # fmt: skip


def test_a_pass_keeps_its_memory_while_it_runs(again):
    """Whatever another thread that trains the same layer, by mistake, lets go of."""
    again(True)
    layer = cylstm.LSTM(3, 64, seed=0).train()
    layer(np.zeros((20, 2, 3), np.float32), out=np.empty((20, 2, 64), np.float32))
    workspace, alive = describe(layer).training_workspace, []
    memory = weakref.ref(workspace.buffers.hidden(0, 0).base)

    class Late(np.ndarray):
        """An x whose shape is asked for when the pass has begun."""

        @property
        def shape(self):
            if not alive:  # the message asks for it again
                assert workspace.donate_output()
                alive.append(memory() is not None)
            return ()

    x = np.zeros((40, 3), np.float32).view(Late)
    with pytest.raises(ValueError, match="x: expected"):
        workspace.passes[0, 0].forward(1, x)
    assert alive == [True]
    assert memory() is None


def interrupted_at(line, call):
    """Whether call() is over before KeyboardInterrupt comes at this line of cylstm's, counted as they run."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if f"{Path(cylstm.__file__).parent}" not in frame.f_code.co_filename:
            return None
        seen += event == "line"
        if event == "line" and seen == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(before)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("yes", [False, True])
@pytest.mark.parametrize("first", [20, 27])
def test_ctrl_c_at_any_line_leaves_consistent_state(rng, again, yes, first):
    """A training of 20 steps, after one of the same length or of another."""
    again(yes)
    given = {T: (rng.standard_normal((T, 3, 3)), rng.standard_normal((T, 3, 4))) for T in (20, 27)}

    def model():
        return cylstm.Sequential(cylstm.LSTM(3, 32, seed=0), cylstm.Linear(32, 4, seed=1)).train()

    def step(model, T):
        x, dy = given[T]
        model.zero_grad()
        y, _ = model(x)
        dx, _ = model.backward(dy)
        return [y, dx, *(g.copy() for g in model.gradients.values())]

    expected, line, over = step(model(), 20), 1, False
    while not over:
        used = model()
        step(used, first)
        over = interrupted_at(line, lambda used=used: step(used, 20))
        for ours, theirs in zip(step(used, 20), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"after line {line}")
        line += 3
    assert line > 300
