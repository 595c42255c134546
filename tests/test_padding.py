"""Every layer and path, of sequences that are all shorter than the padding: it changes nothing."""

import numpy as np
import pytest
from loss_cases import CASES
from problems import DIRECTIONS, GRID, LAYERS, make, options_of

import cylstm
from cylstm._engine import isa
from cylstm.layers.base import LAYER_TYPES
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.recurrent.activated import ActivatedGRU, ActivatedLSTM, ActivatedRNN

LENGTHS = np.array([3, 0, 4, 2, 1])
SHORT, T, F, V = 4, 9, 6, 5  # the longest sequence, the padded steps, features, ids
MODELS = {
    "Linear": lambda: cylstm.Linear(F, 3, seed=0),
    "Embedding": lambda: cylstm.Embedding(V, F, seed=0),
    "Embedding fields": lambda: cylstm.Embedding(V, F, fields=2, seed=0),
    "LayerNorm": lambda: cylstm.LayerNorm(F),
    "Residual": lambda: cylstm.Residual(cylstm.GRU(F, F, seed=0)),
    "Activation": lambda: cylstm.Activation("softmax", features=F),
    "Dropout": lambda: cylstm.Dropout(0.4, features=F, seed=0),
    "MultiHeadAttention": lambda: cylstm.MultiHeadAttention(F, 2, seed=0),
    "MultiHeadAttention last": lambda: cylstm.MultiHeadAttention(F, 2, query="last", seed=0),
    "MultiHeadAttention causal": lambda: cylstm.MultiHeadAttention(F, 2, causal=True, seed=0),
    "MultiplicativeAttention": lambda: cylstm.MultiplicativeAttention(F, seed=0),
    "MultiplicativeAttention last": lambda: cylstm.MultiplicativeAttention(F, query="last", seed=0),
    "AdditiveAttention": lambda: cylstm.AdditiveAttention(F, 3, seed=0),
    "AdditiveAttention last": lambda: cylstm.AdditiveAttention(F, 3, query="last", seed=0),
    "ActivatedLSTM": lambda: ActivatedLSTM(F, 4, "hard_sigmoid;tanh;tanh", seed=0),
    "ActivatedGRU": lambda: ActivatedGRU(F, 4, "hard_sigmoid;tanh", seed=0),
    "ActivatedRNN": lambda: ActivatedRNN(F, 4, "elu(0.5)", seed=0, reverse=True),
    "Masked": lambda: cylstm.Masked(cylstm.LSTM(F, 4, seed=0), cylstm.Linear(4, 3, seed=1)),
    "Masked ids": lambda: cylstm.Masked(
        cylstm.Embedding(V, F, seed=0), cylstm.GRU(F, 4, seed=1), cylstm.Pooling("mean")
    ),
    "Sequential": lambda: cylstm.Sequential(
        cylstm.Embedding(V, F, seed=0),
        cylstm.LSTM(F, 4, 2, dropout=0.3, bidirectional=True, seed=1),
        cylstm.Pooling("ends"),
        cylstm.Linear(8, 3, seed=2),
    ),
}
MODELS |= {
    f"Pooling {how}": lambda how=how: cylstm.Pooling(how, features=F)
    for how in ("last", "mean", "max", "ends")
}
MODELS |= {
    f"{cell} {option} {direction}": lambda cell=cell, option=option, direction=direction: make(
        cell, F, 4, 2, seed=0, **options_of(option), **DIRECTIONS[direction]
    )
    for cell, option in GRID
    for direction in DIRECTIONS
    if option in ("none", "all", "learn_state", "dropout", "zoneout")
}


def test_every_layer_has_a_model():
    ours = {name for name, kind in LAYER_TYPES.items() if kind.__module__.startswith("cylstm.")}
    assert {type(make_model()).__name__ for make_model in MODELS.values()} >= ours
    assert len(LAYERS) * 3 <= len(MODELS)


def padded(array, T, value):
    """An array (SHORT, B, ...) with steps up to T that hold the value, as the steps after each length do."""
    result = np.full((T, *array.shape[1:]), value, array.dtype)
    for b, n in enumerate(LENGTHS):
        result[:n, b] = array[:n, b]
    return result


def inputs(rng, model):
    if not model.reads_indices:
        return rng.standard_normal((SHORT, len(LENGTHS), F)).astype(np.float32), np.nan
    shape = (SHORT, len(LENGTHS), *([model.input_size] if model.input_size > 1 else []))
    return rng.integers(0, V, shape), 10**6


def arrays_of(state):
    if isinstance(state, tuple):
        return [array for part in state for array in arrays_of(part)]
    return [] if state is None else [state]


def results_of(model, x, steps, value, dy):
    """Outputs, gradients and states of training, if that is possible, of evaluation and of a session."""
    given = padded(x, steps, value)
    results = {}
    if not name_of(model).startswith("Activated"):
        y, state = model.train()(given, lengths=LENGTHS)
        model.zero_grad()
        dx, dstate = model.backward(dy if model.pools else padded(dy, steps, np.nan))
        results = {"y": y} | ({} if dx is None else {"dx": dx}) | model.gradients
        results |= {
            f"{name}{i}": a for name, s in (("n", state), ("0", dstate)) for i, a in enumerate(arrays_of(s))
        }
    results["evaluated"] = model.eval()(given, lengths=LENGTHS)[0]
    results["session"] = cylstm.Session(model).run(given, lengths=LENGTHS)[0]
    for name in {"y", "dx", "evaluated", "session"} & set(results):
        if name == "dx" or not model.pools:
            assert not results[name][SHORT:].any()
            results[name] = results[name][:SHORT]
    return results


def name_of(model):
    return type(model.layers[0] if isinstance(model, cylstm.Sequential) else model).__name__


@pytest.mark.parametrize("path", ["packed", "blas"])
@pytest.mark.parametrize("name", MODELS)
def test_padding_beyond_every_sequence_changes_nothing(rng, monkeypatch, name, path):
    """On the packed path to the bit, but for attention, whose products are over all steps."""
    if path == "blas":
        monkeypatch.setattr(isa, "path", lambda: "blas")
    elif isa.path() != "packed":
        pytest.skip("CYLSTM_PATH=blas: the packed path is not to be used")

    def model():
        layer = MODELS[name]()
        return layer if isinstance(layer, SequenceLayer) else cylstm.Sequential(layer)

    x, value = inputs(rng, model())
    y, _ = model()(padded(x, SHORT, value), lengths=LENGTHS)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    short, long = (results_of(model(), x, steps, value, dy) for steps in (SHORT, T))
    assert long.keys() == short.keys()
    atol = 2e-6 if "Attention" in name or path == "blas" else 0.0
    for key, expected in short.items():
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(long[key], expected, rtol=0, atol=atol, err_msg=key)


class PaddedTo(cylstm.data.Arrays):
    """Ragged samples in order, with minibatches that are padded to so many steps."""

    T = SHORT

    def _plan(self, rng):
        return super()._plan(None)

    def _batch(self, part):
        batch = super()._batch(part)
        rest = self.T - len(batch.x)
        x = np.concatenate([batch.x, np.full((rest, *batch.x.shape[1:]), np.nan)])
        target = batch.target
        if isinstance(target, np.ndarray) and self.per_step:
            target = np.concatenate([target, np.zeros((rest, *target.shape[1:]), target.dtype)])
        return batch._replace(x=x, target=target)


@pytest.mark.parametrize(
    "batch_first, options",
    [(False, {"accumulate": 2}), (True, {"segments": 2}), (False, {"truncate": 2})],
    ids=str,
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_does_not_see_padding_beyond_every_sequence(rng, case, options, batch_first):
    lengths = [4, 1, 3, 2, 2, 3, 1]
    if "truncate" in options and case.loss == "CTC":
        pytest.skip("CTC needs whole sequences")
    x, target = [rng.standard_normal((n, 3)) for n in lengths], case.target(rng, max(lengths), lengths)
    if not isinstance(target, list):
        target = [target[:n, b] for b, n in enumerate(lengths)]
    results = []
    for steps in (SHORT, T):
        lstm = cylstm.LSTM(3, 4, 2, dropout=0.2, seed=0, dtype="float64", batch_first=batch_first)
        model = cylstm.Sequential(lstm, cylstm.Linear(4, case.outputs, seed=1, dtype="float64"))
        trainer = cylstm.Trainer(model, case.make(batch_first=batch_first), cylstm.optim.SGD(0.3), **options)
        source = PaddedTo(x, target, 3, target_per="sequence" if case.loss == "CTC" else "step")
        source.T = steps
        history = trainer.fit(source, source, epochs=2, metrics={"rows": lambda y, _: len(y)}, progress=False)
        for record in history.epochs:
            del record["seconds"]
        results.append((model._store.data, history))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-12, atol=1e-15)
    assert results[1][1].steps.keys() == results[0][1].steps.keys()
    for name, expected in results[0][1].steps.items():
        np.testing.assert_allclose(results[1][1].steps[name], expected, rtol=1e-12)
    for found, expected in zip(results[1][1].epochs, results[0][1].epochs, strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
        assert 0 < found["rows"] <= (len(lengths) if case.loss == "CTC" else sum(lengths))
