"""What threads may share by the documentation: layers in evaluation, scalers, vocabularies, sources."""

import threading

import numpy as np
import pytest
from padding_models import MODELS, F, V

import cylstm
from cylstm import data
from cylstm.layers.sequence_layer import SequenceLayer

SHAPES = [(40, 3), (25, 7), (60, 2), (33, 5)]  # a thread for each


def in_threads(call, arguments):
    """Whether every thread always gets what a call in this one gets."""
    expected = [call(*argument) for argument in arguments]
    barrier, wrong = threading.Barrier(len(arguments)), []

    def run(k):
        barrier.wait()
        for _ in range(20):
            try:
                np.testing.assert_array_equal(call(*arguments[k]), expected[k])
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize("name", MODELS)
def test_threads_share_layer_with_different_shapes(rng, name):
    model = MODELS[name]().eval()
    model = model if isinstance(model, SequenceLayer) else cylstm.Sequential(model)
    fields = (model.input_size,) if model.input_size > 1 else ()
    problems = [
        (
            rng.integers(0, V, (*shape, *fields))
            if model.reads_indices
            else rng.standard_normal((*shape, F)).astype(np.float32),
            rng.integers(0, shape[0], shape[1]),
        )
        for shape in SHAPES
    ]
    assert not in_threads(lambda x, lengths: model(x, lengths=lengths)[0], problems)


@pytest.mark.parametrize("kind", [data.StandardScaler, data.MinMaxScaler])
def test_threads_share_a_scaler(rng, kind):
    scaler = kind().fit(rng.standard_normal((50, F)))
    problems = [(rng.standard_normal((*shape, F)),) for shape in SHAPES]
    for call in (scaler.transform, scaler.inverse):
        assert not in_threads(call, problems)


def test_threads_share_a_vocabulary():
    vocabulary = data.Vocabulary.of_characters("abcdefgh")
    assert not in_threads(vocabulary.encode, [("abc",), ("hgfedcba" * 9,), ("aaaa",), ("xyz",)])


def test_threads_share_a_source(rng):
    x = [rng.standard_normal((n, F)) for n in rng.integers(1, 30, 40)]
    source = data.Arrays(x, np.arange(40), 8)

    def order(seed):
        return np.concatenate([batch.target for batch in source.epoch(np.random.default_rng(seed))])

    assert not in_threads(order, [(seed,) for seed in range(4)])
