"""The dense layer on packed weights: every instruction set, sizes around vectors, tiles and blocks."""

import itertools

import numpy as np
import pytest
import tolerances

import cylstm
from cylstm._engine import _packed, _packed_dense, isa
from cylstm.reference.dense import dense_backward, dense_forward

pytestmark = pytest.mark.skipif(
    isa.path() != "packed",
    reason="the BLAS path computes it with SciPy, which test_layers.py checks",
)

# (N, I, O): N around blocks of 256 rows, I around panels, O around tiles and the outputs taken at once.
EDGES = [1, 5, 6, 7, 11, 12, 13, 15, 16, 17, 31, 32, 33, 65]
SIZES = [
    *zip([0, 1, 2, 7, 12, 255, 256, 257, 33, 5, 600, 64, 1, 300], EDGES, EDGES[5:] + EDGES[:5], strict=True),
    (257, 17, 1), (1, 31, 1), (513, 32, 12), (16, 33, 97), (31, 65, 193),
    (6, 257, 1), (270, 257, 7), (3, 1, 257),
]  # fmt: skip


def guarded(shape, dtype, value):
    """An array of this shape between numbers that nobody is to write to, and those with it."""
    size = int(np.prod(shape))
    whole = np.full(size + 64, 1234.5, dtype)
    array = whole[32 : 32 + size].reshape(shape)
    array[...] = value
    return array, whole


class Problem:
    """A pass of PackedDense over random numbers; `start` is what the gradients hold before."""

    def __init__(self, rng, N, I, O, dtype, kind, bias=True):
        self.sizes, self.dtype, self.kind, self.bias = (N, I, O), np.dtype(dtype), kind, bias
        shapes = {"x": (N, I), "dy": (N, O), "w": (O, I), "dw": (O, I), "db": (O,) if bias else (0,)}
        self.start = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def packed(self):
        """The weights in panels, for the way there and for that back."""
        (_, I, O), w = self.sizes, self.start["w"]
        unit = _packed.panel(isa.NAMES.index(self.kind), self.dtype.itemsize)
        packed = {
            "w": np.empty(-(-O // unit) * unit * I, self.dtype),
            "w_t": np.empty(-(-I // unit) * unit * O, self.dtype),
        }
        _packed.pack_rows(packed["w"], unit, w, 1)
        _packed.pack_columns(packed["w_t"], unit, w, 1, O)
        return packed

    def forward(self, threads=1):
        """y of x, within guards that are looked at; its bias is what db begins with."""
        (N, _, O), start, kind = self.sizes, self.start, isa.NAMES.index(self.kind)
        y, whole = guarded((N, O), self.dtype, np.nan)
        _packed_dense.PackedDense(y, start["x"], self.packed()["w"], start["db"], kind).forward(threads)
        assert (whole[:32] == 1234.5).all()
        assert (whole[-32:] == 1234.5).all()
        return y

    def backward(self, need_dx=True, threads=1):
        """dw, db and x after the call, all within guards that are looked at."""
        start, packed = self.start, self.packed()
        arrays = {name: guarded(value.shape, self.dtype, value) for name, value in start.items()}
        y, x, dw, db = (arrays[name][0] for name in ("dy", "x", "dw", "db"))
        gradients = {"w_t": packed["w_t"], "dw": dw, "db": db}
        layer = _packed_dense.PackedDense(y, x, packed["w"], db.copy(), isa.NAMES.index(self.kind), gradients)
        layer.backward(need_dx, threads)
        for name, (_, whole) in arrays.items():
            assert (whole[:32] == 1234.5).all(), name
            assert (whole[-32:] == 1234.5).all(), name
        np.testing.assert_array_equal(y, start["dy"])
        return {"dw": dw, "db": db, "dx": x}

    def expected(self):
        wide = {name: value.astype(float) for name, value in self.start.items()}
        found = dense_backward(wide["dy"], wide["x"], wide["w"])
        db = wide["db"] + found["db"] if self.bias else wide["db"]
        return {"dw": wide["dw"] + found["dw"], "db": db, "dx": found["dx"]}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", isa.available())
def test_outputs_agree_with_the_reference_at_every_edge(rng, kind, dtype):
    for (N, I, O), bias in itertools.product(SIZES, [True, False]):
        p = Problem(rng, N, I, O, dtype, kind, bias)
        wide = {name: value.astype(float) for name, value in p.start.items()}
        theirs = dense_forward(wide["x"], wide["w"], wide["db"] if bias else np.zeros(O))
        scale = float(np.abs(theirs).max(initial=1))
        limits = (
            tolerances.float64(scale * I**0.5, 10) if dtype == "float64" else tolerances.float32(I, 1, scale)
        )
        np.testing.assert_allclose(p.forward(), theirs, **limits, err_msg=f"{N, I, O}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", isa.available())
@pytest.mark.parametrize("sizes", [(700, 65, 41), (5, 65, 5003)], ids=["by rows", "by columns"])
def test_outputs_of_any_number_of_threads(rng, kind, dtype, sizes):
    p = Problem(rng, *sizes, dtype, kind)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(p.forward(threads), p.forward())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", isa.available())
def test_gradients_agree_with_the_reference_at_every_edge(rng, kind, dtype):
    for (N, I, O), (bias, need_dx) in itertools.product(SIZES, [(True, True), (False, True), (True, False)]):
        p = Problem(rng, N, I, O, dtype, kind, bias)
        ours, theirs = p.backward(need_dx), p.expected()
        if not need_dx:
            np.testing.assert_array_equal(ours.pop("dx"), p.start["x"])
        for name, value in ours.items():
            scale = float(np.abs(theirs[name]).max(initial=1))
            terms = O if name == "dx" else N
            limits = (
                tolerances.float64(scale * max(1, terms**0.5), 10)
                if dtype == "float64"
                else tolerances.float32(max(terms, 1), 1, scale, backward=True)
            )
            np.testing.assert_allclose(value, theirs[name], **limits, err_msg=f"{name} of {N, I, O}")


@pytest.mark.parametrize("kind", isa.available())
def test_nonfinite_values_propagate_as_in_ieee_754(rng, kind):
    p = Problem(rng, 300, 33, 13, "float32", kind)
    p.start["dy"][7, 2], p.start["dy"][270, 12], p.start["x"][100, 32] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        theirs = p.expected()
    for threads in (1, 3):
        for name, value in p.backward(threads=threads).items():
            np.testing.assert_array_equal(np.isnan(value), np.isnan(theirs[name]), err_msg=name)
            np.testing.assert_array_equal(np.isinf(value), np.isinf(theirs[name]), err_msg=name)
    finite = np.isfinite(p.backward()["dx"]).all(axis=1)
    assert np.flatnonzero(~finite).tolist() == [7, 270]


@pytest.mark.parametrize("N, I, O", [(700, 65, 40), (2000, 257, 5), (3000, 5, 130), (4000, 33, 12)])
def test_agrees_with_torch(rng, torch, N, I, O):
    layer = cylstm.Linear(I, O, dtype="float64", seed=0).train()
    x, dy = rng.standard_normal((N, I)), rng.standard_normal((N, O))
    layer(x)
    dx = layer.backward(dy)
    wide = [torch.tensor(a, requires_grad=True) for a in (x, *layer.parameters.values())]
    torch.nn.functional.linear(*wide).backward(torch.tensor(dy))
    for ours, theirs in zip((dx, *layer.gradients.values()), wide, strict=True):
        theirs = theirs.grad.numpy()
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=scale * tolerances.TORCH["rtol"])


def test_arguments_are_checked():
    kind = isa.NAMES.index("scalar")
    unit = _packed.panel(kind, 4)
    w, b, y, x = np.zeros(unit * 3, "f"), np.zeros(2, "f"), np.zeros((4, 2), "f"), np.zeros((4, 3), "f")
    gradients = {"w_t": np.zeros(unit * 2, "f"), "dw": np.zeros((2, 3), "f"), "db": b.copy()}
    _packed_dense.PackedDense(y, x, w, b, kind, gradients).backward()
    with pytest.raises(ValueError, match="planned for inference"):
        _packed_dense.PackedDense(y, x, w, b, kind).backward()
    for name, wrong in {"w_t": np.zeros(5, "f"), "dw": np.zeros((3, 2), "f"), "db": np.zeros(2)}.items():
        with pytest.raises(ValueError, match=f"{name}: expected"):
            _packed_dense.PackedDense(y, x, w, b, kind, {**gradients, name: wrong})
