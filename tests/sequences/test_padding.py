"""Every layer and path, of sequences that are all shorter than the padding: it changes nothing."""

import numpy as np
import pytest
from loss_cases import CASES
from padding_models import MODELS, SHORT, F, T, V
from problems import LAYERS

import cylstm
from cylstm._engine import isa
from cylstm.layers.base import LAYER_TYPES, describe
from cylstm.layers.sequence_layer import SequenceLayer

LENGTHS = np.array([3, 0, 4, 2, 1])


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
        results.append((describe(model).store.data, history))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-12, atol=1e-15)
    assert results[1][1].steps.keys() == results[0][1].steps.keys()
    for name, expected in results[0][1].steps.items():
        np.testing.assert_allclose(results[1][1].steps[name], expected, rtol=1e-12)
    for found, expected in zip(results[1][1].epochs, results[0][1].epochs, strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
        assert 0 < found["rows"] <= (len(lengths) if case.loss == "CTC" else sum(lengths))
