"""Dropout between the layers of a stack."""

import numpy as np
import pytest
import tolerances
from problems import DIRECTIONS, LAYERS, for_caller, make, parts_of, problem

import cylstm
from cylstm.layers.base import describe
from cylstm.recurrent.cells import CELLS


def halves(stack):
    """The two layers of a stack, each alone, with its parameters."""
    parts = []
    for l, inputs in enumerate((stack.input_size, stack.output_size)):
        options = {
            key: value
            for key, value in stack.config.items()
            if key not in ("dropout", *LAYERS[stack.spec.name][1])
        }
        part = make(stack.spec.name, **{**options, "input_size": inputs, "num_layers": 1}).train()
        own = {name: value for name, value in stack.state_dict().items() if f"_l{l}" in name}
        part.load_state_dict({name.replace(f"_l{l}", "_l0"): value for name, value in own.items()})
        parts.append(part)
    return parts


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_two_layers_with_a_mask_between_forward_and_back(rng, cell, direction):
    stack = make(cell, 3, 5, 2, dropout=0.4, dtype="float64", seed=0, **DIRECTIONS[direction]).train()
    below, above = halves(stack)
    x, state, dy, dstate = problem(rng, stack, 6, 4)
    y, final = stack(x, for_caller(state))
    mask = describe(stack).training_workspace.buffers.arrays["mask0"].reshape(6, 4, -1)
    if direction == "reverse":
        mask = mask[::-1]
    dx, initial = stack.backward(dy, for_caller(dstate))

    D = stack.num_directions
    hidden, final_below = below(x, for_caller([s[:D] for s in state]))
    y_expected, final_above = above(hidden * mask, for_caller([s[D:] for s in state]))
    dhidden, initial_above = above.backward(dy, for_caller([s[D:] for s in dstate]))
    dx_expected, initial_below = below.backward(dhidden * mask, for_caller([s[:D] for s in dstate]))

    np.testing.assert_allclose(y, y_expected, **tolerances.FLOAT64)
    np.testing.assert_allclose(dx, dx_expected, **tolerances.FLOAT64)
    for ours, one, two in [(final, final_below, final_above), (initial, initial_below, initial_above)]:
        for part, a, b in zip(parts_of(ours), parts_of(one), parts_of(two), strict=True):
            np.testing.assert_allclose(part, np.concatenate([a, b]), **tolerances.FLOAT64)
    for l, part in enumerate((below, above)):
        for name, value in part.gradients.items():
            np.testing.assert_allclose(
                stack.gradients[name.replace("_l0", f"_l{l}")], value, **tolerances.FLOAT64
            )


def test_masks_drop_the_right_share_and_keep_the_mean():
    layer = cylstm.LSTM(3, 50, 3, dropout=0.3, seed=0).train()
    layer(np.zeros((40, 20, 3)))
    for name in ("mask0", "mask1"):
        mask = describe(layer).training_workspace.buffers.arrays[name]
        assert abs((mask == 0).mean() - 0.3) < 0.01
        assert abs(mask.mean() - 1) < 0.01
        np.testing.assert_array_equal(np.unique(mask), np.array([0, 1 / 0.7], np.float32))
    assert not np.array_equal(
        *(describe(layer).training_workspace.buffers.arrays[name] for name in ("mask0", "mask1"))
    )


def test_initialize_draws_new_values_unless_seeded(rng):
    x = rng.standard_normal((5, 2, 3))
    one, two = (cylstm.GRU(3, 8, 2, dropout=0.5, seed=4).train() for _ in range(2))
    first, second = one(x)[0], one(x)[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(two(x)[0], first)
    np.testing.assert_array_equal(two(x)[0], second)


def test_evaluation_drops_nothing(rng):
    x = rng.standard_normal((5, 2, 3))
    layer, plain = cylstm.LSTM(3, 8, 2, dropout=0.5, seed=4), cylstm.LSTM(3, 8, 2, seed=4)
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])
    np.testing.assert_array_equal(layer(x, lengths=[5, 2])[0], plain(x, lengths=[5, 2])[0])


def test_it_goes_through_a_file(tmp_path):
    cylstm.save(cylstm.LSTM(3, 8, 2, dropout=0.25), tmp_path / "m")
    assert cylstm.load(tmp_path / "m").dropout == 0.25


def test_a_copy_draws_the_same_masks(rng):
    import copy
    import pickle

    model = cylstm.Sequential(cylstm.LSTM(3, 8, 2, dropout=0.5), cylstm.Linear(8, 2)).train()
    x = rng.standard_normal((5, 2, 3))
    model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        kept = copy.deepcopy(model)
        np.testing.assert_array_equal(twin(x)[0], kept(x)[0])
