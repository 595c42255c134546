"""Sources of minibatches: every sample once, in the promised shape; the same order for the same generator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm.data import Arrays, Minibatch, Source, TokenStream, Windows, source_of

few = settings(max_examples=60, deadline=None)
sizes = st.integers(1, 12)


def ragged(lengths, features=2):
    """Sequence i holds i + 1 everywhere, so that it is known again, and padding is told from it."""
    return [np.full((n, features), i + 1.0) for i, n in enumerate(lengths)]


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.continues == b.continues
        np.testing.assert_equal((a.x, a.target, a.lengths), (b.x, b.target, b.lengths))


SOURCES = {
    "arrays": lambda: Arrays(np.arange(7 * 4 * 2.0).reshape(7, 4, 2), np.arange(7), 3),
    "ragged": lambda: Arrays(ragged([3, 9, 1, 4, 9, 2, 5]), np.arange(7), 2),
    "labels": lambda: Arrays(ragged([3, 9, 4]), [[1, 2], [1], [2, 2, 3]], 2),
    "windows": lambda: Windows(np.arange(20.0), 5, 2, batch_size=4),
    "tokens": lambda: TokenStream(np.arange(50), 3, 4),
}


@pytest.mark.parametrize("name", SOURCES)
def test_epoch_is_reproducible_from_any_start(name):
    source = SOURCES[name]()
    whole = list(source.epoch(np.random.default_rng(5)))
    assert len(whole) == len(source)
    for start in range(len(source) + 1):
        rng = np.random.default_rng(5)
        assert_same(source.epoch(rng, start), whole[start:])
        assert_same(source.epoch(start=start), list(source.epoch())[start:])
        other = np.random.default_rng(5)
        source.epoch(other)  # draws at once, and the same whatever start
        assert rng.bit_generator.state == other.bit_generator.state
    source.check()


@pytest.mark.parametrize("name", set(SOURCES) - {"tokens"})
def test_epochs_differ_when_shuffled(name):
    source, rng = SOURCES[name](), np.random.default_rng(0)
    epochs = {str([batch.target for batch in source.epoch(rng)]) for _ in range(10)}
    assert len(epochs) > 1


@few
@given(n=sizes, T=sizes, batch_size=sizes, seed=st.none() | st.integers(0, 99))
def test_every_sample_comes_once_an_epoch_and_time_first(n, T, batch_size, seed):
    x = np.arange(n * T * 2.0, dtype=np.float32).reshape(n, T, 2)
    source = Arrays(x, np.arange(n), batch_size)
    batches = list(source.epoch(None if seed is None else np.random.default_rng(seed)))
    order = np.concatenate([batch.target for batch in batches])
    assert sorted(order) == list(range(n))
    assert seed is not None or list(order) == list(range(n))
    assert [len(batch.target) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    got = np.concatenate([batch.x for batch in batches], axis=1)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, x[order].swapaxes(0, 1))
    assert all(batch.lengths is None and not batch.continues for batch in batches)


@few
@given(
    lengths=st.lists(sizes, min_size=1, max_size=30), batch_size=sizes, seed=st.none() | st.integers(0, 99)
)
def test_every_ragged_sequence_comes_once_with_zeros_after_it(lengths, batch_size, seed):
    source = Arrays(ragged(lengths), [np.full(n, i) for i, n in enumerate(lengths)], batch_size)
    assert source.per_step
    seen = []
    for batch in source.epoch(None if seed is None else np.random.default_rng(seed)):
        assert batch.x.shape == (batch.lengths.max(), len(batch.lengths), 2)
        for b, n in enumerate(batch.lengths):
            number = int(batch.x[0, b, 0])
            seen.append(number - 1)
            assert n == lengths[number - 1]
            assert (batch.x[:n, b] == number).all()
            assert (batch.x[n:, b] == 0).all()
            assert (batch.target[:n, b] == number - 1).all()
            assert (batch.target[n:, b] == 0).all()
    assert sorted(seen) == list(range(len(lengths)))
    assert seed is not None or seen == sorted(seen)


def test_shuffled_batches_have_similar_lengths(rng):
    lengths = np.exp(rng.uniform(np.log(5), np.log(200), 2000)).astype(int)
    source = Arrays(ragged(lengths, 1), np.zeros(2000), 32)

    def padding(batches):
        real, all_of_it = np.sum([(b.lengths.sum(), b.x.size) for b in batches], axis=0)
        return 1 - real / all_of_it

    assert padding(source.epoch(rng)) < 0.08
    assert padding(source.epoch()) > 0.5
    first, second = (
        [frozenset(batch.x[0, :, 0]) for batch in source.epoch(np.random.default_rng(seed)) if batch.x.size]
        for seed in (1, 2)
    )
    assert len(set(first) & set(second)) < 5  # other neighbours in every epoch
    longest = [batch.x.shape[0] for batch in source.epoch(rng)]
    assert longest != sorted(longest)


def test_the_smaller_batch_is_not_always_the_one_of_the_longest():
    source = Arrays(ragged([1, 10, 20, 30, 40]), np.zeros(5), 2)
    alone = {
        int(batch.lengths[0])
        for seed in range(50)
        for batch in source.epoch(np.random.default_rng(seed))
        if len(batch.lengths) == 1
    }
    assert alone == {1, 20, 40}


@pytest.mark.parametrize(
    "x, target, per_step, shape",
    [
        (np.zeros((4, 5, 2)), np.zeros((4, 5, 3)), True, (5, 4, 3)),
        (np.zeros((4, 5, 2)), np.zeros((4, 5), int), True, (5, 4)),
        (np.zeros((4, 5, 2)), np.zeros((4, 5)), False, (4, 5)),
        (np.zeros((4, 5, 2)), np.zeros((4, 3), int), False, (4, 3)),
        (np.zeros((4, 5), int), np.zeros(4, int), False, (4,)),
        (np.zeros((4, 5), int), [0, 1, 2, 0], False, (4,)),
        (np.zeros((4, 5, 2)), [np.zeros((5, 3))] * 4, True, (5, 4, 3)),
        ([np.zeros((5, 2))] * 4, np.zeros((4, 5, 3)), True, (5, 4, 3)),
        ([[1, 2], [3], [4, 4, 4], [1]], np.zeros((4, 3)), False, (4, 3)),
        ([[1, 2], [3], [4, 4, 4], [1]], [[0, 1], [0], [1, 1, 1], [1]], True, (3, 4)),
    ],
)
def test_target_kind_is_inferred_from_shape(x, target, per_step, shape):
    source = Arrays(x, target)
    assert source.per_step is per_step
    assert next(source.epoch()).target.shape == shape


def test_labels_come_as_a_list(rng):
    labels = [np.array([1, 2]), np.array([3]), np.array([], int), [4, 4]]
    source = Arrays(ragged([9, 5, 8, 7]), labels, 4)
    (batch,) = source.epoch()
    np.testing.assert_equal(
        batch.target, [np.array([1, 2]), np.array([3]), np.array([], int), np.array([4, 4])]
    )
    assert {part.dtype for part in batch.target} == {np.dtype(int)}
    (shuffled,) = source.epoch(rng)
    for b, label in enumerate(shuffled.target):
        np.testing.assert_array_equal(label, labels[int(shuffled.x[0, b, 0]) - 1])
    empty = next(Arrays(ragged([9, 5]), [[1, 2], []]).epoch())
    assert empty.target[1].dtype.kind == "i"


def test_target_per_decides():
    x, target = np.zeros((4, 5, 2)), np.zeros((4, 5))
    assert next(Arrays(x, target, target_per="step").epoch()).target.shape == (5, 4)
    assert next(Arrays(x, target.astype(int), target_per="sequence").epoch()).target.shape == (4, 5)
    labels = next(Arrays(ragged([2, 3]), [[1, 1], [2, 2, 2]], target_per="sequence").epoch()).target
    assert isinstance(labels, list)


NAN, INF = float("nan"), float("inf")


def with_value(shape, place, value):
    array = np.zeros(shape)
    array[place] = value
    return array


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Arrays(np.zeros((0, 5, 2)), []), ValueError, "x: expected at least one sample, got none"),
        (lambda: Arrays([], []), ValueError, "x: expected at least one sample, got none"),
        (lambda: Arrays(np.zeros((4, 0, 2)), np.zeros(4)), ValueError, r"x\[0\]: expected at least one step"),
        (lambda: Arrays([[1], []], [0, 1]), ValueError, r"x\[1\]: expected at least one step"),
        (
            lambda: Arrays(np.zeros((4, 5)), np.zeros(4)),
            ValueError,
            r"got \(4, 5\) float64.*x\[\.\.\., None\]",
        ),
        (
            lambda: Arrays([np.zeros(3)], [1]),
            ValueError,
            r"x: expected \(T, I\) real numbers or \(T,\) ids, got",
        ),
        (
            lambda: Arrays(5, [1]),
            ValueError,
            r"x: expected \(n, T, I\) real numbers or \(n, T\) ids, got \(\)",
        ),
        (lambda: Arrays([["a"]], [1]), TypeError, r"x\[0\]\[0\]: expected real numbers, got 'a'"),
        (
            lambda: Arrays(ragged([2, 3]), ["a", "b"]),
            TypeError,
            r"target\[0\]: expected real numbers, got 'a'",
        ),
        (
            lambda: Arrays([np.zeros((2, 3)), np.zeros((2, 4))], [1, 2]),
            ValueError,
            r"x\[1\]: expected \(length, 3\), as x\[0\] is, got \(2, 4\)",
        ),
        (lambda: Arrays(ragged([2, 3]), [1]), ValueError, "target: expected 2 samples, as x has, got 1"),
        (lambda: Arrays(ragged([2, 3]), 1.0), ValueError, "target: expected 2 samples, as x has, got 0"),
        (
            lambda: Arrays(ragged([2, 3, 4]), [[1, 1], [2, 2], [0] * 4]),
            ValueError,
            "as long as x in 2 of 3 samples, but not in sample 1: 2 and 3",
        ),
        (
            lambda: Arrays(ragged([2, 3]), [[1, 1], [2, 2]], target_per="step"),
            ValueError,
            r"target\[1\]: expected 3 steps, as x\[1\] has, got shape \(2,\)",
        ),
        (
            lambda: Arrays(ragged([2, 3]), [1, 2], target_per="step"),
            ValueError,
            r"target\[0\]: expected 2 steps",
        ),
        (lambda: Arrays(ragged([2]), [1], target_per="word"), ValueError, "target_per: expected 'step'"),
        (lambda: Arrays(ragged([2]), [1], 0), ValueError, "batch_size: expected a positive int, got 0"),
        (lambda: source_of(3), TypeError, r"data: expected a cylstm\.data\.Source or a tuple .* got int"),
        (lambda: source_of((1, 2, 3)), TypeError, "got a tuple of 3"),
    ],
)
def test_invalid_data_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "source, message",
    [
        (
            Arrays(with_value((4, 5, 2), (3, 1, 0), NAN), np.zeros(4)),
            r"x\[3, 1, 0\] \(sample, step, feature\): expected a finite number, got nan",
        ),
        (
            Arrays([np.zeros((2, 1)), with_value((3, 1), (2, 0), -INF)], [0, 1]),
            r"x\[1\]\[2, 0\] \(step, feature\): expected a finite number, got -inf",
        ),
        (Arrays(ragged([2, 3]), [0.0, INF]), r"target\[1\]: expected a finite number, got inf"),
        (Arrays(ragged([2, 1]), [[[0.0], [NAN]], [[1.0]]]), r"target\[0\]\[1, 0\]: expected a finite"),
        (Arrays(np.array([[1, 2], [3, -1]]), [0, 1]), "x: expected ids, 0 or more, got -1"),
        (Arrays([[1], [3, -1]], [0, 1]), r"x\[1\]: expected ids, 0 or more, got -1"),
        (
            Windows(with_value((9, 2), (7, 1), NAN), 2),
            r"series\[7, 1\] \(row, column\): expected a finite number, got nan",
        ),
        (TokenStream([1, -2, 3], 1, 1), "ids: expected ids, 0 or more, got -2"),
    ],
)
def test_check_names_the_place_of_a_bad_value(source, message):
    with pytest.raises(ValueError, match=message):
        source.check()


def test_epochs_refuse_other_generators_and_starts():
    source = SOURCES["arrays"]()
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator or None, got int"):
        source.epoch(3)
    with pytest.raises(ValueError, match="start: expected 0 to 3, got 4"):
        source.epoch(start=4)


def test_a_source_is_taken_as_it_is_and_a_tuple_becomes_arrays():
    source = SOURCES["tokens"]()
    assert source_of(source, 7) is source
    made = source_of((np.zeros((9, 5, 2)), np.zeros((9, 5))), 4, target_per="step")
    assert isinstance(made, Arrays)
    assert (len(made), made.per_step) == (3, True)
    assert made.targets.shape == (9, 5)


def test_a_source_of_ones_own_needs_four_methods():
    class Counting(Source):
        targets = np.zeros((3, 1))

        def __len__(self):
            return 3

        def check(self):
            pass

        def _plan(self, rng):
            return range(3)

        def _batch(self, part):
            return Minibatch(np.full((2, 1, 1), part), self.targets[part : part + 1])

    assert [batch.x[0, 0, 0] for batch in source_of(Counting()).epoch(start=1)] == [1, 2]


def test_batches_go_into_a_model(rng):
    source = Arrays(ragged([3, 5, 1]), np.zeros((3, 1)), 2)
    model = cylstm.Sequential(cylstm.LSTM(2, 4), cylstm.Linear(4, 1)).train()
    for batch in source.epoch(rng):
        y, _ = model(batch.x, lengths=batch.lengths)
        _, dy = cylstm.losses.MSE(steps="last")(y, batch.target, batch.lengths)
        model.backward(dy, need_dx=False)
    assert any(gradient.any() for gradient in model.gradients.values())
