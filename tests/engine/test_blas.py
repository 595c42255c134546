import numpy as np
import pytest

from cylstm._engine import _blas

SIZES = [(1, 1, 1), (1, 7, 5), (3, 1, 4), (5, 9, 1), (17, 33, 15), (16, 64, 31)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("m, n, k", SIZES)
def test_gemm_is_the_matrix_product(rng, dtype, trans_a, trans_b, m, n, k):
    a = rng.standard_normal((k, m) if trans_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if trans_b else (k, n)).astype(dtype)
    start = rng.standard_normal((m, n)).astype(dtype)
    product = (a.T if trans_a else a).astype(float) @ (b.T if trans_b else b).astype(float)
    tolerance = 4 * k * np.finfo(dtype).eps

    added = start.copy()
    _blas._gemm(trans_a, trans_b, a, b, 1.0, added)
    np.testing.assert_allclose(added, start + product, rtol=0, atol=tolerance * 10)

    overwritten = np.full_like(start, np.nan)
    _blas._gemm(trans_a, trans_b, a, b, 0.0, overwritten)
    np.testing.assert_allclose(overwritten, product, rtol=0, atol=tolerance * 10)


@pytest.mark.parametrize("m, n, k", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 2, 0), (0, 0, 0)])
def test_gemm_with_empty_operands(m, n, k):
    c = np.ones((m, n))
    _blas._gemm(False, False, np.ones((m, k)), np.ones((k, n)), 1.0, c)
    assert (c == 1).all()


def test_sizes_are_checked_before_memory_is_touched():
    with pytest.raises(ValueError, match="inner sizes"):
        _blas._gemm(False, False, np.ones((2, 3)), np.ones((4, 5)), 0.0, np.ones((2, 5)))
    with pytest.raises(ValueError, match="outer sizes"):
        _blas._gemm(False, True, np.ones((2, 3)), np.ones((4, 3)), 0.0, np.ones((2, 5)))


@pytest.mark.skipif(_blas.integer_bits() == 64, reason="needs a BLAS of 32-bit integers to refuse a size")
def test_a_dimension_beyond_blas_is_refused():
    with pytest.raises(ValueError, match="2147483648"):
        _blas.require(2**31)
