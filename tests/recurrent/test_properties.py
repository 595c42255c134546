"""What has to hold for every recurrent layer, whatever it computes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import DIRECTIONS, GRID, LAYERS, for_caller, make, options_of, parts_of, problem

import cylstm
from cylstm import data
from cylstm.layers.base import describe
from cylstm.sequences.packing import Packing

LENGTHS = [None, [3, 7, 1, 7, 0], [3, 6, 1, 5, 0]]


def gradients(layer):
    return {name: value.copy() for name, value in layer.gradients.items()}


def limits_of(cell):
    return tolerances.float64(1.0, tolerances.amplification(cell))


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_permuting_the_batch_permutes_the_result(rng, cell, direction, lengths):
    layer = make(cell, 3, 5, 2, dtype="float64", seed=0, **DIRECTIONS[direction]).train()
    x, state, dy, dstate = problem(rng, layer, 7, 5)
    order = np.array([3, 0, 4, 2, 1])
    y, final = layer(x, for_caller(state), lengths=lengths)
    dx, initial = layer.backward(dy, for_caller(dstate))
    first = gradients(layer)
    layer.zero_grad()
    permuted = None if lengths is None else np.array(lengths)[order]
    y_2, final_2 = layer(x[:, order], for_caller([s[:, order] for s in state]), lengths=permuted)
    dx_2, initial_2 = layer.backward(dy[:, order], for_caller([s[:, order] for s in dstate]))
    limits = limits_of(cell)
    pairs = [(y, y_2), (dx, dx_2), *zip(parts_of(final), parts_of(final_2), strict=True)]
    pairs += zip(parts_of(initial), parts_of(initial_2), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(theirs, ours[:, order], **limits)
    for name, value in layer.gradients.items():
        np.testing.assert_allclose(value, first[name], rtol=limits["rtol"], atol=100 * limits["atol"])


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_reverse_of_reverse_is_forward(rng, cell, lengths):
    forward = make(cell, 3, 5, 2, dtype="float64", seed=0).train()
    reverse = make(cell, 3, 5, 2, dtype="float64", seed=0, reverse=True).train()
    x, state, dy, dstate = problem(rng, forward, 7, 5)
    ends = [7] * 5 if lengths is None else lengths

    def turned(sequences):
        result = np.zeros_like(sequences)
        for b, n in enumerate(ends):
            result[:n, b] = sequences[:n, b][::-1]
        return result

    y, final = forward(x, for_caller(state), lengths=lengths)
    y_2, final_2 = reverse(turned(x), for_caller(state), lengths=lengths)
    np.testing.assert_array_equal(turned(y_2), y)
    np.testing.assert_array_equal(final_2, final)
    dx, _ = forward.backward(dy, for_caller(dstate))
    dx_2, _ = reverse.backward(turned(dy), for_caller(dstate))
    np.testing.assert_array_equal(turned(dx_2), dx)
    for name, value in forward.gradients.items():
        np.testing.assert_array_equal(reverse.gradients[name], value)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_bidirectional_equals_forward_and_reversed_layer(rng, cell, lengths):
    both = make(cell, 3, 5, dtype="float64", seed=0, bidirectional=True)
    x, state, *_ = problem(rng, both, 7, 5)
    y, final = both(x, for_caller(state), lengths=lengths)
    for d, reverse in enumerate((False, True)):
        one = make(cell, 3, 5, dtype="float64", reverse=reverse)
        end = "_reverse" if d else ""
        one.load_state_dict({name: both.parameters[name + end] for name in one.parameters})
        y_one, final_one = one(x, for_caller([s[d : d + 1] for s in state]), lengths=lengths)
        np.testing.assert_allclose(y[:, :, d * 5 : d * 5 + 5], y_one, **tolerances.FLOAT64)
        for ours, theirs in zip(parts_of(final), parts_of(final_one), strict=True):
            np.testing.assert_allclose(ours[d : d + 1], theirs, **tolerances.FLOAT64)


@pytest.mark.parametrize("cell, option", GRID)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chunks_and_streams_equal_whole_sequence(rng, cell, option, dtype):
    layer = make(cell, 3, 9, 2, dtype=dtype, seed=0, **options_of(option))
    x, limits = rng.standard_normal((9, 4, 3)), limits_of(cell)
    if dtype == "float32":
        limits = tolerances.float32(12, 18, tolerances.amplification(cell))
    y, final = layer(x)
    state, pieces, stream = None, [], cylstm.Stream(layer, batch_size=4)
    for piece in (x[:4], x[4:5], x[5:5], x[5:]):
        out, state = layer(piece, state)
        pieces.append(out)
    np.testing.assert_allclose(np.concatenate(pieces), y, **limits)
    np.testing.assert_allclose([stream.step(x_t) for x_t in x], y, **limits)
    for parts in (state, stream.state):
        for ours, theirs in zip(parts_of(parts), parts_of(final), strict=True):
            np.testing.assert_allclose(ours, theirs, **limits)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_packed_sequences_are_those_of_a_padded_batch(rng, direction):
    lengths, dtype = [3, 7, 1, 0], "float64"
    recurrent = make("lstm", 3, 5, 2, dtype=dtype, seed=0, batch_first=True, **DIRECTIONS[direction])
    model = cylstm.Sequential(
        cylstm.Linear(3, 3, dtype=dtype, seed=1),
        recurrent,
        cylstm.Linear(recurrent.output_size, 2, dtype=dtype, seed=2),
    ).train()
    x, dy = rng.standard_normal((4, 7, 3)), rng.standard_normal((4, 7, 2))
    y, state = model(x, lengths=lengths)
    dx, initial = model.backward(dy)
    first = gradients(model)
    model.zero_grad()

    y_2, state_2 = model(data.pack([x[b, :n] for b, n in enumerate(lengths)]))
    dx_2, initial_2 = model.backward(data.pack([dy[b, :n] for b, n in enumerate(lengths)]))
    np.testing.assert_array_equal(state_2[1], state[1])
    np.testing.assert_array_equal(initial_2[1], initial[1])
    for packed, padded in ((y_2, y), (dx_2, dx)):
        for b, part in enumerate(data.unpack(packed)):
            np.testing.assert_array_equal(part, padded[b, : lengths[b]])
    for name, value in model.gradients.items():
        np.testing.assert_array_equal(value, first[name])


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8), features=st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_unpack_inverts_pack(lengths, features):
    sequences = [np.arange(n * features).reshape(n, features) + 100 * b for b, n in enumerate(lengths)]
    packed = data.pack(sequences)
    assert packed.lengths.tolist() == lengths
    for ours, theirs in zip(data.unpack(packed), sequences, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_packed_sequences_that_do_not_fit_are_refused(rng):
    layer = cylstm.LSTM(3, 4).train()
    packed = data.pack([np.zeros((2, 3)), np.zeros((4, 3))])
    with pytest.raises(ValueError, match="sequences: expected at least one, got none"):
        data.pack([])
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected \(T, 3\), got \(4, 2\)"):
        data.pack([np.zeros((2, 3)), np.zeros((4, 2))])
    with pytest.raises(ValueError, match=r"sequences\[0\]: expected \(T, .*\), got \(3,\)"):
        data.pack([np.zeros(3)])
    with pytest.raises(TypeError, match=r"packed: expected what cylstm.data.pack returns, got ndarray"):
        data.unpack(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="lengths: expected None with packed sequences"):
        layer(packed, lengths=[2, 4])
    with pytest.raises(ValueError, match="out: expected None with packed sequences"):
        layer(packed, out=np.zeros((6, 4), np.float32))
    with pytest.raises(ValueError, match=r"x: packed rows: expected \(1, 3\), got \(1, 2\)"):
        layer(data.pack([np.zeros((1, 2))]))
    layer(packed)
    with pytest.raises(TypeError, match="dy: expected packed sequences, as y is, got ndarray"):
        layer.backward(np.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"dy: expected the lengths of y, \[2 4\], got \[3 3\]"):
        layer.backward(data.pack([np.zeros((3, 4)), np.zeros((3, 4))]))
    with pytest.raises(ValueError, match=r"dy: expected \(6, 4\), got \(6, 3\)"):
        layer.backward(packed)
    layer(np.zeros((4, 2, 3)))
    with pytest.raises(TypeError, match="dy: expected an array, as y is, got PackedSequences"):
        layer.backward(data.pack([np.zeros((4, 4)), np.zeros((4, 4))]))


def test_lengths_are_copied(rng):
    for lengths in ([4, 4], [2, 4]):
        packed = data.pack([np.ones((n, 3)) for n in lengths])
        with pytest.raises(ValueError, match="read-only"):
            packed.lengths[...] -= 1
        for array in (packed.packing.rows, packed.packing.order):
            assert array is None or not array.flags.writeable


@pytest.mark.parametrize("lengths", [[-1, 2], [5, 1], [1.5, 2.5], [1]])
def test_a_packing_of_impossible_lengths_is_refused(lengths):
    with pytest.raises(ValueError, match="lengths: expected"):
        Packing(4, 2, np.array(lengths))
    assert Packing(3, 2, np.array([0, 3], np.uint8)).N == 3


def test_packings_made_by_hand_are_checked():
    layer = cylstm.GRU(3, 4)
    with pytest.raises(
        TypeError, match=r"x: expected what cylstm\.data\.pack returns, got NoneType as its packing"
    ):
        layer(data.PackedSequences(np.zeros((4, 3)), None))
    with pytest.raises(ValueError, match=r"x: packed rows: expected \(6, 3\), got \(5, 3\)"):
        layer(data.PackedSequences(np.zeros((5, 3)), Packing(3, 2)))
    for other in (cylstm.Linear(3, 2), cylstm.Stream(layer, 2).run):
        with pytest.raises(TypeError, match="x: expected an array, got PackedSequences; pass its rows"):
            other(data.pack([np.zeros((2, 3))] * 2))


def test_a_loss_of_packed_rows_trains(rng):
    model = cylstm.Sequential(cylstm.GRU(3, 4, seed=0), cylstm.Linear(4, 3, seed=1)).train()
    packed = data.pack([rng.standard_normal((n, 3)) for n in (5, 2, 0)])
    loss, adam, values = cylstm.losses.MSE(), cylstm.optim.Adam(0.02), []
    for _ in range(60):
        y, _ = model(packed)
        value, dy = loss(y.rows, packed.rows)
        model.zero_grad()
        model.backward(data.PackedSequences(dy, y.packing), need_dx=False)
        adam.step(model)
        values.append(value)
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_is_not_even_converted(rng, dtype, batch_first):
    layer = make("gru", 3, 5, seed=0, batch_first=batch_first)
    x = (100 * rng.standard_normal((4, 6, 3))).astype(dtype)
    lengths = np.array([4, 2, 0, 5])
    clean = layer(x if batch_first else x.swapaxes(0, 1), lengths=lengths)[0]
    for b, n in enumerate(lengths):
        x[b, n:] = 1e18 if dtype == "int64" else 1e30 if dtype == "float32" else 1e300
    with np.errstate(all="raise"):
        y = layer(x if batch_first else x.swapaxes(0, 1), lengths=lengths)[0]
    np.testing.assert_array_equal(y, clean)


@pytest.mark.parametrize("option, value", [("zoneout", 0.5), ("clip", 0.01), ("zoneout_cell", 0.5)])
def test_an_option_that_is_changed_counts_from_the_next_call(rng, option, value):
    changed, fresh = make("lstm", 3, 5, seed=0), make("lstm", 3, 5, seed=0, **{option: value})
    x = rng.standard_normal((6, 4, 3))
    changed(x)
    setattr(changed, option, value)
    np.testing.assert_array_equal(changed(x)[0], fresh(x)[0])


@pytest.mark.parametrize("cell, option", GRID)
def test_a_call_does_not_depend_on_the_one_before(rng, cell, option):
    used, fresh = (make(cell, 3, 9, 2, seed=0, **options_of(option)) for _ in range(2))
    x = rng.standard_normal((6, 4, 3))
    used(rng.standard_normal((30, 7, 3)), lengths=[30, 2, 5, 0, 1, 9, 9])
    used(np.full((2, 9, 3), np.nan))
    for lengths in (None, [6, 2, 0, 5]):
        np.testing.assert_array_equal(used(x, lengths=lengths)[0], fresh(x, lengths=lengths)[0])


SOAK = """
import numpy as np, resource
import cylstm
from problems import make, options_of

rng = np.random.default_rng(0)
layers = [
    make("lstm", 3, 8, 2, seed=0, **{**options_of("all"), "bidirectional": True}),
    make("lstm_norm", 3, 8, seed=0), make("gru_reset_before", 3, 8, seed=0, reverse=True),
    make("gru", 3, 8, 2, seed=0, recurrent_dropout=0.2),
]

def run(layer, T, B, lengths):
    x = np.zeros((T, B, 3), np.float32)
    y, _ = layer.train()(x, lengths=lengths)
    layer.backward(y)
    layer.eval()(x, lengths=lengths)

def allocations():
    workspaces = [w for layer in layers for w in (layer._training_workspace, *layer._spare)]
    return sum(w.arena.allocations for w in workspaces)

for layer in layers:
    run(layer, 60, 20, None)
warm, resident = allocations(), None
for call in range(2000):
    T, B = rng.integers(0, 61), rng.integers(0, 21)
    ragged = call % 2 == 0
    run(layers[call % 4], T, B, rng.integers(0, T + 1, B) if ragged else None)
    if call == 200:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(allocations() - warm, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident)
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs the module resource")
def test_thousands_of_shapes_in_random_order_keep_memory_flat():
    """In a process of its own, whose high-water mark of memory (KiB) is that of these calls."""
    folder = str(Path(__file__).parents[1] / "helpers")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r})\n{SOAK}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    more_allocations, growth = map(int, result.stdout.split())
    assert more_allocations == 0
    assert growth < 2000


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_only_real_steps_are_computed(rng, layers, direction):
    lengths = [27, 0, 13, 5]
    layer = make("lstm", 3, 4, layers, seed=0, **DIRECTIONS[direction])
    layer(np.zeros((30, 4, 3)), lengths=lengths)
    plan, buffers = (
        describe(layer).spare_workspaces[0].plan,
        describe(layer).spare_workspaces[0].buffers.arrays,
    )
    assert sum(lengths) == plan.N
    assert all(
        len(array) <= sum(lengths) + len(lengths) for name, array in buffers.items() if name[-2] == "_"
    )
