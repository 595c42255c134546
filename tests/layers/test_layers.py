"""Layers around the recurrent ones, all that are registered: reference, differences and PyTorch agree."""

import copy
import functools

import numpy as np
import pytest
import tolerances
from differences import gradient

import cylstm
from cylstm.layers.base import LAYER_TYPES, describe
from cylstm.recurrent.base import RecurrentLayer
from cylstm.reference import layers as reference

F, V, LENGTHS, T = 6, 5, np.array([4, 0, 7, 1, 3]), 8  # no sequence is as long as the padding


def attended(layer, p, x):
    """The reference of an attention layer."""
    if len(x) == 0:
        return np.zeros((0, F))
    first = len(x) - 1 if layer.pools else 0
    kind, queries, causal = type(layer).__name__, x[first:], layer.attends_before
    if kind == "MultiHeadAttention":
        return reference.multi_head_attention(queries, x, p, layer.heads, first, causal)
    score = {
        "MultiplicativeAttention": reference.multiplicative_scores,
        "AdditiveAttention": reference.additive_scores,
    }[kind]
    return reference.attention(score(queries, x, *p.values()), x, first, causal)


def attended_by_torch(layer, p, x, torch):
    causal, first = layer.attends_before, len(x) - 1 if layer.pools else 0
    q, kind = x[first:], type(layer).__name__
    seen = torch.arange(len(x)) > first + torch.arange(len(q))[:, None]
    if kind == "MultiHeadAttention":
        return torch.nn.functional.multi_head_attention_forward(
            q[:, None], x[:, None], x[:, None], F, layer.heads, p["in_proj_weight"], p["in_proj_bias"], None,
            None, False, 0.0, p["out_proj.weight"], p["out_proj.bias"], attn_mask=seen if causal else None,
        )[0][:, 0]  # fmt: skip
    if kind == "AdditiveAttention":
        hidden = q @ p["query_weight"].T + p["bias"]
        e = torch.tanh(hidden[:, None] + x @ p["key_weight"].T) @ p["score"][0]
    else:
        e = q @ p["weight"] @ x.T
    return torch.softmax(e.masked_fill(seen, -np.inf) if causal else e, -1) @ x


def with_residual(layer, p, x):
    return x + x @ p["0.weight"].T + p["0.bias"]


# For each: how to make it, its reference and its definition in PyTorch, from parameters and one sequence.
CASES = {
    "Linear": (
        lambda **o: cylstm.Linear(F, 3, **o),
        lambda layer, p, x: x @ p["weight"].T + p["bias"],
        lambda layer, p, x, torch: torch.nn.functional.linear(x, p["weight"], p["bias"]),
    ),
    "Embedding": (
        lambda **o: cylstm.Embedding(V, 3, **o),
        lambda layer, p, x: reference.embedding(x, p["weight"]),
        lambda layer, p, x, torch: torch.nn.functional.embedding(x, p["weight"]),
    ),
    "LayerNorm": (
        lambda dtype, seed: cylstm.LayerNorm(F, 1e-3, dtype=dtype),
        lambda layer, p, x: reference.layer_norm(x, *p.values(), layer.eps),
        lambda layer, p, x, torch: torch.nn.functional.layer_norm(x, (F,), *p.values(), layer.eps),
    ),
    "Residual": (
        lambda **o: cylstm.Residual(cylstm.Linear(F, F, **o)),
        with_residual,
        lambda layer, p, x, torch: with_residual(layer, p, x),
    ),
    "Dropout": (
        lambda **o: cylstm.Dropout(0.0, features=F, **o),
        lambda layer, p, x: x,
        lambda layer, p, x, torch: x,
    ),
    "Sequential": (
        lambda **o: cylstm.Sequential(cylstm.Linear(F, 3, **o), cylstm.Dropout(0.0), cylstm.Pooling("mean")),
        lambda layer, p, x: reference.pooling(x @ p["0.weight"].T + p["0.bias"], "mean"),
        lambda layer, p, x, torch: (x @ p["0.weight"].T + p["0.bias"]).mean(0) if len(x) else torch.zeros(3),
    ),
}
for how in ("last", "mean", "max", "ends"):
    CASES[f"Pooling {how}"] = (
        lambda dtype, seed, how=how: cylstm.Pooling(how, features=F, dtype=dtype),
        lambda layer, p, x: reference.pooling(x, layer.how),
        lambda layer, p, x, torch: (
            {
                "last": lambda: x[-1],
                "mean": lambda: x.mean(0),
                "max": lambda: x.max(0).values,
                "ends": lambda: torch.cat([x[-1, : F // 2], x[0, F // 2 :]]),
            }[layer.how]()
            if len(x)
            else torch.zeros(F)
        ),
    )
ACTIVATIONS = {  # alpha and beta, and PyTorch's definition
    "relu": ((), lambda F, x: F.relu(x)),
    "tanh": ((), lambda F, x: x.tanh()),
    "sigmoid": ((), lambda F, x: x.sigmoid()),
    "softmax": ((), lambda F, x: F.softmax(x, -1)),
    "log_softmax": ((), lambda F, x: F.log_softmax(x, -1)),
    "leaky_relu": ((0.3,), lambda F, x: F.leaky_relu(x, 0.3)),
    "elu": ((0.7,), lambda F, x: F.elu(x, 0.7)),
    "selu": ((), lambda F, x: F.selu(x)),
    "gelu": ((), lambda F, x: F.gelu(x)),
    "silu": ((), lambda F, x: F.silu(x)),
    "softplus": ((), lambda F, x: F.softplus(x)),
    "softsign": ((), lambda F, x: F.softsign(x)),
    "hard_sigmoid": ((0.3, 0.4), lambda F, x: (0.3 * x + 0.4).clamp(0, 1)),
    "affine": ((1.5, -0.3), lambda F, x: 1.5 * x - 0.3),
    "scaled_tanh": ((1.7, 0.6), lambda F, x: 1.7 * (0.6 * x).tanh()),
    "thresholded_relu": ((0.4,), lambda F, x: F.threshold(x, 0.4, 0)),
}
for kind, (values, by_torch) in ACTIVATIONS.items():
    CASES[f"Activation {kind}"] = (
        lambda dtype, seed, kind=kind, values=values: cylstm.Activation(
            kind, *values, features=F, dtype=dtype
        ),
        lambda layer, p, x: reference.activation(x, layer.kind, layer.alpha, layer.beta),
        lambda layer, p, x, torch, by_torch=by_torch: by_torch(torch.nn.functional, x),
    )
for kind, sizes in {
    "MultiplicativeAttention": (F,),
    "AdditiveAttention": (F, 4),
    "MultiHeadAttention": (F, 3),
}.items():
    causal, last = {"causal": True}, {"query": "last"}
    for name, options in {
        "": {},
        " causal": causal,
        " last": last,
    }.items():  # both: a warning
        make = functools.partial(getattr(cylstm, kind), *sizes, **options)
        CASES[kind + name] = (make, attended, attended_by_torch)


KINKED = [f"Activation {kind}" for kind in ("relu", "leaky_relu", "hard_sigmoid", "thresholded_relu")]
NO_PARAMETERS = ("Dropout", "Pooling", "Activation")


def test_every_layer_has_a_case():
    ours = {
        name
        for name, kind in LAYER_TYPES.items()
        if kind.__module__.startswith("cylstm.") and not issubclass(kind, RecurrentLayer)
    }
    assert {name.split()[0] for name in CASES} == ours - {"Masked"}  # which test_masked.py tests


def made(name, rng, dtype="float64"):
    """The layer, alone in a model, with parameters that are all random; x and dy for a ragged batch."""
    model = cylstm.Sequential(CASES[name][0](dtype=dtype, seed=0)).train()
    model.load_state_dict({k: v + rng.normal(0, 0.3, v.shape) for k, v in model.state_dict().items()})
    if model.reads_indices:
        x = rng.integers(0, V, (T, len(LENGTHS)))
    else:
        x = rng.standard_normal((T, len(LENGTHS), F)).astype(dtype)
    y, _ = model(x, lengths=LENGTHS)
    return model, x, rng.standard_normal(y.shape).astype(dtype)


def parameters(model):
    return {key[2:]: value for key, value in model.parameters.items()}


def results(model, y):
    """y of every sequence that has steps, alone."""
    return [(b, y[b] if model.pools else y[:n, b]) for b, n in enumerate(LENGTHS) if n]


def weighted_sum(model, x, lengths, dy):
    """A loss whose gradient is dy, after parameters may have been written to behind the model's back."""
    with describe(model).store.writing():
        pass
    return float((model(x, lengths=lengths)[0] * dy).sum())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(rng, name, dtype):
    model, x, _ = made(name, rng, dtype)
    if not model.reads_indices:
        x = x.copy()
        for b, n in enumerate(LENGTHS):
            x[n:, b] = np.nan  # padding has no influence
    y, state = model(x, lengths=LENGTHS)
    p = {key: value.astype(float) for key, value in parameters(model).items()}
    limits = tolerances.float64(5, 10) if dtype == "float64" else tolerances.float32(2 * F, T, 5)
    for b, value in results(model, y):
        wide = x[: LENGTHS[b], b].astype(int if model.reads_indices else float)
        expected = CASES[name][1](model.layers[0], p, wide)
        np.testing.assert_allclose(value, np.reshape(expected, value.shape), **limits)
    assert not y[LENGTHS == 0].any() if model.pools else not y[5:, 0].any()
    assert y.dtype == dtype
    assert len(state) == 1


@pytest.mark.parametrize("name", ["Activation softmax", *(name for name in CASES if "Attention" in name)])
def test_huge_scores_overflow_nowhere(rng, name):
    model, x, _ = made(name, rng)
    if model.parameters:
        model.load_state_dict({key: 30 * value for key, value in model.state_dict().items()})
    x *= 30 if model.parameters else 1000
    y, _ = model(x, lengths=LENGTHS)
    for b, value in results(model, y):
        expected = CASES[name][1](model.layers[0], parameters(model), x[: LENGTHS[b], b])
        np.testing.assert_allclose(value, np.reshape(expected, value.shape), rtol=1e-9, atol=1e-300)


def test_activation_thresholds_are_exclusive():
    layer, x = cylstm.Activation("thresholded_relu", 0.5, features=3, dtype="float64"), [[0.5, 0.6, -0.5]]
    np.testing.assert_array_equal(layer(x), [[0.0, 0.6, 0.0]])
    np.testing.assert_array_equal(reference.activation(np.array(x), layer.kind, 0.5), [[0.0, 0.6, 0.0]])


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_differences(rng, name):
    model, x, dy = made(name, rng)

    def loss():
        return weighted_sum(model, x, LENGTHS, dy)

    real = np.arange(T)[:, None] < LENGTHS
    if not model.pools:
        dy = dy * real[..., None]
    loss()
    model.zero_grad()
    dx, _ = model.backward(dy)
    for key, view in describe(model).store.views(describe(model).store.data).items():
        np.testing.assert_allclose(model.gradients[key], gradient(loss, view), rtol=5e-6, atol=1e-9)
    if model.reads_indices:
        assert dx is None
        return
    assert not dx[~real].any()
    step, limits = tolerances.differences("rnn_relu") if name in KINKED else (1e-3, tolerances.DIFFERENCES)
    np.testing.assert_allclose(dx, gradient(loss, x, step), **{**limits, "atol": max(limits["atol"], 1e-9)})


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(rng, torch, name):
    model, x, dy = made(name, rng)
    y, _ = model(x, lengths=LENGTHS)
    model.zero_grad()
    dx, _ = model.backward(dy)
    p = {key: torch.tensor(value, requires_grad=True) for key, value in parameters(model).items()}
    x_torch = torch.tensor(x, requires_grad=not model.reads_indices)
    for b, value in results(model, y):
        theirs = CASES[name][2](model.layers[0], p, x_torch[: LENGTHS[b], b], torch).reshape(value.shape)
        np.testing.assert_allclose(value, theirs.detach().numpy(), **tolerances.TORCH)
        (theirs * torch.tensor(dy[b] if model.pools else dy[: LENGTHS[b], b])).sum().backward(
            retain_graph=True
        )
    for key, value in p.items():
        np.testing.assert_allclose(model.gradients[f"0.{key}"], value.grad.numpy(), **tolerances.TORCH)
    if dx is not None:
        np.testing.assert_allclose(dx, x_torch.grad.numpy(), **tolerances.TORCH)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name.split()[0] not in NO_PARAMETERS])
def test_ten_steps_of_training_follow_torch(rng, torch, name):
    """Every layer that has parameters, by descent with momentum on a squared error."""
    model, x, wanted = made(name, rng)
    p = {key: torch.tensor(value.copy(), requires_grad=True) for key, value in parameters(model).items()}
    sgd, sgd_torch = cylstm.optim.SGD(0.002, momentum=0.9), torch.optim.SGD(p.values(), 0.002, momentum=0.9)
    start, x_torch = describe(model).store.data.copy(), torch.tensor(x)
    for _ in range(10):
        y, _ = model(x, lengths=LENGTHS)
        model.zero_grad()
        model.backward(y - wanted)
        sgd.step(model)
        sgd_torch.zero_grad()
        for b, value in results(model, y):
            theirs = CASES[name][2](model.layers[0], p, x_torch[: LENGTHS[b], b], torch).reshape(value.shape)
            target = torch.tensor(wanted[b] if model.pools else wanted[: LENGTHS[b], b])
            (0.5 * (theirs - target) ** 2).sum().backward()
        sgd_torch.step()
    assert np.abs(describe(model).store.data - start).max() > 0.003
    for key, value in p.items():
        np.testing.assert_allclose(
            model.parameters[f"0.{key}"], value.detach().numpy(), **tolerances.TRAJECTORY
        )


@pytest.mark.parametrize("name", CASES)
def test_forms_of_a_call(rng, name, tmp_path):
    """One sequence, packed sequences, copies and files give what the batch gives."""
    model, x, _ = made(name, rng)
    model.eval()
    y, _ = model(x, lengths=LENGTHS)
    alone, _ = model(x[:4, 0])
    np.testing.assert_allclose(alone, dict(results(model, y))[0], rtol=1e-12, atol=1e-14)
    parts = [x[:n, b].reshape(n, model.input_size) for b, n in enumerate(LENGTHS)]
    packed, _ = model(cylstm.data.pack(parts))
    if model.pools:
        np.testing.assert_allclose(packed, y, rtol=1e-12, atol=1e-14)
    else:
        for b, value in results(model, y):
            np.testing.assert_allclose(cylstm.data.unpack(packed)[b], value, rtol=1e-12, atol=1e-14)
    cylstm.save(model, tmp_path / "m.safetensors")
    for other in (copy.deepcopy(model), cylstm.load(tmp_path / "m.safetensors")):
        np.testing.assert_array_equal(other(x, lengths=LENGTHS)[0], y)
        assert repr(other) == repr(model)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (1, 1)])
def test_empty_batch(rng, name, shape):
    model, _, _ = made(name, rng)
    x = np.zeros(shape if model.reads_indices else (*shape, F), int if model.reads_indices else float)
    y, _ = model(x)
    assert y.shape == ((shape[1],) if model.pools else shape) + (model.output_size,)
    dx, _ = model.backward(np.zeros_like(y))
    assert np.isfinite(y).all()
    assert not describe(model).store.grad.any()
    assert (dx is None) if model.reads_indices else dx.shape == x.shape


def test_layers_in_the_middle_of_a_model(rng):
    """Gradients through embedding, residual stacks, norm and attention of one model."""
    model = cylstm.Sequential(
        cylstm.Embedding(V, 4, dtype="float64", seed=0),
        cylstm.Residual(
            cylstm.LayerNorm(4, dtype="float64"),
            cylstm.LSTM(4, 4, bidirectional=False, batch_first=True, dtype="float64", seed=1),
        ),
        cylstm.MultiHeadAttention(4, 2, dtype="float64", seed=2),
        cylstm.Pooling("max"),
        cylstm.Linear(4, 3, dtype="float64", seed=3),
    ).train()
    x, lengths = rng.integers(0, V, (5, T)), LENGTHS
    y, state = model(x, lengths=lengths)
    dy = rng.standard_normal(y.shape)
    assert y.shape == (5, 3)
    assert state[1][1][0].shape == (1, 5, 4)

    def loss():
        return weighted_sum(model, x, lengths, dy)

    model.zero_grad()
    assert model.backward(dy)[0] is None
    for key, view in describe(model).store.views(describe(model).store.data).items():
        np.testing.assert_allclose(model.gradients[key], gradient(loss, view, 1e-4), rtol=1e-5, atol=1e-8)


def test_dropout_scales_outputs_and_gradient(rng):
    layer = cylstm.Dropout(0.25, seed=1).train()
    x = np.ones((1000, 8), np.float32)
    y = layer(x)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(layer.backward(x), y)
    assert not np.array_equal(layer(x), y)
    np.testing.assert_array_equal(layer.eval()(x), x)
    first, second = copy.deepcopy(layer.train()), copy.deepcopy(layer)
    np.testing.assert_array_equal(first(x), second(x))


def test_embedding_rejects_invalid_indices():
    model = cylstm.Sequential(cylstm.Embedding(3, 2), cylstm.GRU(2, 2))
    with pytest.raises(ValueError, match=r"x: expected indices from 0 to 2, got 0 to 3"):
        model([[0], [3]])
    with pytest.raises(ValueError, match=r"x: expected indices from 0 to 2, got -1 to 1"):
        model([[-1], [1]])
    with pytest.raises(TypeError, match="x: expected ints"):
        model([[0.5]])
    with pytest.raises(ValueError, match=r"x: expected indices, \(T, B\) or \(T,\)"):
        model(np.zeros((2, 2, 2), int))
    with pytest.raises(ValueError, match="layer 1: expected an Embedding to be the first layer"):
        cylstm.Sequential(cylstm.Linear(2, 1), cylstm.Embedding(3, 2))


def test_embedding_fields_are_concatenated(rng):
    K, lengths = 3, [5, 2]
    x = rng.integers(0, V, (5, 2, K))
    several = cylstm.Sequential(
        cylstm.Embedding(V, 4, fields=K, dtype="float64", seed=0),
        cylstm.GRU(4 * K, 2, dtype="float64", seed=1),
    ).train()
    single = cylstm.Embedding(V, 4, dtype="float64", seed=0).train()
    gru = cylstm.GRU(4 * K, 2, dtype="float64", seed=1).train()
    y, _ = several(x, lengths=lengths)
    expected, _ = gru(single(x).reshape(5, 2, 4 * K), lengths=lengths)
    np.testing.assert_array_equal(y, expected)
    dy = rng.standard_normal(y.shape)
    several.backward(dy)
    single.backward(gru.backward(dy)[0].reshape(5, 2, K, 4))
    np.testing.assert_allclose(several.gradients["0.weight"], single.gradients["weight"], rtol=1e-12)
    stream = cylstm.Stream(several.eval(), batch_size=2)
    np.testing.assert_array_equal([stream.step(step) for step in x[:2]], y[:2])
    np.testing.assert_array_equal(several.layers[0](x[0]), single.eval()(x[0]).reshape(2, -1))
    with pytest.raises(ValueError, match=r"x: expected \(T, B, 3\) or \(T, 3\), got \(5, 2\)"):
        several(x[..., 0])


def test_an_embeddings_gradient_touches_only_the_rows_used(rng):
    model = cylstm.Sequential(cylstm.Linear(3, 4), cylstm.Linear(4, 3))
    assert describe(model).store.active_ranges().tolist() == [[0, describe(model).store.size]]
    model = cylstm.Sequential(cylstm.Embedding(100, 4), cylstm.Linear(4, 3)).train()
    y, _ = model([[3], [4], [50]])
    model.backward(np.ones_like(y))
    assert describe(model).store.active_ranges().tolist() == [[12, 20], [200, 204], [400, 415]]
    assert model.gradients["0.weight"].any(axis=1).nonzero()[0].tolist() == [3, 4, 50]
    model.zero_grad()
    assert not describe(model).store.grad.any()
    assert describe(model).store.active_ranges().tolist() == [[400, 415]]


def test_sizes_follow_from_the_layer_before():
    model = cylstm.Sequential(cylstm.GRU(2, 5, dtype="float64"), cylstm.Dropout(0.1), cylstm.Pooling())
    assert (model.output_size, model.dtype) == (5, np.float64)
    with pytest.raises(
        ValueError, match="layer 0: expected a first layer with an input size; pass features="
    ):
        cylstm.Sequential(cylstm.Dropout(0.1), cylstm.Linear(2, 1))
    with pytest.raises(ValueError, match="as many outputs as inputs"):
        cylstm.Residual(cylstm.Linear(2, 1))
    with pytest.raises(ValueError, match="how: expected one of last, mean, max, ends, got 'min'"):
        cylstm.Pooling("min")
    with pytest.raises(ValueError, match=r"features: expected two directions of the same size .*, got 5"):
        cylstm.Sequential(cylstm.GRU(2, 5), cylstm.Pooling("ends"))
    with pytest.raises(ValueError, match=r"kind: expected one of relu, .*, got 'swish'"):
        cylstm.Activation("swish")
    with pytest.raises(ValueError, match=r"alpha: expected None, tanh has no such parameter, got 0\.5"):
        cylstm.Activation("tanh", 0.5)


def test_attention_weights_are_those_of_real_steps(rng):
    layer = cylstm.MultiHeadAttention(F, 2, causal=True, seed=0)
    a = layer.weights(rng.standard_normal((T, len(LENGTHS), F)), lengths=LENGTHS)
    assert a.shape == (len(LENGTHS), 2, T, T)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(a[b, :, :n].sum(axis=-1), 1, rtol=1e-5)
        assert not a[b, :, :, n:].any()
        assert not a[b, :, n:].any()
        assert not np.triu(a[b, :, :n, :n], 1).any()
    last = cylstm.MultiHeadAttention(F, 2, query="last", seed=0)
    a = last.weights(rng.standard_normal((T, len(LENGTHS), F)), lengths=LENGTHS)
    assert a.shape == (len(LENGTHS), 2, 1, T)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(a[b].sum(axis=-1), n > 0, rtol=1e-5)
        assert not a[b, :, :, n:].any()
