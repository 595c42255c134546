"""A model with a history computes what a new one with its parameters does, and what it has returned stays.

What a new model computes is for the tests against the reference.
"""

import copy
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm._engine import isa
from cylstm.recurrent import stack_buffers, workspace

SAME = {"dtype": "float64", "seed": 1}
I, H, V = 3, 16, 4  # whole vectors of units, so that y of an LSTM can be its hidden states


def linear(inputs=H, outputs=H):
    return cylstm.Linear(inputs, outputs, **SAME)


def lstm(inputs=H, layers=1, **options):
    return cylstm.LSTM(inputs, H, layers, **SAME, **options)


def gru(**options):
    return cylstm.GRU(I, H, **SAME, **options)


MODELS = {
    "lstm": lambda: [lstm(I)],
    "stack": lambda: [lstm(I, 2, bidirectional=True, dropout=0.2)],
    "options": lambda: [lstm(I, 2, proj_size=4, zoneout=0.2, peephole=True, learn_state=True)],
    "gru": lambda: [gru(num_layers=2, recurrent_dropout=0.2)],
    "linear above": lambda: [lstm(I), linear(H, 2)],
    "steps above": lambda: [
        lstm(I, 2), cylstm.LayerNorm(H, dtype="float64"), cylstm.Activation("gelu"),
        cylstm.Dropout(0.2, seed=1), lstm(),
    ],
    "in each other": lambda: [
        linear(I), cylstm.Residual(lstm()), cylstm.Sequential(linear()), cylstm.Residual(linear()), lstm(),
        cylstm.Activation("relu"),
    ],
    "pooled": lambda: [lstm(I), cylstm.Pooling("mean"), linear(H, 1)],
    "attention": lambda: [gru(), cylstm.MultiHeadAttention(H, 2, **SAME), lstm()],
    "indices": lambda: [cylstm.Embedding(V, I, **SAME), lstm(I, coupled=True), linear(H, V)],
}  # fmt: skip
# T and B grow and shrink, to one and to nothing, and come again; from T = 9 on, states have several spans.
SHAPES = [(20, 7), (20, 7), (9, 7), (20, 2), (1, 1), (0, 2), (5, 0)]
WHAT = ["train", "train", "train", "no backward", "evaluate", "stream", "session", "refused", "learn"]
CALLS = st.tuples(
    st.sampled_from(WHAT), st.sampled_from(SHAPES), st.booleans(), st.booleans(), st.integers(1, 3),
    st.integers(0, 99),
)  # fmt: skip


def build(name):
    layers = MODELS[name]()
    return layers[0] if len(layers) == 1 else cylstm.Sequential(*layers)


def arrays_of(value):
    """All arrays in nested tuples."""
    if isinstance(value, tuple):
        return [array for part in value for array in arrays_of(part)]
    return [] if value is None else [value]


class History:
    """A model, and what it has returned with what that was then."""

    def __init__(self, model):
        self.model, self.returned = model, []

    def same(self, results):
        """Of the model and a new one; the model's are kept, to be looked at again after every other call."""
        for ours, theirs in zip(*map(arrays_of, results), strict=True):
            if isa.path() == "packed":
                assert ours.tobytes() == theirs.tobytes(), np.abs(ours - theirs).max()
            else:
                np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
            self.returned.append((ours, ours.copy()))

    def call(self, what, shape, ragged, written, threads, seed):
        """One call of the model and of a copy, which begins without buffers."""
        (T, B), rng = shape, np.random.default_rng(seed)
        x = rng.integers(0, V, (T, B)) if self.model.reads_indices else rng.standard_normal((T, B, I))
        lengths = rng.integers(0, T + 1, B) if ragged else None
        models = self.model, copy.deepcopy(self.model)
        if what == "refused":
            with pytest.raises((ValueError, TypeError)):
                self.model(np.zeros((T, B, I + 1)))
        elif what == "learn":
            state = self.model.state_dict()
            self.model.load_state_dict({n: v + 0.1 * rng.standard_normal(v.shape) for n, v in state.items()})
        elif what == "stream":
            if self.model.causal and B:
                streams = [cylstm.Stream(model, batch_size=B) for model in models]
                for step in x:
                    self.same([stream.step(step) for stream in streams])
        elif what == "session":
            self.same([cylstm.Session(model).run(x, lengths=lengths) for model in models])
        elif what == "evaluate":
            self.same([model.eval()(x, lengths=lengths, threads=threads) for model in models])
        else:
            results = [model.train()(x, lengths=lengths, threads=threads) for model in models]
            self.same(results)
            if what == "train":
                self.go_back(models, [y for y, _ in results], rng, written, threads)
        for array, then in self.returned:
            np.testing.assert_array_equal(array, then)

    def go_back(self, models, y, rng, written, threads):
        """Both backward passes, of the model perhaps after y, which is the caller's, was written to."""
        if written:
            self.returned = [(array, then) for array, then in self.returned if array is not y[0]]
            y[0].fill(np.nan)
        dy = rng.standard_normal(y[0].shape)
        for model in models:
            model.zero_grad()
        self.same([model.backward(dy, threads=threads) for model in models])
        self.same([tuple(gradient.copy() for gradient in model.gradients.values()) for model in models])


def states(again):
    """LSTMs train with states that are computed again, however short the sequences, or never."""
    return mock.patch.multiple(stack_buffers, MIN_SEGMENTS=1 if again else 1 << 30, MIN_STATE_BYTES=0)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None)
@given(calls=st.lists(CALLS, min_size=4, max_size=12))
def test_model_has_no_hidden_state_between_calls(name, again, calls):
    history = History(build(name))
    with states(again):
        for call in calls:
            history.call(*call)


@pytest.mark.skipif(isa.path() != "packed", reason="only the packed path gives y away")
def test_a_result_that_is_written_over_would_be_seen():
    history, call = History(build("lstm")), ("train", (20, 7), False, False, 1)
    with states(True), mock.patch.object(workspace.Workspace, "donate_output", return_value=True):
        history.call(*call, 0)
        with pytest.raises(AssertionError):
            history.call(*call, 1)
