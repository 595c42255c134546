"""Every loss of `LOSSES`, by the cases of loss_cases.py."""

import copy
import json
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
import tolerances
from differences import gradient
from loss_cases import CASES

import cylstm
from cylstm import reference
from cylstm.losses import LOSSES

EVERY = pytest.mark.parametrize("case", CASES, ids=str)
LENGTHS, SHORT = [7, 0, 2, 5, 4], [5, 0, 2, 4, 1]  # of which no sequence is as long as the padding
T, B = 7, len(LENGTHS)  # and all outputs differ


def test_every_loss_has_a_case():
    assert {case.loss for case in CASES} == set(LOSSES)


def counted_steps(lengths, steps):
    """Sequences that count, with the steps of each."""
    return [(b, range(n - 1 if steps == "last" else 0, n)) for b, n in enumerate(lengths) if n]


def parts(case, y, target, lengths, steps):
    counted = counted_steps(lengths, steps)
    return [y[t, b] for b, t in counted], [case.part(target, b, t) for b, t in counted]


def in_place(dys, shape, lengths, steps):
    """(T, B, V) of the gradients of what counts."""
    dy = np.zeros(shape)
    for (b, t), part in zip(counted_steps(lengths, steps), dys, strict=True):
        dy[t, b] = part
    return dy


def laid_out(case, y, target, lengths, steps, batch_first):
    """y and target as a caller has them."""
    if steps == "last":
        last = np.maximum(np.array(lengths) - 1, 0)
        target = target[last, np.arange(len(lengths))]
    elif isinstance(target, np.ndarray) and batch_first:
        target = target.swapaxes(0, 1)
    return (y.swapaxes(0, 1) if batch_first else y), target


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS, SHORT])
@EVERY
def test_loss_agrees_with_reference_for_any_padding(rng, case, lengths, batch_first):
    real = lengths or [T] * B
    for steps in case.steps:
        y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, real)
        expected, dys, counted = case.expected(*parts(case, y, target, real, steps))
        for b, n in enumerate(real):
            y[n:, b] = np.nan
        dy_expected = in_place(dys, y.shape, real, steps)
        layout = {"batch_first": batch_first} | ({"steps": steps} if len(case.steps) > 1 else {})
        loss = case.make(**layout)
        value, dy = loss(*laid_out(case, y, target, real, steps, batch_first), lengths)
        dy = dy.swapaxes(0, 1) if batch_first else dy
        np.testing.assert_allclose(value, expected, **tolerances.FLOAT64)
        np.testing.assert_allclose(dy, dy_expected, **tolerances.FLOAT64)
        assert loss.counted == pytest.approx(counted)


@pytest.mark.parametrize("lengths", [[T] * B, LENGTHS, SHORT])
@EVERY
def test_agrees_with_torch(rng, torch, case, lengths):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, lengths)
    ys, targets = parts(case, y, target, lengths, "all")
    theirs = [torch.tensor(part, requires_grad=True) for part in ys]
    expected = case.theirs(torch, theirs, targets)
    expected.backward()
    dy_expected = in_place([part.grad.numpy() for part in theirs], y.shape, lengths, "all")
    value, dy = case.make()(y, target, lengths)
    np.testing.assert_allclose(value, expected.item(), **tolerances.TORCH)
    np.testing.assert_allclose(dy, dy_expected, **tolerances.TORCH)


@EVERY
def test_ten_steps_of_descent_follow_torch(rng, torch, case):
    """On the outputs themselves, whose gradient is used as it comes."""
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, LENGTHS)
    ys, targets = parts(case, y, target, LENGTHS, "all")
    theirs, loss = [torch.tensor(part, requires_grad=True) for part in ys], case.make()
    descent = torch.optim.SGD(theirs, 0.3)
    for _ in range(10):
        descent.zero_grad()
        case.theirs(torch, theirs, targets).backward()
        descent.step()
        y -= 0.3 * loss(y, target, LENGTHS)[1]
    for part, expected in zip(parts(case, y, target, LENGTHS, "all")[0], theirs, strict=True):
        np.testing.assert_allclose(part, expected.detach().numpy(), **tolerances.TRAJECTORY)


@EVERY
def test_agrees_with_differences(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, SHORT)
    loss = case.make()
    _, dy = loss(y, target, SHORT)
    ours = dy.copy()
    # A small step seldom meets a kink; rounding is that of tests/helpers/tolerances.py for kinks.
    numerical = gradient(lambda: loss(y, target, SHORT)[0], y, 1e-6)
    np.testing.assert_allclose(ours, numerical, rtol=5e-6, atol=1e-8)


@EVERY
def test_float32_agrees_with_the_float64_reference(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)).astype(np.float32), case.target(rng, T, SHORT)
    expected, dys, _ = case.expected(*parts(case, y.astype(float), target, SHORT, "all"))
    value, dy = case.make()(y, target, SHORT)
    assert dy.dtype == np.float32
    limits = tolerances.float32(case.outputs, 1, max(np.abs(part).max() for part in dys))
    np.testing.assert_allclose(dy, in_place(dys, y.shape, SHORT, "all"), **limits)
    np.testing.assert_allclose(value, expected, **tolerances.float32(case.outputs, 1, expected))


@EVERY
def test_huge_outputs_overflow_nowhere(rng, case):
    y, target = 1e4 * rng.standard_normal((T, B, case.outputs)), case.target(rng, T, LENGTHS)
    expected, dys, _ = case.expected(*parts(case, y, target, LENGTHS, "all"))
    for dtype, limits in (("float64", {"rtol": 1e-11}), ("float32", {"rtol": 1e-5})):
        value, dy = case.make()(y.astype(dtype), target, LENGTHS)
        np.testing.assert_allclose(value, expected, **limits)
        np.testing.assert_allclose(dy, in_place(dys, y.shape, LENGTHS, "all"), **limits, atol=1e-6)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.loss in ("MSE", "MAE", "Huber", "Quantile")], ids=str
)
def test_exact_prediction_has_zero_gradient(rng, case):
    target = case.target(rng, T, [T] * B)
    y = np.repeat(target, case.outputs // target.shape[-1], axis=-1)
    expected, dys, _ = case.expected(*parts(case, y, target, [T] * B, "all"))
    value, dy = case.make()(y, target)
    assert value == expected == 0
    assert not np.any(dys)
    assert not dy.any()


@EVERY
def test_one_sequence_and_rows_without_time(rng, case):
    y, target = rng.standard_normal((T, 1, case.outputs)), case.target(rng, T, [T])
    expected, dy_expected = case.make()(y, target)
    for batch_first in (False, True):
        loss = case.make(batch_first=batch_first)
        value, dy = loss(y[:, 0], case.part(target, 0, slice(None)))
        assert value == expected
        np.testing.assert_array_equal(dy, dy_expected[:, 0])
    if "last" in case.steps:
        loss = case.make(steps="last")
        expected, dy_expected = loss(y, target[-1])
        value, dy = case.make(steps="last")(y[:, 0], target[-1, 0])
        assert value == expected
        np.testing.assert_array_equal(dy, dy_expected[:, 0])


@EVERY
def test_loss_without_counted_steps_is_zero(rng, case):
    loss, none = case.make(), [0] * B
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, LENGTHS)
    loss(y, target, LENGTHS)
    value, dy = loss(np.full(y.shape, np.nan), target, none)
    assert (value, loss.counted) == (0, 0)
    assert not dy.any()


@EVERY
def test_mean_over_batches_weighted_by_counted(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, [T] * B)
    loss, total, counted = case.make(), 0.0, 0.0
    expected, _ = loss(y, target)
    whole = loss.counted
    for half in (slice(0, 1), slice(1, B)):
        value, _ = loss(y[:, half], target[half] if isinstance(target, list) else target[:, half])
        total, counted = total + value * loss.counted, counted + loss.counted
    assert counted == pytest.approx(whole)
    assert total / counted == pytest.approx(expected)


@EVERY
def test_any_order_in_memory_gives_the_same(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, SHORT)
    value, dy = case.make()(y, target, SHORT)
    wide = np.zeros((2 * T, B, case.outputs + 1))
    wide[::2, :, 1:] = y
    unaligned = np.frombuffer(b"." + y.tobytes(), "u1", offset=1).view(y.dtype).reshape(y.shape)
    for other in (np.asfortranarray(y), wide[::2, :, 1:], y[:, :, ::-1].copy()[:, :, ::-1], unaligned):
        other.flags.writeable = False
        again, dy_again = case.make()(other, target, SHORT)
        assert again == value
        np.testing.assert_array_equal(dy_again, dy)


@EVERY
def test_loss_is_independent_of_modified_gradient(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, LENGTHS)
    loss = case.make()
    first, dy = loss(y, target, LENGTHS)
    kept = dy.copy()
    dy += 1
    second, again = loss(y, target, LENGTHS)
    assert again is dy
    assert first == second
    np.testing.assert_array_equal(again, kept)


@EVERY
def test_its_own_gradient_may_be_its_outputs(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, [T] * B)
    loss = case.make()
    _, dy = loss(y, target)
    expected, dy_expected = case.make()(dy.copy(), target)
    value, again = loss(dy, target)
    assert value == expected
    np.testing.assert_array_equal(again, dy_expected)


@pytest.mark.parametrize("lengths", [None, [90, 64, 0, 100] * 4])
@EVERY
def test_a_call_makes_no_array_of_the_outputs_size(rng, case, lengths):
    T, B = 100, 16
    y = rng.standard_normal((T, B, case.outputs)).astype(np.float32)
    target, loss = case.target(rng, T, lengths or [T] * B), case.make()
    loss(y, target, lengths)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        loss(y, target, lengths)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < min(y.nbytes, 12_000)


@EVERY
def test_a_configuration_makes_the_same_loss(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, [T] * B)
    loss = case.make(batch_first=True)
    again = LOSSES[case.loss](**json.loads(json.dumps(loss.config)))
    written = eval(repr(loss), dict(LOSSES))
    assert again.config == loss.config == written.config
    swapped = laid_out(case, y, target, [T] * B, "all", True)
    assert loss(*swapped)[0] == again(*swapped)[0] == written(*swapped)[0]


@EVERY
def test_usable_targets_pass_the_check(rng, case):
    target = case.target(rng, T, [T] * B)
    case.make().check(target if isinstance(target, list) else [target, target[:1]], case.outputs)
    case.make().check(target[0] if isinstance(target, list) else target, case.outputs)


@EVERY
def test_an_empty_set_is_refused(case):
    with pytest.raises(ValueError, match="labels: expected at least one value that counts, got none"):
        case.make().check([], case.outputs, "labels")
    with pytest.raises(ValueError, match="outputs: expected a positive int, got 0"):
        case.make().check([], 0)


MSE, MAE, Huber, Quantile, BinaryCrossEntropy, CrossEntropy, CTC = (
    getattr(cylstm.losses, name)
    for name in ("MSE", "MAE", "Huber", "Quantile", "BinaryCrossEntropy", "CrossEntropy", "CTC")
)


@pytest.mark.parametrize(
    ("loss", "target", "outputs", "message"),
    [
        (
            MSE(),
            [np.zeros((3, 2)), np.array([[0, np.nan]])],
            2,
            r"target\[1\]: expected finite .*, got nan at \(0, 1\)",
        ),
        (MAE(), np.array([[np.inf]]), 1, r"target: expected finite numbers, got inf at \(0, 0\)"),
        (MSE(), np.zeros((3, 2)), 3, r"target: expected \(\.\.\., 3\), got \(3, 2\)"),
        (MSE(), np.array(["a"]), 1, "target: expected real numbers"),
        (Quantile([0.1, 0.9]), np.zeros((3, 2)), 3, "outputs: expected a multiple of 2, got 3"),
        (
            BinaryCrossEntropy(),
            np.array([[1.5]]),
            1,
            r"target: expected numbers from 0 to 1, got 1.5 at \(0, 0\)",
        ),
        (BinaryCrossEntropy(), np.array([[np.nan]]), 1, "target: expected numbers from 0 to 1, got nan"),
        (BinaryCrossEntropy([1, 2]), np.array([[1]]), 1, "pos_weight: expected one number, or 1, got 2"),
        (CrossEntropy(), np.array([0, 3]), 3, "target: expected labels from 0 to 2, got 3"),
        (CrossEntropy(), [np.array([0, -1])], 3, r"target\[0\]: expected labels from 0 to 2, got -1"),
        (
            CrossEntropy(ignore_index=None),
            np.array([-100]),
            3,
            "target: expected labels from 0 to 2, got -100",
        ),
        (CrossEntropy(), np.array([-100, -100]), 3, "target: expected at least one value that counts"),
        (CrossEntropy([1, 0]), np.array([1, 1]), 2, "target: expected at least one value that counts"),
        (CrossEntropy(), np.array([0.0, 1.0]), 3, "target: expected integer labels, got dtype float64"),
        (CrossEntropy([1, 2]), np.array([0]), 3, "weight: expected 3 numbers, one per class, got 2"),
        (CTC(), [np.array([1, 0])], 3, r"target\[0\]: expected labels other than blank = 0"),
        (CTC(), [np.array([1]), [3]], 3, r"target\[1\]: expected labels from 0 to 2, got 3"),
        (CTC(), [np.array([1.0])], 3, r"target\[0\]: expected integer labels, got dtype float64"),
        (CTC(), [1, 2], 3, r"target\[0\]: expected the labels of one sequence, \(L,\), got \(\)"),
        (CTC(blank=3), [np.array([1])], 3, "blank: expected 0 to 2, an output, got 3"),
    ],
)
def test_unusable_targets_are_refused(loss, target, outputs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        loss.check(target, outputs)


Y = np.zeros((5, 2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MSE("first"), "steps: expected 'all' or 'last', got 'first'"),
        (lambda: MSE()(Y, np.zeros((2, 3))), r"target: expected \(5, 2, 3\), got \(2, 3\)"),
        (lambda: MSE()(Y, Y, [5]), "lengths: expected 2 ints"),
        (lambda: MSE()(Y[:, 0], Y[:, 0], [5]), "lengths: expected y to be a batch"),
        (lambda: MSE()(Y[:0], Y[:0]), r"y: expected .* got \(0, 2, 3\)"),
        (lambda: MSE(batch_first=True)(Y, Y[:, 0]), r"target: expected \(5, 2, 3\), got \(5, 3\)"),
        (lambda: MSE("last", True)(Y, Y[0]), r"target: expected \(5, 3\), got \(2, 3\)"),
        (lambda: Huber(0), "delta: expected a number above 0, got 0"),
        (
            lambda: Quantile([0.5, 1]),
            r"quantiles: expected one or more numbers between 0 and 1, got \[0.5, 1\]",
        ),
        (lambda: Quantile([]), "quantiles: expected one or more"),
        (lambda: Quantile([0.1, 0.9])(Y, Y), "y: expected a multiple of 2 outputs, got 3"),
        (lambda: BinaryCrossEntropy(-1), "pos_weight: expected a number"),
        (lambda: BinaryCrossEntropy([1, 2])(Y, Y), "pos_weight: expected one number, or 3, got 2"),
        (lambda: CrossEntropy([1, -1]), "weight: expected finite numbers >= 0"),
        (lambda: CrossEntropy([1, 1])(Y, np.zeros((5, 2), int)), "weight: expected 3 numbers"),
        (lambda: CrossEntropy(ignore_index="x"), "ignore_index: expected an int or None, got 'x'"),
        (
            lambda: CrossEntropy(label_smoothing=1.5),
            r"label_smoothing: expected a number in \[0, 1\], got 1.5",
        ),
        (lambda: CrossEntropy()(Y, np.zeros((5, 2))), "target: expected integer labels, got dtype float64"),
        (lambda: CrossEntropy()(Y, np.zeros((5, 2, 1), int)), r"target: expected \(5, 2\), got \(5, 2, 1\)"),
        (lambda: CrossEntropy()(Y, np.full((5, 2), 3)), "target: expected labels from 0 to 2, got 3"),
        (lambda: CTC(-1), "blank: expected an int, 0 or more, got -1"),
        (lambda: CTC()(Y, [[1]]), "target: expected labels of 2 sequences, got those of 1"),
        (lambda: CTC()(Y, [[1], [3]]), r"target\[1\]: expected labels from 0 to 2, got 3"),
        (lambda: CTC()(Y, [[1], [0]]), r"target\[1\]: expected labels other than blank = 0"),
        (lambda: CTC()(Y, 1), "target: expected a sequence of arrays of labels, got 1"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, bool, np.int64])
def test_other_dtypes_are_computed_in_float64(dtype):
    y, target = np.array([[0, 1, 0]], dtype), np.array([[1, 1, 1]], dtype)
    value, dy = MSE()(y, target)
    assert value == pytest.approx(2 / 3)
    assert dy.dtype == np.float64
    np.testing.assert_allclose(dy, [[-2 / 3, 0, -2 / 3]])


def test_a_target_may_be_the_last_gradient(rng):
    loss = MSE()
    _, dy = loss(*rng.standard_normal((2, 3, 2, 1)))
    expected = np.mean(dy**2)
    assert loss(np.zeros((3, 2, 1)), dy)[0] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("V", [1, 2, 7, 8, 9, 15, 16, 17, 33])
def test_cross_entropy_of_any_number_of_classes(rng, V, dtype):
    y, labels = rng.standard_normal((4, 3, V)).astype(dtype), rng.integers(0, V, (4, 3))
    expected, dy_expected, _ = cylstm.reference.cross_entropy(
        y.reshape(-1, V).astype(float), labels.reshape(-1), np.ones(V), None, 0.1
    )
    value, dy = CrossEntropy(label_smoothing=0.1)(y, labels)
    limits = tolerances.FLOAT64 if dtype == "float64" else tolerances.float32(V, 1, 1 / 12)
    np.testing.assert_allclose(value, expected, **limits | ({"atol": 1e-6} if dtype == "float32" else {}))
    np.testing.assert_allclose(dy.reshape(-1, V), dy_expected, **limits)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64])
def test_labels_may_be_of_any_integer_type(dtype):
    y = np.log([[[0.25, 0.75]]])
    assert CrossEntropy()(y, np.array([[1]], dtype))[0] == pytest.approx(-np.log(0.75))
    assert CTC()(y, np.array([[1]], dtype))[0] == pytest.approx(-np.log(0.75))


def test_labels_of_no_weight_count_for_nothing(rng):
    loss = CrossEntropy(weight=[0, 1])
    y = rng.standard_normal((3, 2, 2))
    value, dy = loss(y, np.zeros((3, 2), int))
    assert (value, loss.counted) == (0, 0)
    assert not dy.any()


def test_a_class_that_an_infinite_logit_excludes_has_no_gradient():
    value, dy = CrossEntropy()(np.array([[0.0, -np.inf, 0.0]]), np.array([0]))
    assert value == pytest.approx(np.log(2))
    np.testing.assert_allclose(dy, [[-0.5, 0, 0.5]])


@EVERY
def test_outputs_that_are_nan_are_seen_in_the_value(rng, case):
    y, target = rng.standard_normal((T, B, case.outputs)), case.target(rng, T, [T] * B)
    y[2] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(case.make()(y, target)[0])


def test_an_impossible_alignment_is_infinite_or_counts_as_zero(rng, torch):
    y, target = rng.standard_normal((3, 2, 3)), [[1, 1], [2, 2, 1]]  # the second needs four steps
    value, dy = CTC()(y, target)
    assert value == np.inf
    assert np.isnan(dy[:, 1]).all()
    first, _ = CTC()(y[:, :1], target[:1])
    loss = CTC(zero_infinity=True)
    value, dy = loss(y, target)
    assert (value, loss.counted) == (pytest.approx(first / 2), 2)
    theirs = torch.tensor(y, requires_grad=True)
    labels, lengths = torch.tensor([1, 1, 2, 2, 1]), (torch.tensor([3, 3]), torch.tensor([2, 3]))
    expected = torch.nn.functional.ctc_loss(theirs.log_softmax(-1), labels, *lengths, zero_infinity=True)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), **tolerances.TORCH)
    np.testing.assert_allclose(dy, theirs.grad.numpy(), **tolerances.TORCH)


def test_threads_that_share_a_loss_keep_their_own_gradients(rng):
    loss, (y, other) = cylstm.losses.CrossEntropy(), rng.standard_normal((2, 4, 3, 5))
    labels = rng.integers(0, 5, (4, 3)).astype("i")
    _, dy = loss(y, labels)
    expected = dy.copy()
    thread = threading.Thread(target=lambda: loss(other[:2], labels[:2]))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(dy, expected)
    assert loss.counted == 12
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied.counted == 0
        np.testing.assert_array_equal(copied(y, labels)[1], expected)


@EVERY
def test_call_does_not_write_to_shared_memory(rng, case):
    """The attributes of a loss, and what is in them, are those from before, but for the thread's record."""
    loss = case.make()

    def attributes():
        return {name: pickle.dumps(value) for name, value in vars(loss).items() if name != "_own"}

    before, objects = attributes(), {name: id(value) for name, value in vars(loss).items()}
    for T, B in ((7, 2), (9, 3)):
        loss(rng.standard_normal((T, B, case.outputs)), case.target(rng, T, [T] * B))
    assert attributes() == before
    assert {name: id(value) for name, value in vars(loss).items()} == objects


@EVERY
def test_threads_share_loss_with_different_shapes(rng, case):
    loss, shapes = case.make(), [(40, 3), (25, 4), (33, 2), (50, 1)]
    problems = [(rng.standard_normal((T, B, case.outputs)), case.target(rng, T, [T] * B)) for T, B in shapes]
    expected = [(value, dy.copy()) for value, dy in (case.make()(*problem) for problem in problems)]
    barrier, wrong = threading.Barrier(len(shapes)), []

    def call(k):
        barrier.wait()
        for _ in range(50):
            value, dy = loss(*problems[k])
            if value != expected[k][0] or not np.array_equal(dy, expected[k][1]):
                wrong.append(k)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(len(shapes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


ONE_OUTPUT = [  # a loss of V = 1, targets of n steps, and value and gradient by the reference
    (MSE(), lambda rng, n: rng.standard_normal((n, 1)), lambda y, t: reference.mse(y, t)),
    (MAE(), lambda rng, n: rng.standard_normal((n, 1)), lambda y, t: reference.mae(y, t)),
    (Huber(0.5), lambda rng, n: rng.standard_normal((n, 1)), lambda y, t: reference.huber(y, t, 0.5)),
    (
        Quantile([0.3]),
        lambda rng, n: rng.standard_normal((n, 1)),
        lambda y, t: reference.quantile(y, t, np.array([0.3])),
    ),
    (
        BinaryCrossEntropy(2.0),
        lambda rng, n: rng.random((n, 1)),
        lambda y, t: reference.binary_cross_entropy(y, t, np.array(2.0)),
    ),
    (CrossEntropy(), lambda rng, n: np.zeros(n, int), lambda y, t: (0.0, np.zeros_like(y))),
    (CTC(), lambda rng, n: np.zeros(0, int), lambda y, t: (0.0, np.zeros_like(y))),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 3), (4, 1)])
@pytest.mark.parametrize("problem", ONE_OUTPUT, ids=lambda problem: type(problem[0]).__name__)
def test_one_step_one_sequence_one_output(rng, problem, T, B, dtype):
    loss, draw, expected = problem
    y = rng.standard_normal((T, B, 1)).astype(dtype)
    parts = [draw(rng, T) for _ in range(B)]
    target = parts if isinstance(loss, CTC) else np.stack(parts, 1)
    value, dy = loss(y, target)
    assert dy.dtype == dtype
    if isinstance(loss, CTC):
        value_expected, dy_expected = 0.0, np.zeros((T, B, 1))
    else:
        rows = y.reshape(-1, 1).astype(float), target.reshape(T * B, -1)
        value_expected, dy_expected = expected(*rows)
    limits = tolerances.FLOAT64 if dtype == "float64" else tolerances.float32(1, T * B, 4.0)
    np.testing.assert_allclose(value, value_expected, **limits)
    np.testing.assert_allclose(dy.reshape(-1, 1), np.reshape(dy_expected, (-1, 1)), **limits)
    one, dy_one = loss(y, target, [1] * B)  # and of one step only
    first = parts if isinstance(loss, CTC) else target[:1]
    again, dy_again = type(loss)(**loss.config)(y[:1], first)
    assert one == again
    np.testing.assert_array_equal(dy_one[:1], dy_again)
    assert not dy_one[1:].any()


def test_every_loss_is_tried_with_one_output():
    assert {type(loss).__name__ for loss, *_ in ONE_OUTPUT} == set(LOSSES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "target_dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i8", ">i4", "u8", "?", "g"]
)
@pytest.mark.parametrize(
    "loss",
    [
        MSE(),
        MAE(),
        Huber(),
        Quantile([0.1, 0.5, 0.9]),
        BinaryCrossEntropy(),
        MSE("last"),
        BinaryCrossEntropy(steps="last"),
    ],
    ids=repr,
)
def test_targets_of_any_real_type_are_the_numbers_that_they_are(rng, loss, target_dtype, dtype):
    y = rng.standard_normal((T, B, 3)).astype(dtype)
    columns = (y.shape[0], B, *loss.row_shape(3))[1 if loss.steps == "last" else 0 :]
    target = rng.integers(0, 2, columns).astype(target_dtype)
    value, dy = loss(y, target, SHORT)
    expected, dy_expected = type(loss)(**loss.config)(y, target.astype(dtype), SHORT)
    assert value == expected
    np.testing.assert_array_equal(dy, dy_expected)
