import numpy as np

from cylstm import datasets


def test_elnino_is_complete():
    values = datasets.elnino()
    assert values.shape == (732,)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values[[0, 11, 12, 731]], [23.11, 21.80, 24.19, 22.07])
    assert 18 < values.min() < values.max() < 30
