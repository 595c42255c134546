"""The gate for data: what is read as numbers, of which libraries, and what is rejected."""

import array
import datetime
import decimal
import fractions

import numpy as np
import pytest

import cylstm
from cylstm import Session, Stream, _checks, losses
from cylstm.data import Arrays, StandardScaler, TokenStream, Vocabulary, Windows, pack, stratified_split
from cylstm.forecasting import baselines

HOLE = np.ma.masked_equal(np.array([[1.0], [-999.0], [2.0]]), -999.0)
INTS = np.ma.masked_equal(np.array([1, -999, 2]), -999)
MISSING = r"expected a value, got a missing one \(masked, null or NA\)"


def read(value, gaps=False):
    return _checks.real_array("x", value, gaps)


def test_a_plain_array_is_read_where_it_stands():
    for dtype in ("f2", "f4", "f8", ">f4", "i1", "u8", "?"):
        x = np.ones((3, 2), dtype)
        assert read(x) is x


@pytest.mark.parametrize(
    "value, numbers",
    [
        ([1, decimal.Decimal("1.5"), fractions.Fraction(1, 4)], [1.0, 1.5, 0.25]),
        ([10**30, 1], [1e30, 1.0]),
        (np.array([[1, 2], [3, 4]], object), [[1, 2], [3, 4]]),
        ([np.float32(1), np.int8(2)], [1.0, 2.0]),
        ([np.True_, 1.5], [1.0, 1.5]),
        ([np.array(1.0), np.array(2.0)], [1.0, 2.0]),
        (range(3), [0, 1, 2]),
        (memoryview(b"\1\2"), [1, 2]),
        ([range(2), array.array("d", [0.5, 1])], [[0, 1], [0.5, 1]]),
        ([[], []], [[], []]),
        (np.ma.array([1.0, 2.0]), [1.0, 2.0]),
        ([np.ma.array([1.0, 2.0])], [[1.0, 2.0]]),
    ],
)
def test_numbers_of_python_and_of_subclasses_are_read(value, numbers):
    result = read(value)
    assert type(result) is np.ndarray
    assert result.dtype.kind == np.asarray(numbers).dtype.kind or result.dtype == np.uint8
    np.testing.assert_array_equal(result, numbers)


def test_ints_that_are_objects_stay_ints():
    assert _checks.index_array("x", np.array([0, 2**62], object)).tolist() == [0, 2**62]
    with pytest.raises(TypeError, match="x: expected ints"):
        _checks.index_array("x", [0, 2**64])
    with pytest.raises(ValueError, match=r"x: expected ints.*18446744073709551516, which overflows int64"):
        _checks.index_array("x", np.array([2**64 - 100], np.uint64))


@pytest.mark.parametrize(
    "value, error, message",
    [
        (
            np.array(["2020"], "M8[D]"),
            TypeError,
            r"x: expected real numbers, got dtype datetime64\[D\]; pass",
        ),
        (np.array([3], "m8[s]"), TypeError, r"x: expected real numbers, got dtype timedelta64\[s\]"),
        ([1.0, np.timedelta64(3, "s")], TypeError, r"x\[1\]: expected real numbers, got timedelta64"),
        ([np.timedelta64(3, "s")], TypeError, "x: expected real numbers, got dtype timedelta64"),
        ([datetime.datetime(2020, 1, 1)], TypeError, r"x\[0\]: expected real numbers, got datetime"),
        ([[1.0], ["2"]], TypeError, r"x\[1\]\[0\]: expected real numbers, got '2'"),
        (np.array([1, "2"], object), TypeError, r"x\[1\]: expected real numbers, got '2'"),
        ("0.1", TypeError, "x: expected real numbers, got dtype <U3"),
        (b"12", TypeError, "x: expected real numbers, got dtype .S2"),
        (bytearray(b"12"), TypeError, "x: expected real numbers, got dtype"),
        ([1j], TypeError, r"x\[0\]: expected real numbers, got complex"),
        (None, TypeError, "x: expected real numbers, got NoneType"),
        ({"a": 1}, TypeError, "x: expected real numbers, got dict"),
        ((i for i in "12"), TypeError, "x: expected real numbers, got generator"),
        (np.zeros(1, [("a", int)]), TypeError, r"x: expected real numbers, got fields \['a'\]"),
        ([10**400], ValueError, "x: expected numbers in the range of a float"),
        ([[1.0], [1.0, 2.0]], ValueError, "x: expected a rectangular array, got rows of different lengths"),
        ([[1.0], 2.0], ValueError, "x: expected a rectangular array, got rows and single values"),
        ([np.ones(2), np.ones(3)], ValueError, "x: expected a rectangular array"),
        (np.array([np.ones(2), None], object), ValueError, "x: expected a rectangular array"),
        ([1.0, None], ValueError, r"x\[1\]: " + MISSING),
        ([[1.0, np.ma.masked]], ValueError, r"x\[0\]\[1\]: " + MISSING),
        (np.ma.masked, ValueError, "x: " + MISSING),
        ([HOLE, HOLE], ValueError, r"x\[0\]\[1, 0\]: " + MISSING),
    ],
)
def test_invalid_numbers_error_names_place(value, error, message):
    with pytest.raises(error, match=message):
        read(value)


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise BufferError("on another device")


class Variable:
    """As those of netCDF4 are, which give masked arrays."""

    ndim = 2

    def __array__(self, dtype=None, copy=None):
        return HOLE


def test_a_mask_that_an_object_gives_is_seen():
    with pytest.raises(ValueError, match=r"x\[1, 0\]: " + MISSING):
        read(Variable())
    with pytest.raises(ValueError, match=r"x\[0\]\[1, 0\]: " + MISSING):
        read([Variable()])


def test_an_error_of_another_library_is_named():
    with pytest.raises(TypeError, match=r"x: expected real numbers, got a Unreadable.*on another device"):
        read(Unreadable())


def test_missing_values_are_nan_for_those_who_ask():
    np.testing.assert_array_equal(read(HOLE, gaps=True), [[1], [np.nan], [2]])
    assert read(HOLE.astype("f4"), gaps=True).dtype == np.float32
    np.testing.assert_array_equal(read(INTS, gaps=True), [1, np.nan, 2])
    np.testing.assert_array_equal(read([1, None, np.ma.masked], gaps=True), [1, np.nan, np.nan])
    hidden = np.ma.array([1, "text"], mask=[False, True], dtype=object)
    np.testing.assert_array_equal(read(hidden, gaps=True), [1, np.nan])


def lstm():
    return cylstm.LSTM(1, 2, seed=0)


def trained(layer, x):
    layer.train()
    layer(x)
    return layer


def warm(session):
    """With the fast path planned."""
    for _ in range(3):
        session.run(np.ones((3, 1), np.float32))
    return session


def stepped(stream):
    stream.step(np.ones(1, np.float32))
    return stream


X = np.ones((3, 1, 1))
STATE = np.ma.masked_all((1, 1, 2))
ENTRIES = {
    "layer": lambda: lstm()(HOLE),
    "layer, float32": lambda: lstm()(HOLE.astype("f4")),
    "lengths": lambda: lstm()(np.ones((3, 3, 1)), lengths=INTS),
    "state": lambda: cylstm.GRU(1, 2)(X, STATE),
    "state of several": lambda: lstm()(X, (np.zeros((1, 1, 2)), STATE)),
    "dy": lambda: trained(lstm(), X).backward(np.ma.masked_all((3, 1, 2))),
    "ds_n": lambda: trained(cylstm.GRU(1, 2), X).backward(np.ones((3, 1, 2)), STATE),
    "open size": lambda: cylstm.Pooling("max")(HOLE),
    "rows": lambda: cylstm.Linear(1, 2)(HOLE),
    "rows back": lambda: trained(cylstm.Linear(1, 2), HOLE.data).backward(np.ma.masked_all((3, 2))),
    "ids": lambda: cylstm.Embedding(5, 2)(np.ma.masked_equal([1, 2], 2)),
    "session": lambda: warm(Session(lstm())).run(HOLE.astype("f4")),
    "session state": lambda: warm(Session(cylstm.GRU(1, 2))).run(np.ones((3, 1), "f4"), STATE[:, 0]),
    "stream": lambda: stepped(Stream(lstm())).step(HOLE[1].astype("f4")),
    "stream.run": lambda: Stream(lstm()).run(HOLE[:, None]),
    "stream, some": lambda: Stream(lstm(), 3).step(HOLE, rows=[0, 1, 2]),
    "stream, which": lambda: Stream(lstm(), 3).step(np.ones((3, 1)), rows=INTS),
    "stream.reset": lambda: Stream(lstm(), 3).reset(INTS),
    "stream.state": lambda: setattr(Stream(cylstm.GRU(1, 2)), "state", STATE),
    "micro-batch": lambda: Session(lstm()).micro_batch().run(HOLE),
    "y": lambda: losses.MSE()(np.ma.masked_all((3, 1, 1)), X),
    "target": lambda: losses.MSE()(X, HOLE[:, None]),
    "target, check": lambda: losses.MAE().check(HOLE, 1),
    "loss, lengths": lambda: losses.MSE()(np.ones((3, 3, 1)), np.ones((3, 3, 1)), lengths=INTS),
    "labels": lambda: losses.CrossEntropy()(np.zeros((3, 2)), INTS),
    "label sequences": lambda: losses.CTC()(np.zeros((4, 1, 3)), [INTS]),
    "weight": lambda: losses.CrossEntropy(np.ma.masked_equal([1.0, 2.0], 2.0)),
    "Arrays": lambda: Arrays(HOLE[:, None], [1, 2, 3]),
    "Arrays, list": lambda: Arrays([HOLE, HOLE], [1, 2]),
    "Arrays, target": lambda: Arrays(X, HOLE),
    "Windows": lambda: Windows(HOLE, 1),
    "TokenStream": lambda: TokenStream(INTS, 1, 1),
    "pack": lambda: pack([HOLE]),
    "decode": lambda: Vocabulary.of_characters("ab").decode(INTS),
    "stratified": lambda: stratified_split(INTS),
    "load_state_dict": lambda: cylstm.Linear(1, 1).load_state_dict(
        {"weight": np.ma.masked_all((1, 1)), "bias": np.zeros(1)}
    ),
    "from_torch": lambda: cylstm.from_torch(
        {name: np.ma.masked_all(value.shape) for name, value in lstm().parameters.items()}
    ),
    "optimiser": lambda: cylstm.optim.SGD(0.1, momentum=0.5).load_state_dict(
        {"steps": 1, "lr": 0.1, "momentum": np.ma.masked_all(3)}
    ),
    "gradient_flow": lambda: cylstm.diagnostics.gradient_flow(lstm(), HOLE),
    "baselines": lambda: baselines.persistence(HOLE[:, 0], 2, 1),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_masked_value_is_used_by_no_entry(name):
    with pytest.raises(ValueError, match=MISSING):
        ENTRIES[name]()


def test_results_are_not_written_under_a_mask():
    with pytest.raises(ValueError, match="out: expected an array without a mask"):
        lstm()(X, out=np.ma.zeros((3, 1, 2), "f4"))
    with pytest.raises(ValueError, match="out: expected an array without a mask"):
        warm(Session(lstm())).run(np.ones((3, 1), "f4"), out=np.ma.zeros((3, 2), "f4"))
    with pytest.raises(ValueError, match="out: expected an array without a mask"):
        stepped(Stream(lstm())).step(np.ones(1, "f4"), out=np.ma.zeros(2, "f4"))


def test_scaler_ignores_nan_and_masked_values():
    for x in (HOLE, np.array([[1.0], [np.nan], [2.0]]), [[1.0], [None], [2.0]]):
        scaler = StandardScaler().fit(x)
        assert (scaler.offset, scaler.scale) == (1.5, 0.5)
        np.testing.assert_array_equal(scaler.transform(x), [[-1], [np.nan], [1]])
    scaler = cylstm.data.MinMaxScaler().fit(HOLE)
    assert (scaler.offset, scaler.scale) == (1, 1)


def test_tensors_are_read_by_their_values():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.arange(6.0, requires_grad=True).reshape(3, 1, 2)
    layer = cylstm.GRU(2, 3, seed=0)
    expected = layer(np.arange(6.0).reshape(3, 1, 2))[0]
    for form in (x, x.to(torch.bfloat16), x.half(), list(x), torch.nn.Parameter(x.detach())):
        np.testing.assert_array_equal(layer(form)[0], expected)
    np.testing.assert_array_equal(read(torch.ones(2, dtype=torch.float8_e4m3fn)), [1, 1])
    np.testing.assert_array_equal(read([torch.tensor(1.0, requires_grad=True), 2]), [1, 2])
    for tensor, message in [
        (torch.ones(2, device="meta"), r"x: expected a tensor on the CPU, got one on meta; pass x.cpu\(\)"),
        (torch.eye(2).to_sparse(), r"x: expected a dense tensor, got torch.sparse_coo; pass x.to_dense\(\)"),
        (torch.ones(2, dtype=torch.complex64), "x: expected real numbers, got dtype torch.complex64"),
    ]:
        with pytest.raises(TypeError, match=message):
            read(tensor)


def test_small_floats_of_ml_dtypes_are_read():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    for name in ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4"):
        result = read(np.array([1, 2]).astype(getattr(ml_dtypes, name)))
        assert result.dtype in (np.float32, np.int8)
        np.testing.assert_array_equal(result, [1, 2])


def test_sparse_arrays_are_refused_with_the_way_to_a_dense_one():
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    with pytest.raises(TypeError, match=r"x: expected real numbers, got csr_array; pass x.toarray\(\)"):
        read(sparse.csr_array(np.eye(2)))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: cylstm.LSTM(2, True), TypeError, "hidden_size: expected a positive int, got True"),
        (lambda: cylstm.LSTM(2, np.True_), TypeError, "hidden_size: expected a positive int, got"),
        (lambda: cylstm.LSTM(2, 3.0), TypeError, "hidden_size: expected a positive int, got 3.0"),
        (lambda: cylstm.LSTM("2", 3), TypeError, "input_size: expected a positive int, got '2'"),
        (lambda: cylstm.LSTM(2, 3, bias="False"), TypeError, "bias: expected True or False, got 'False'"),
        (
            lambda: cylstm.GRU(2, 3, batch_first=1.5),
            TypeError,
            "batch_first: expected True or False, got 1.5",
        ),
        (lambda: cylstm.LSTM(2, 3, dropout="0.1"), TypeError, "dropout: expected a number, got '0.1'"),
        (lambda: cylstm.LSTM(2, 3, dropout=True), TypeError, "dropout: expected a number, got True"),
        (lambda: cylstm.LSTM(2, 3, dropout=float("nan")), ValueError, "dropout: expected a number in"),
        (lambda: cylstm.LSTM(2, 3, dropout=np.array([0.1])), TypeError, "dropout: expected a number, got"),
        (lambda: cylstm.LSTM(2, 3, seed=True), ValueError, "seed: expected a non-negative int or None"),
        (lambda: cylstm.optim.SGD(True), TypeError, "lr: expected a number, got True"),
        (lambda: cylstm.optim.SGD("1e-3"), TypeError, "lr: expected a number, got '1e-3'"),
        (lambda: cylstm.optim.SGD(0.1, 0.5, nesterov="no"), TypeError, "nesterov: expected True or False"),
        (lambda: losses.CrossEntropy(ignore_index=False), TypeError, "ignore_index: expected an int or None"),
        (lambda: losses.MSE(batch_first="no"), TypeError, "batch_first: expected True or False, got 'no'"),
        (lambda: cylstm.set_num_threads(True), TypeError, "expected a positive int, got True"),
        (lambda: Windows(np.arange(9.0), True), TypeError, "length: expected a positive int, got True"),
        (lambda: Stream(lstm(), True), TypeError, "batch_size: expected a positive int, got True"),
    ],
)
def test_neither_bools_nor_texts_are_numbers(call, error, message):
    with pytest.raises(error, match=message):
        call()


LAYERS = {
    "LSTM": lambda: cylstm.LSTM(3, 3, seed=0),
    "GRU, two": lambda: cylstm.GRU(3, 3, 2, bidirectional=True, seed=0),
    "Linear": lambda: cylstm.Linear(3, 3, seed=0),
    "LayerNorm": lambda: cylstm.LayerNorm(3),
    "Activation": lambda: cylstm.Activation("tanh", features=3),
    "Residual": lambda: cylstm.Residual(cylstm.Linear(3, 3, seed=0)),
    "Sequential": lambda: cylstm.Sequential(cylstm.Linear(3, 3, seed=0), cylstm.LSTM(3, 2, seed=1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_keeps_no_view_of_input(name, rng):
    """What is written to x, y or dy afterwards changes no gradient."""
    x, results = rng.standard_normal((4, 2, 3)).astype(np.float32), []
    for overwrite in (False, True):
        layer, given = LAYERS[name]().train(), x.copy()
        y = layer(given)
        y = y[0] if isinstance(y, tuple) else y
        dy = np.ones_like(y)
        if overwrite:
            given[...], y[...] = np.nan, np.nan
        dx = layer.backward(dy)
        dx = dx[0] if isinstance(dx, tuple) else dx
        before = {key: gradient.copy() for key, gradient in layer.gradients.items()}
        dy[...] = np.nan
        results.append([dx, *before.values()])
        for key, gradient in layer.gradients.items():
            np.testing.assert_array_equal(gradient, before[key])
    for ours, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_array_equal(ours, expected)
