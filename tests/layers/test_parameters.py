import copy
import itertools
import pickle

import numpy as np
import pytest

import cylstm
from cylstm.layers.base import describe


def model():
    return cylstm.Sequential(cylstm.LSTM(2, 3, 2, seed=0), cylstm.Linear(3, 4, seed=1))


def test_names_and_shapes_are_those_of_torch(torch):
    theirs = torch.nn.Sequential(torch.nn.LSTM(2, 3, 2), torch.nn.Linear(3, 4)).state_dict()
    assert [(name, tuple(value.shape)) for name, value in theirs.items()] == [
        (name, value.shape) for name, value in model().parameters.items()
    ]


def test_layer_parameters_are_slices_of_flat_vector():
    ours = model()
    for name, view in ours.parameters.items():
        position, _, own = name.partition(".")
        assert np.shares_memory(view, describe(ours).store.data)
        assert np.shares_memory(view, ours.layers[int(position)].parameters[own])
        assert np.shares_memory(ours.gradients[name], ours.layers[int(position)].gradients[own])
    assert describe(ours).store.data.size == sum(view.size for view in ours.parameters.values())


def test_parameters_are_read_only_and_writing_is_counted():
    ours = model()
    with pytest.raises(ValueError, match="read-only"):
        ours.parameters["1.bias"][0] = 1
    before = describe(ours.layers[0]).store.version
    ours.load_state_dict(ours.state_dict())
    cylstm.optim.SGD(0.1).step(ours)
    assert describe(ours.layers[0]).store.version == before + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.bias": None}, r"state: missing \['1.bias'\], not in this model \[\]"),
        ({"1.scale": np.zeros(4)}, r"not in this model \['1.scale'\]"),
        ({"1.bias": np.zeros(5)}, r"1.bias: expected shape \(4,\), got \(5,\)"),
        ({"1.bias": np.zeros(4, complex)}, "1.bias: expected real numbers, got dtype complex128"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    ours = model()
    before = ours.state_dict()
    state = {name: np.zeros_like(value) for name, value in before.items()} | change
    with pytest.raises((ValueError, TypeError), match=message):
        ours.load_state_dict({name: value for name, value in state.items() if value is not None})
    for name, value in before.items():
        np.testing.assert_array_equal(ours.parameters[name], value)


def test_a_state_of_the_models_own_views_is_taken_as_it_was():
    layer = cylstm.LSTM(4, 4, bias=False, seed=0)
    before, views = layer.state_dict(), layer.parameters
    layer.load_state_dict({"weight_ih_l0": views["weight_hh_l0"], "weight_hh_l0": views["weight_ih_l0"]})
    np.testing.assert_array_equal(layer.parameters["weight_ih_l0"], before["weight_hh_l0"])
    np.testing.assert_array_equal(layer.parameters["weight_hh_l0"], before["weight_ih_l0"])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal_and_apart(duplicate, rng):
    ours = model()
    twin = duplicate(ours)
    x = rng.standard_normal((5, 2, 2))
    np.testing.assert_array_equal(ours(x)[0], twin(x)[0])
    twin.train()(x)
    twin.backward(np.ones((5, 2, 4)))
    cylstm.optim.SGD(0.1).step(twin)
    assert not np.array_equal(describe(ours).store.data, describe(twin).store.data)
    assert not np.array_equal(ours(x)[0], twin.eval()(x)[0])


def test_seeds_decide_the_parameters():
    same, other = cylstm.LSTM(2, 3, seed=0), cylstm.LSTM(2, 3, seed=1)
    np.testing.assert_array_equal(
        model().layers[0].parameters["weight_ih_l0"], cylstm.LSTM(2, 3, 2, seed=0).parameters["weight_ih_l0"]
    )
    assert not np.array_equal(describe(same).store.data, describe(other).store.data)
    assert not np.array_equal(describe(cylstm.LSTM(2, 3)).store.data, describe(cylstm.LSTM(2, 3)).store.data)
    large = describe(cylstm.LSTM(30, 100, seed=0)).store.data
    assert np.abs(large).max() <= 0.1
    assert abs(large.std() - 0.1 / 3**0.5) < 1e-3


def foreign(array):
    """The same numbers in memory that is read-only and of the other order of bytes."""
    other = array.astype(array.dtype.newbyteorder())
    other.flags.writeable = False
    return other


def test_load_state_dict_copies_foreign_arrays():
    model = cylstm.Sequential(cylstm.LSTM(3, 5, seed=0), cylstm.Linear(5, 2, seed=1))
    expected, values = model.state_dict(), {k: foreign(v) for k, v in model.state_dict().items()}
    other = cylstm.Sequential(cylstm.LSTM(3, 5), cylstm.Linear(5, 2))
    other.load_state_dict(values)
    for name, view in other.parameters.items():
        np.testing.assert_array_equal(view, expected[name])
        assert not np.shares_memory(view, values[name])
        assert view.dtype.isnative


def memory_mapped(value, folder):
    """The value from a pickle whose arrays are mapped and read-only, as with joblib's mmap_mode="r"."""
    buffers = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    path = folder / "buffers"
    path.write_bytes(b"".join(buffer.raw() for buffer in buffers))
    mapped = np.memmap(path, mode="r") if buffers else None
    ends = list(itertools.accumulate((buffer.raw().nbytes for buffer in buffers), initial=0))
    return pickle.loads(pickled, buffers=[mapped[a:b] for a, b in itertools.pairwise(ends)])


@pytest.mark.parametrize("copied", ["mapped", "shallow"])
@pytest.mark.parametrize(
    "optimizer", [cylstm.optim.SGD(0.1, 0.9), cylstm.optim.RMSprop(0.1), cylstm.optim.AdamW(0.1)], ids=repr
)
def test_optimizer_of_a_mapped_pickle_or_copy_has_its_own_state(optimizer, copied, tmp_path):
    def step(model, optimizer):
        describe(model).store.grad[...] = 0.5
        optimizer.step(model)

    model = cylstm.LSTM(3, 5, seed=0)
    optimizer = copy.deepcopy(optimizer)
    step(model, optimizer)
    if copied == "mapped":
        model_2, optimizer_2 = memory_mapped((model, optimizer), tmp_path)
    else:
        model_2, optimizer_2 = copy.copy(model), copy.copy(optimizer)
    step(model_2, optimizer_2)
    step(model, optimizer)  # from its own state, which the step of the copy did not touch
    for name, view in model.parameters.items():
        np.testing.assert_array_equal(view, model_2.parameters[name])


def test_optimizer_takes_a_foreign_state():
    model, optimizer = cylstm.LSTM(3, 5, seed=0), cylstm.optim.Adam()
    describe(model).store.grad[...] = 0.5
    optimizer.step(model)
    state = {k: foreign(v) if isinstance(v, np.ndarray) else v for k, v in optimizer.state_dict().items()}
    other = cylstm.optim.Adam()
    other.load_state_dict(state)
    other.step(model)
    optimizer.step(model)
    for name in ("m", "v"):
        np.testing.assert_array_equal(other.state_dict()[name], optimizer.state_dict()[name])


@pytest.mark.parametrize("units", [10**10, 10**20])
def test_layers_beyond_any_memory_are_refused(units):
    with pytest.raises(MemoryError, match=r"cannot allocate .* GiB of buffers"):
        cylstm.LSTM(3, units)
