"""The reference of the layers around the recurrent ones, where it has a function of its own."""

import math

import numpy as np
import pytest

from cylstm.reference import layers


@pytest.mark.parametrize("z", np.linspace(-6, 6, 49))
def test_the_error_function_is_that_of_the_c_library(z):
    assert layers.erfc(z) == pytest.approx(math.erfc(z), rel=1e-13)


@pytest.mark.parametrize("how", ["last", "mean", "max", "ends"])
def test_pooling_of_no_steps_is_zero(how):
    np.testing.assert_array_equal(layers.pooling(np.ones((0, 4)), how), np.zeros(4))
