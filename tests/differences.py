"""Numerical derivatives, for checking gradients."""

import numpy as np


def gradient(f, array, h=1e-3):
    """4th-order central differences of the scalar f() with respect to every element of array, in place."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        values = []
        for step in (-2, -1, 1, 2):
            array[index] = kept + step * h
            values.append(f())
        array[index] = kept
        result[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return result
