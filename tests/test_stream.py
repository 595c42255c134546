import numpy as np
import pytest
import tolerances
from problems import DIRECTIONS, LAYERS, make, parts_of
from test_memory import peak_of

import cylstm
from cylstm.cells import CELLS


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


def test_some_streams_begin_anew_while_others_go_on(rng):
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


def test_a_step_allocates_nothing_that_grows_with_the_model():
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
