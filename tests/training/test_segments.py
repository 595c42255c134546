"""Gradient checkpointing over time: the same bits with less memory."""

import numpy as np
import pytest
from training_problems import pooled, tagged, tagger, trained

import cylstm
from cylstm import data, losses, optim
from cylstm.layers.base import describe


@pytest.mark.slow
@pytest.mark.parametrize("segments", ["auto", 1, 2, 5, 100])
@pytest.mark.parametrize("batch_first", [False, True])
def test_segments_give_the_same_bits(segments, batch_first):
    loss = losses.CrossEntropy(batch_first=batch_first)
    models = []
    for option in (None, segments):
        model = tagger(batch_first=batch_first)
        trainer = cylstm.Trainer(model, loss, optim.Adam(0.01), clip_norm=0.5, seed=0, segments=option)
        models.append((model, trainer.fit(tagged(), epochs=2, batch_size=8, progress=False)))
    (whole, history), (cut, history_cut) = models
    assert history.steps == history_cut.steps
    np.testing.assert_array_equal(describe(whole).store.data, describe(cut).store.data)


def test_segments_carry_the_state_of_a_stream_and_a_learned_one():
    ids = np.random.default_rng(0).integers(0, 4, 300)
    results = []
    for option in (None, "auto"):
        model = tagger(learn_state=True)
        _, history = trained(model, data.TokenStream(ids, 3, 16), segments=option)
        results.append((describe(model).store.data.copy(), history.steps))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_segments_reject_non_causal_models():
    loss = losses.MSE()
    for model in (pooled(), cylstm.LSTM(2, 3, bidirectional=True)):
        with pytest.raises(ValueError, match="segments: expected a model that can be split in time"):
            cylstm.Trainer(model, loss, segments=2)
    for options in (
        {"recurrent_dropout": 0.1},
        {"num_layers": 3, "dropout": 0.1},
        {"zoneout": 0.1, "zoneout_cell": 0.1},
    ):
        with pytest.raises(
            ValueError, match="segments: expected recurrent layers with at most one kind of mask"
        ):
            cylstm.Trainer(cylstm.LSTM(2, 3, **options), loss, segments=2)


def test_memory_is_that_of_one_segment():
    """For 400 steps in segments of 20, the workspaces of the recurrent layer are those of 20 steps."""
    sizes = {}
    rng = np.random.default_rng(0)
    for T, option in ((400, None), (400, "auto"), (20, None)):
        model = cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 1, seed=1))
        x = rng.standard_normal((4, T, 3)).astype(np.float32)
        cylstm.Trainer(model, losses.MSE(), segments=option).fit((x, x[..., :1]), epochs=1, progress=False)
        sizes[T, option] = sum(
            part.arena._block.nbytes for part in describe(model).training_workspace.workspaces
        )
        tried = (
            describe(model).spare_workspaces[0].workspaces[0].arena
        )  # before training, on two of the four sequences
        before = tried._block.nbytes
        model(x.swapaxes(0, 1))
        assert tried._block.nbytes > 1.8 * before or T == 20
    assert sizes[400, "auto"] == sizes[20, None] < sizes[400, None] / 5


def test_carried_state_of_ragged_segments_follows_sequence_order():
    """Truncation carries a state into segments, which stand by length: in the caller's order again."""
    results = []
    for option in (None, 2):
        model, history = trained(truncate=5, segments=option)
        results.append((describe(model).store.data, history.steps))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
