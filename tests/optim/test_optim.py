import copy
import pickle

import numpy as np
import pytest
import tolerances

import cylstm
from cylstm import reference
from cylstm._engine import _optim, isa
from cylstm.layers.base import describe


def with_gradients(rng, dtype="float64"):
    model = cylstm.Sequential(
        cylstm.LSTM(3, 5, dtype=dtype, seed=0), cylstm.Linear(5, 2, dtype=dtype, seed=1)
    )
    describe(model).store.grad[...] = rng.standard_normal(describe(model).store.size)
    return model


# For each: ours, PyTorch's, and a step of the reference from parameters, gradient and a state, for step t.
OPTIMIZERS = {
    "SGD": (
        lambda: cylstm.optim.SGD(0.1, weight_decay=0.05),
        lambda torch, p: torch.optim.SGD(p, 0.1, weight_decay=0.05),
        lambda p, g, s, t: reference.sgd(p, g, *s, 0.1, weight_decay=0.05),
    ),
    "SGD momentum": (
        lambda: cylstm.optim.SGD(0.1, 0.8, weight_decay=0.05),
        lambda torch, p: torch.optim.SGD(p, 0.1, 0.8, weight_decay=0.05),
        lambda p, g, s, t: reference.sgd(p, g, *s, 0.1, 0.8, False, 0.05),
    ),
    "SGD nesterov": (
        lambda: cylstm.optim.SGD(0.1, 0.8, nesterov=True, weight_decay=0.05),
        lambda torch, p: torch.optim.SGD(p, 0.1, 0.8, nesterov=True, weight_decay=0.05),
        lambda p, g, s, t: reference.sgd(p, g, *s, 0.1, 0.8, True, 0.05),
    ),
    "RMSprop": (
        lambda: cylstm.optim.RMSprop(0.01, 0.9, 1e-6, weight_decay=0.05),
        lambda torch, p: torch.optim.RMSprop(p, 0.01, 0.9, 1e-6, weight_decay=0.05),
        lambda p, g, s, t: reference.rmsprop(p, g, *s, 0.01, 0.9, 1e-6, 0.05),
    ),
    "Adam": (
        lambda: cylstm.optim.Adam(0.01, (0.8, 0.95), 1e-6, 0.1),
        lambda torch, p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, 0.1),
        lambda p, g, s, t: reference.adam(p, g, *s, 0.01, 0.8, 0.95, 1e-6, 0.1, t),
    ),
    "AdamW": (
        lambda: cylstm.optim.AdamW(0.01, (0.8, 0.95), 1e-6, 0.1),
        lambda torch, p: torch.optim.AdamW(p, 0.01, (0.8, 0.95), 1e-6, 0.1),
        lambda p, g, s, t: reference.adamw(p, g, *s, 0.01, 0.8, 0.95, 1e-6, 0.1, t),
    ),
}


def subclasses(kind):
    return {kind} | {below for child in kind.__subclasses__() for below in subclasses(child)}


def test_every_optimizer_has_a_case():
    ours = {kind.__name__ for kind in subclasses(cylstm.optim.Optimizer) - {cylstm.optim.Optimizer}}
    assert {name.split()[0] for name in OPTIMIZERS} == ours


@pytest.mark.parametrize("isa_name", isa.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_agree_with_reference(rng, monkeypatch, name, dtype, isa_name):
    monkeypatch.setattr(isa, "selected", lambda: isa.NAMES.index(isa_name))
    model, optimizer = with_gradients(rng, dtype), OPTIMIZERS[name][0]()
    p, state = describe(model).store.data.astype(float), (0.0, 0.0) if name.startswith("Adam") else (0.0,)
    for t in range(1, 11):
        describe(model).store.grad[...] = rng.standard_normal(describe(model).store.size)
        p, *state = OPTIMIZERS[name][2](p, describe(model).store.grad.astype(float), state, t)
        optimizer.step(model)
    limits = tolerances.float64(1, 10) if dtype == "float64" else tolerances.float32(2, 10, 1.0)
    np.testing.assert_allclose(describe(model).store.data, p, **limits)


@pytest.mark.parametrize("isa_name", isa.available())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kind, planes, fifth",
    [("sgd", 2, 0), ("sgd", 3, 0), ("sgd", 3, 1), ("rmsprop", 3, 0.5), ("adam", 4, 0.5)],
)
def test_a_step_writes_within_its_spans(rng, kind, planes, fifth, dtype, isa_name):
    """The fifth coefficient of SGD says whether it looks ahead as Nesterov does (`optimizers.h`)."""
    spans, size, index = np.array([[1, 5], [7, 41]]), 45, isa.NAMES.index(isa_name)
    vectors = list(rng.random((planes, size)).astype(dtype))
    before, none = [vector.copy() for vector in vectors], np.empty(0, dtype)
    m, v = (none, vectors[2]) if kind == "rmsprop" else [*vectors[2:], none, none][:2]
    coefficients = np.full((2, _optim.COEFFICIENTS), 0.5)
    coefficients[:, 4] = fifth
    _optim.update(kind, *vectors[:2], m, v, spans, coefficients, index)
    within = np.r_[1:5, 7:41]
    for number, (now, then) in enumerate(zip(vectors, before, strict=True)):
        changed = np.isin(np.arange(size), within if number != 1 else [])
        np.testing.assert_array_equal(now != then, changed, f"vector {number}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_agree_with_torch(rng, torch, name):
    model, optimizer = with_gradients(rng), OPTIMIZERS[name][0]()
    theirs = torch.tensor(describe(model).store.data.copy(), requires_grad=True)
    optimizer_torch = OPTIMIZERS[name][1](torch, [theirs])
    for _ in range(10):
        describe(model).store.grad[...] = rng.standard_normal(describe(model).store.size)
        theirs.grad = torch.tensor(describe(model).store.grad.copy())
        optimizer.step(model)
        optimizer_torch.step()
    np.testing.assert_allclose(describe(model).store.data, theirs.detach().numpy(), **tolerances.TRAJECTORY)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_and_a_restored_one_go_on_alike(rng, name):
    model, optimizer = with_gradients(rng), OPTIMIZERS[name][0]()
    optimizer.step(model)
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), OPTIMIZERS[name][0]()]
    copies[2].load_state_dict(optimizer.state_dict())
    models = [copy.deepcopy(model) for _ in copies]
    gradient = rng.standard_normal(describe(model).store.size)
    for one, its in zip([optimizer, *copies], [model, *models], strict=True):
        describe(its).store.grad[...] = gradient
        one.step(its)
        one.step(its)
        np.testing.assert_array_equal(describe(its).store.data, describe(model).store.data)
        assert one.steps == 3
    restored = OPTIMIZERS[name][0]()
    with pytest.raises(ValueError, match="state: expected the vectors"):
        restored.load_state_dict(optimizer.state_dict() | {"x": np.zeros(3)})


def test_groups_have_their_own_rate_and_decay(rng, torch):
    model = with_gradients(rng)
    groups = {"1.weight": {"lr_scale": 0.1}, "*bias*": {"weight_decay": 0.0}}
    adam = cylstm.optim.AdamW(0.01, weight_decay=0.3, groups=groups)
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in model.state_dict().items()}
    theirs = torch.optim.AdamW(
        [
            {"params": [value], "lr": 0.001 if name == "1.weight" else 0.01}
            | ({"weight_decay": 0.0} if "bias" in name else {})
            for name, value in tensors.items()
        ],
        weight_decay=0.3,
    )
    for _ in range(10):
        describe(model).store.grad[...] = rng.standard_normal(describe(model).store.size)
        for name, value in tensors.items():
            value.grad = torch.tensor(model.gradients[name].copy())
        adam.step(model)
        theirs.step()
    for name, value in tensors.items():
        np.testing.assert_allclose(model.parameters[name], value.detach().numpy(), **tolerances.TRAJECTORY)
    with pytest.raises(ValueError, match=r"groups: expected patterns of \['weight'\], got \['x\*'\]"):
        cylstm.optim.SGD(0.1, groups={"x*": {}}).step(cylstm.Linear(1, 1, bias=False))
    with pytest.raises(ValueError, match=r"groups 'x': expected lr_scale and weight_decay, got lr"):
        cylstm.optim.SGD(0.1, groups={"x": {"lr": 1}})


def test_an_embedding_is_updated_where_it_was_read_only(rng, torch):
    """As torch.optim.SparseAdam, with what else is in the model as torch.optim.Adam."""
    model = cylstm.Sequential(
        cylstm.Embedding(9, 3, dtype="float64", seed=0), cylstm.Linear(3, 2, dtype="float64", seed=1)
    ).train()
    # SparseAdam adds eps before the correction of the root, so here is next to none.
    adam = cylstm.optim.Adam(0.01, eps=1e-30, groups={"1.bias": {"lr_scale": 0.5}})
    start = model.state_dict()["0.weight"]
    sparse = torch.nn.Embedding(9, 3, sparse=True, dtype=torch.float64, _weight=torch.tensor(start.copy()))
    dense = torch.nn.Linear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(model.state_dict()["1.weight"]))
        dense.bias.copy_(torch.tensor(model.state_dict()["1.bias"]))
    of_rows = torch.optim.SparseAdam(sparse.parameters(), 0.01, eps=1e-30)
    of_rest = torch.optim.Adam(
        [{"params": [dense.weight]}, {"params": [dense.bias], "lr": 0.005}], 0.01, eps=1e-30
    )
    for step in range(10):
        x, dy = rng.choice([1, 2, 7] if step % 2 else [2, 8], (4, 2)), rng.standard_normal((4, 2, 2))
        model(x)
        model.zero_grad()
        model.backward(dy)
        norm = cylstm.optim.clip_grad_norm(model, 1e9)
        np.testing.assert_allclose(norm, np.sqrt((describe(model).store.grad ** 2).sum()))
        adam.step(model)
        of_rows.zero_grad()
        of_rest.zero_grad()
        (dense(sparse(torch.tensor(x))) * torch.tensor(dy)).sum().backward()
        of_rows.step()
        of_rest.step()
    after = model.parameters["0.weight"]
    np.testing.assert_allclose(after, sparse.weight.detach().numpy(), **tolerances.TRAJECTORY)
    np.testing.assert_allclose(
        model.parameters["1.bias"], dense.bias.detach().numpy(), **tolerances.TRAJECTORY
    )
    np.testing.assert_array_equal(after[[0, 3, 4, 5, 6]], start[[0, 3, 4, 5, 6]])


def test_clipping_by_value(rng):
    model = with_gradients(rng)
    expected = np.clip(describe(model).store.grad, -0.5, 0.5)
    describe(model).store.grad[3] = expected[3] = np.nan
    cylstm.optim.clip_grad_value(model, 0.5)
    np.testing.assert_array_equal(describe(model).store.grad, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_clipping_agrees_with_reference(rng, dtype, max_norm):
    model = with_gradients(rng, dtype)
    expected, norm = reference.clip_by_norm(describe(model).store.grad.astype(float), max_norm)
    limits = tolerances.FLOAT64 if dtype == "float64" else {"rtol": 1e-6}
    np.testing.assert_allclose(cylstm.optim.clip_grad_norm(model, max_norm), norm, **limits)
    np.testing.assert_allclose(describe(model).store.grad, expected, **limits)


def test_clipping_leaves_a_norm_that_is_not_finite():
    layer = cylstm.Linear(2, 1, bias=False)
    layer.gradients["weight"][...] = [np.inf, 1]
    assert cylstm.optim.clip_grad_norm(layer, 1.0) == np.inf
    np.testing.assert_array_equal(layer.gradients["weight"], [[np.inf, 1]])


def test_ten_steps_of_adam_follow_torch(rng, torch):
    """The whole training step: forward, loss, backward, Adam with an L2 penalty."""
    lstm, linear = torch.nn.LSTM(3, 6, 2, dtype=torch.float64), torch.nn.Linear(6, 2, dtype=torch.float64)
    ours = cylstm.Sequential(
        cylstm.LSTM(3, 6, 2, dtype="float64"), cylstm.Linear(6, 2, dtype="float64")
    ).train()
    theirs = torch.nn.Sequential(lstm, linear)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    adam, loss = cylstm.optim.Adam(0.01, weight_decay=0.02), cylstm.losses.MSE()
    adam_torch = torch.optim.Adam(theirs.parameters(), 0.01, weight_decay=0.02)
    start = describe(ours).store.data.copy()
    for _ in range(10):
        x, target = rng.standard_normal((7, 4, 3)), rng.standard_normal((7, 4, 2))
        value_torch = torch.nn.functional.mse_loss(linear(lstm(torch.tensor(x))[0]), torch.tensor(target))
        adam_torch.zero_grad()
        value_torch.backward()
        adam_torch.step()
        y, _ = ours(x)
        value, dy = loss(y, target)
        ours.zero_grad()
        ours.backward(dy)
        adam.step(ours)
        np.testing.assert_allclose(value, value_torch.item(), **tolerances.TRAJECTORY)
    assert np.abs(describe(ours).store.data - start).max() > 0.05
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.parameters[name], value.numpy(), **tolerances.TRAJECTORY, err_msg=name
        )


def test_an_optimiser_is_for_one_model():
    adam = cylstm.optim.Adam()
    adam.step(cylstm.Linear(2, 1))
    with pytest.raises(ValueError, match="expected the model of the first step"):
        adam.step(cylstm.Linear(2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cylstm.optim.Adam(lr=-1), r"lr: expected a number in \[0, inf\), got -1"),
        (lambda: cylstm.optim.Adam(lr=float("nan")), "lr: expected a number"),
        (lambda: cylstm.optim.Adam(betas=(0.9, 1.0)), r"betas\[1\]: expected a number in \[0, 1\), got 1"),
        (lambda: cylstm.optim.SGD("fast"), "lr: expected a number, got 'fast'"),
        (lambda: cylstm.optim.clip_grad_norm(cylstm.Linear(1, 1), -1), "max_norm: expected"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_step_that_failed_is_none(rng):
    model, twin = with_gradients(rng), with_gradients(rng)
    describe(twin).store.grad[...] = describe(model).store.grad
    adam, other = cylstm.optim.Adam(), cylstm.optim.Adam()
    adam.lr = "fast"
    with pytest.raises(TypeError):
        adam.step(model)
    adam.lr = other.lr
    adam.step(model)
    other.step(twin)
    np.testing.assert_array_equal(describe(model).store.data, describe(twin).store.data)
