import copy
import pickle

import numpy as np
import pytest
import tolerances
from memory import peak_of
from problems import DIRECTIONS, LAYERS, for_caller, make, parts_of, problem

import cylstm
from cylstm._engine import isa
from cylstm.recurrent.cells import CELLS


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_and_chunks_are_the_whole_sequence(rng, cell, dtype):
    layer = make(cell, 3, 17, 2, dtype=dtype, seed=0)
    x = rng.standard_normal((9, 4, 3))
    y, final = layer(x)
    stream = cylstm.Stream(layer, batch_size=4)
    pieces = [
        stream.step(x[0])[None],
        stream.run(x[1:4]),
        stream.run(x[4:4]),
        stream.run(x[4:8]),
        stream.step(x[8])[None],
    ]
    limits = tolerances.FLOAT64 if dtype == "float64" else tolerances.float32(20, 18, 1.0)
    np.testing.assert_allclose(np.concatenate(pieces), y, **limits)
    for ours, theirs in zip(parts_of(stream.state), parts_of(final), strict=True):
        np.testing.assert_allclose(ours, theirs, **limits)


def test_a_whole_model_streams_whatever_its_mode_and_layout(rng):
    inner = cylstm.Sequential(cylstm.GRU(8, 6, batch_first=True, seed=1), cylstm.Linear(6, 2, seed=2))
    model = cylstm.Sequential(cylstm.LSTM(3, 8, batch_first=True, seed=0), inner).train()
    x = rng.standard_normal((5, 7, 3))
    y, _ = model(x)
    stream = cylstm.Stream(model, batch_size=5)
    steps = np.stack([stream.step(x[:, t]) for t in range(7)], axis=1)
    np.testing.assert_allclose(steps, y, **tolerances.float32(14, 14, 1.0))
    model.backward(y)  # streaming took nothing away from training
    line = cylstm.Stream(cylstm.Linear(3, 2, seed=0), batch_size=2)
    np.testing.assert_array_equal(line.step(x[:2, 0]), line.run(x[None, :2, 0])[0])


def test_one_stream_needs_no_batch(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((6, 3))
    stream = cylstm.Stream(layer)
    np.testing.assert_allclose([stream.step(x_t) for x_t in x], layer(x)[0], **tolerances.float32(7, 6, 1.0))
    assert cylstm.Stream(layer).step(x[:1]).shape == (1, 4)


def test_some_streams_reset_while_others_continue(rng):
    layer = cylstm.LSTM(3, 4, 2, dtype="float64", seed=0)
    x = rng.standard_normal((8, 3, 3))
    stream = cylstm.Stream(layer, batch_size=3)
    stream.run(x[:4])
    stream.reset([1])
    y = stream.run(x[4:])
    np.testing.assert_allclose(y[:, 1], layer(x[4:, 1])[0], **tolerances.FLOAT64)
    np.testing.assert_allclose(y[:, [0, 2]], layer(x[:, [0, 2]])[0][4:], **tolerances.FLOAT64)
    stream.reset()
    np.testing.assert_array_equal(stream.run(x), cylstm.Stream(layer, 3).run(x))
    with pytest.raises(IndexError):
        stream.reset(3)


def test_states_are_copies_and_can_be_set(rng):
    model = cylstm.Sequential(
        cylstm.LSTM(3, 4, seed=0), cylstm.RNN(4, 2, seed=1), cylstm.Linear(2, 1, seed=2)
    )
    x = rng.standard_normal((6, 2, 3))
    one, two = cylstm.Stream(model, 2), cylstm.Stream(model, 2)
    one.run(x[:3])
    two.state = one.state
    np.testing.assert_array_equal(one.run(x[3:]), two.run(x[3:]))
    kept = one.state
    one.step(x[0])
    assert not np.array_equal(kept[0][0], one.state[0][0])
    two.state = (None, one.state[1], None)
    assert not two.state[0][0].any()
    np.testing.assert_array_equal(two.state[1], one.state[1])
    two.state = None
    assert not two.state[1].any()
    with pytest.raises(ValueError, match=r"state\[1\] h: expected \(1, 2, 2\), got \(1, 1, 2\)"):
        two.state = (None, np.zeros((1, 1, 2)), None)


def test_a_step_sees_new_weights(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    x = rng.standard_normal((2, 1, 3))
    stream = cylstm.Stream(layer)
    stream.step(x[0])
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})
    state = stream.state
    np.testing.assert_allclose(stream.step(x[1]), layer(x[1:], state)[0][0], **tolerances.float32(7, 2, 1.0))
    cylstm.Sequential(layer)  # moves the parameters
    state = stream.state
    np.testing.assert_allclose(stream.step(x[1]), layer(x[1:], state)[0][0], **tolerances.float32(7, 2, 1.0))


def test_step_allocations_are_independent_of_model_size():
    stream = cylstm.Stream(
        cylstm.Sequential(cylstm.LSTM(64, 256, 2, seed=0), cylstm.Linear(256, 8, seed=1)), 8
    )
    x, out = np.ones((8, 64), np.float32), np.empty((8, 8), np.float32)
    stream.step(x, out=out)
    assert peak_of(lambda: stream.step(x, out=out)) < 8 * 256 * 4 / 2  # half of one state


@pytest.mark.parametrize("direction", [name for name in DIRECTIONS if name != "forward"])
@pytest.mark.parametrize("cell", LAYERS)
def test_layers_that_need_the_end_first_are_refused(cell, direction):
    model = cylstm.Sequential(make(cell, 3, 4, **DIRECTIONS[direction]))
    with pytest.raises(ValueError, match="model: expected layers that read forward only"):
        cylstm.Stream(model)


def test_wrong_arguments_are_named():
    stream = cylstm.Stream(cylstm.LSTM(3, 4), batch_size=2)
    with pytest.raises(ValueError, match=r"x: expected \(2, 3\), got \(3,\)"):
        stream.step(np.zeros(3))
    with pytest.raises(ValueError, match=r"x: expected \(T, 2, 3\), got \(5, 1, 3\)"):
        stream.run(np.zeros((5, 1, 3)))
    with pytest.raises(ValueError, match="out: expected an array"):
        stream.step(np.zeros((2, 3)), out=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="batch_size: expected a positive int"):
        cylstm.Stream(cylstm.LSTM(3, 4), batch_size=0)
    with pytest.raises(TypeError, match="model: expected a cylstm layer"):
        cylstm.Stream("LSTM")


CHAIN = {
    "one layer": lambda **kw: cylstm.LSTM(3, 20, seed=0, **kw),
    "stack": lambda **kw: cylstm.GRU(3, 32, 3, seed=0, **kw),
    "projection": lambda **kw: cylstm.LSTM(3, 20, 2, proj_size=5, seed=0, **kw),
    "model": lambda **kw: cylstm.Sequential(
        cylstm.Linear(3, 40, seed=2, **kw), cylstm.LSTM(40, 32, 2, seed=0, **kw),
        cylstm.RNN(32, 9, seed=3, **kw), cylstm.Linear(9, 70, seed=1, **kw),
    ),
}  # fmt: skip


@pytest.mark.parametrize("B", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chain", CHAIN)
def test_the_short_way_of_a_step_gives_the_bits_of_the_long_one(rng, chain, dtype, B):
    model = CHAIN[chain](dtype=dtype)
    x = rng.standard_normal((8, B, 3)).astype(dtype)
    short, long = cylstm.Stream(model, B), cylstm.Stream(model, B)
    for x_t in x:
        np.testing.assert_array_equal(short.step(x_t), long.run(x_t[None])[0])
    assert (short._steps is None) == (isa.path() == "blas")


def test_step_follows_changes_between_calls(rng):
    layer = cylstm.LSTM(3, 8, zoneout=0.1, seed=0)
    x = rng.standard_normal((12, 1, 3)).astype("f")
    stream, other = cylstm.Stream(layer), cylstm.Stream(layer)
    other_state = for_caller(problem(rng, layer, 1, 1)[1])
    changes = {
        2: lambda: layer.load_state_dict({k: v * 0.5 for k, v in layer.state_dict().items()}),
        4: lambda: setattr(layer, "clip", 0.1),
        5: lambda: setattr(layer, "zoneout", 0.7),
        6: lambda: [setattr(s, "state", other_state) for s in (stream, other)],
        8: lambda: [s.reset() for s in (stream, other)],
        9: lambda: cylstm.Sequential(layer, cylstm.Linear(8, 2, seed=0)),  # moves the parameters
        10: lambda: [s.run(x[:3]) for s in (stream, other)],
    }
    for t, x_t in enumerate(x):
        changes.get(t, lambda: None)()
        np.testing.assert_array_equal(stream.step(x_t), other.run(x_t[None])[0], err_msg=str(t))


def test_step_accepts_valid_and_rejects_invalid_input(rng):
    layer = cylstm.LSTM(4, 4, seed=0)
    stream, other = cylstm.Stream(layer, 2), cylstm.Stream(layer, 2)
    x = rng.standard_normal((4, 2)).astype("f")
    stream.step(x[:2].repeat(2, 1)), other.step(x[:2].repeat(2, 1))
    wide = np.zeros((2, 8), "f")
    wide[:, ::2] = x.T
    for given in (x.T, x.T.astype(float), x.T.tolist(), x.T.astype(">f4"), wide[:, ::2]):
        np.testing.assert_array_equal(stream.step(given), other.run(x.T[None].copy())[0])
    both = x.T.copy()
    np.testing.assert_array_equal(stream.step(both, out=both), other.run(x.T[None].copy())[0])
    for wrong in (np.zeros((1, 4), "f"), np.zeros(4, "f"), np.zeros((2, 3), "f"), np.zeros((1, 2, 4), "f")):
        with pytest.raises(ValueError, match="x: expected"):
            stream.step(wrong)
    fixed = np.zeros((2, 4), "f")
    fixed.flags.writeable = False
    for out in (np.zeros((2, 3), "f"), np.zeros((2, 4)), fixed):
        with pytest.raises((ValueError, TypeError), match="out: expected"):
            stream.step(both, out=out)
    np.testing.assert_array_equal(stream.state, other.state)


def test_a_stream_of_indices(rng):
    model = cylstm.Sequential(cylstm.Embedding(5, 3, seed=0), cylstm.GRU(3, 4, seed=1))
    x = rng.integers(0, 5, (6, 2))
    expected, _ = model(x)
    stream = cylstm.Stream(model, batch_size=2)
    np.testing.assert_allclose([stream.step(x_t) for x_t in x], expected, rtol=1e-5, atol=1e-7)
    stream.reset()
    np.testing.assert_allclose(stream.run(x), expected, rtol=1e-5, atol=1e-7)
    single = cylstm.Stream(model)
    np.testing.assert_allclose([single.step(i) for i in x[:, 0]], expected[:, 0], rtol=1e-5, atol=1e-7)
    with pytest.raises(TypeError, match="x: expected ints"):
        single.step(0.5)
    with pytest.raises(ValueError, match="pooling, attention or masked steps"):
        cylstm.Stream(cylstm.Pooling(features=3))


def test_some_rows_step_while_the_others_stay(rng):
    """Thousands of streams: each has the bits of its own, whoever steps beside it."""
    model = CHAIN["model"](dtype="float32")
    session, n = cylstm.Session(model), 700
    stream = cylstm.Stream(session, n)
    lines = rng.standard_normal((6, n, 3)).astype("f")
    done = np.zeros(n, int)
    results = np.zeros((6, n, 70), "f")
    while done.min() < 6:
        some = rng.permutation(np.flatnonzero(done < 6))
        some = some[: rng.integers(1, len(some) + 1)]
        out = np.empty((len(some), 70), "f")
        y = stream.step(lines[done[some], some], rows=some, out=out)
        assert y is out
        results[done[some], some] = y
        done[some] += 1
    expected, final = model(lines)
    if isa.path() == "packed":
        np.testing.assert_array_equal(results, expected)
        np.testing.assert_array_equal(stream.state[1][0], final[1][0])
    np.testing.assert_allclose(results, expected, rtol=1e-4, atol=1e-5)


def test_rows_may_be_given_in_any_way(rng):
    layer = cylstm.GRU(3, 4, seed=0)
    stream, other = cylstm.Stream(layer, 5), cylstm.Stream(layer, 5)
    x = rng.standard_normal((5, 3))
    mask = np.array([True, False, True, True, False])
    for rows in ([4, 0], slice(1, 4), mask, [-1, 2], np.array([3]), []):
        chosen = np.arange(5)[rows]
        before = other.state
        y = stream.step(x[chosen].tolist() or np.zeros((0, 3)), rows=rows)
        expected = other.step(x)
        np.testing.assert_allclose(y, expected[chosen], rtol=1e-5, atol=1e-7)
        state = before.copy()
        state[:, chosen] = other.state[:, chosen]
        other.state = state
        np.testing.assert_allclose(stream.state, state, rtol=1e-5, atol=1e-7)
    wide = np.zeros((2, 8), "f")
    stream.step(x[:2], rows=[0, 1], out=wide[:, ::2])
    np.testing.assert_allclose(wide[:, ::2], other.step(x)[:2], rtol=1e-5, atol=1e-7)
    assert not wide[:, 1::2].any()
    assert stream.step(x[2], rows=2).shape == (4,)
    state = stream.state
    for rows, given, kind, message in (
        ([0, 0], x[:2], ValueError, r"rows: expected each row once, got \[0, 0\]"),
        ([0, -5], x[:2], ValueError, "rows: expected each row once"),
        ([5], x[:1], IndexError, "out of bounds"),
        ([0.5], x[:1], IndexError, "ints|integer"),
        ([0, 1], x[:3], ValueError, r"x: expected \(2, 3\), got \(3, 3\)"),
        (1, x[:1], ValueError, r"x: expected \(3,\), got \(1, 3\)"),
    ):
        with pytest.raises(kind, match=message):
            stream.step(given, rows=rows)
    np.testing.assert_array_equal(stream.state, state)


def test_rows_of_indices_and_of_models_without_a_short_way(rng):
    model = cylstm.Sequential(cylstm.Embedding(5, 3, seed=0), cylstm.Residual(cylstm.GRU(3, 3, seed=1)))
    stream, other = cylstm.Stream(model, 4), cylstm.Stream(model, 4)
    x = rng.integers(0, 5, 4)
    np.testing.assert_allclose(stream.step(x[[2, 0, 3]], rows=[2, 0, 3]), other.step(x)[[2, 0, 3]], rtol=1e-5)
    assert stream.step(x[1], rows=1).shape == (3,)
    with pytest.raises(ValueError, match=r"x: expected \(2,\), got \(3,\)"):
        stream.step(x[:3], rows=[0, 1])
    model = cylstm.Sequential(cylstm.Embedding(5, 3, fields=2, seed=0), cylstm.GRU(6, 3, seed=1))
    stream, x = cylstm.Stream(model, 4), rng.integers(0, 5, (4, 2))
    np.testing.assert_allclose(
        stream.step(x[[3, 1, 0]], rows=[3, 1, 0]), cylstm.Stream(model, 4).step(x)[[3, 1, 0]], rtol=1e-5
    )


def test_streams_join_and_leave(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    session = cylstm.Session(layer)
    stream = cylstm.Stream(session, 3)
    x = rng.standard_normal((5, 3)).astype("f")
    one, two, three = stream.join(), stream.join(), stream.join()
    assert sorted((one, two, three)) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="all 3 rows are in use"):
        stream.join()
    for x_t in x:
        stream.step(x_t, rows=two)
    stream.leave(two)
    with pytest.raises(ValueError, match="row: expected one returned by join, got 1"):
        stream.leave(two)
    again = stream.join()
    assert again == two
    np.testing.assert_array_equal(stream.step(x[0], rows=again), session.run(x[:1])[0][0])
    stream.leave(again)
    _, state = session.run(x[:3])
    resumed = stream.join(state)
    np.testing.assert_allclose(stream.step(x[3], rows=resumed), layer(x[:4])[0][3], rtol=1e-5, atol=1e-7)
    stream.leave(resumed)
    with pytest.raises(ValueError, match="state h: expected"):
        stream.join((np.zeros((1, 5)), np.zeros((1, 4))))
    assert stream.join() == resumed  # it was not lost
    with pytest.raises(ValueError, match="row: expected one returned by join, got 7"):
        stream.leave(7)


def test_streams_of_a_session_are_of_its_snapshot_and_its_cpus(rng):
    layer = cylstm.LSTM(3, 4, seed=0)
    session = cylstm.Session(layer, threads=1)
    x = rng.standard_normal((4, 1, 3)).astype("f")
    expected = layer(x)[0]
    stream = cylstm.Stream(session)
    assert stream.model is session
    layer.load_state_dict({k: v * 2 for k, v in layer.state_dict().items()})
    np.testing.assert_allclose([stream.step(x_t) for x_t in x], expected, rtol=1e-5, atol=1e-7)
    stream.reset()
    np.testing.assert_allclose(stream.run(x), expected, rtol=1e-5, atol=1e-7)
    for call in (stream.step, stream.run):
        with pytest.raises(ValueError, match="threads: expected None on a session"):
            call(x[0], threads=2)
    with pytest.raises(ValueError, match="pooling, attention or masked steps"):
        cylstm.Stream(cylstm.Session(cylstm.LSTM(3, 4, bidirectional=True)))


@pytest.mark.skipif(isa.path() == "blas", reason="BLAS's calls have temporaries")
def test_step_of_rows_allocations_are_independent_of_model_size(rng):
    H, n = 128, 300
    model = cylstm.Sequential(cylstm.LSTM(16, H, 2, seed=0), cylstm.Linear(H, 8, seed=1))
    stream = cylstm.Stream(cylstm.Session(model), n)
    x, out = np.ones((n, 16), "f"), np.empty((n, 8), "f")
    for k in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        stream.step(x[:k], rows=slice(k))
    for k in (300, 7, 129):
        rows = rng.permutation(n)[:k]
        step = lambda rows=rows, k=k: stream.step(x[:k], rows=rows, out=out[:k])  # noqa: E731
        assert peak_of(step) < 12_000 < H * n * 4 / 10


def test_a_step_of_some_rows_moves_all_of_them_or_none():
    model = cylstm.Sequential(cylstm.Embedding(9, 3, seed=0), cylstm.LSTM(3, 4, seed=1))
    stream = cylstm.Stream(model, 5)
    before = stream.state
    with pytest.raises(ValueError, match="x: expected indices from 0 to 8, got 1 to 99"):
        stream.step(np.array([1, 2, 99]), rows=[0, 1, 2])
    for array, kept in zip(stream.state[1], before[1], strict=True):
        np.testing.assert_array_equal(array, kept)


def test_step_of_rows_output_may_overlap_input(rng):
    layer, x = cylstm.LSTM(3, 3, seed=0), rng.standard_normal((3, 3)).astype(np.float32)
    expected = cylstm.Stream(layer, 4).step(x, rows=[0, 1, 2])
    buffer = np.zeros((4, 3), np.float32)
    buffer[:3] = x
    y = cylstm.Stream(layer, 4).step(buffer[:3], rows=[0, 1, 2], out=buffer[1:])
    np.testing.assert_array_equal(y, expected)


def test_a_layer_without_a_state_takes_none():
    stream = cylstm.Stream(cylstm.Linear(3, 2, seed=0))
    stream.state = stream.state
    with pytest.raises(ValueError, match="state: expected None for a layer without one, got str"):
        stream.state = "nonsense"
    with pytest.raises(ValueError, match="state: expected None for a layer without one, got str"):
        stream.join("nonsense")
    assert stream.join() == 0


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("of", [lambda model: model, cylstm.Session])
def test_a_copy_of_a_stream_has_its_own_state(duplicate, of, rng):
    model = cylstm.Sequential(cylstm.LSTM(3, 4, seed=0), cylstm.Linear(4, 2, seed=1))
    model.scalers["x"] = cylstm.data.StandardScaler().fit(np.eye(3))
    with pytest.warns(cylstm.data.ScalersWarning):  # and a copy does not warn again
        stream = cylstm.Stream(of(model), 3)
    x = rng.standard_normal((6, 3, 3)).astype(np.float32)
    row = stream.join()
    for x_t in x[:3]:
        stream.step(x_t)
    other = duplicate(stream)
    ours = [stream.step(x_t) for x_t in x[3:]]
    np.testing.assert_array_equal([other.step(x_t) for x_t in x[3:]], ours)
    assert other.join() != row
    other.leave(row)
    assert stream.join() != row


def test_a_bool_is_no_row():
    stream = cylstm.Stream(cylstm.LSTM(3, 4, seed=0), 3)
    with pytest.raises(
        TypeError, match="rows: expected an index, a list of them, a slice or a mask, got True"
    ):
        stream.step(np.ones((1, 3, 3)), rows=True)
    with pytest.raises(TypeError, match="rows: expected an index"):
        stream.reset(np.True_)
