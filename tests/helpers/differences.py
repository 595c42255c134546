"""Numerical derivatives, for checking gradients."""

import numpy as np


def gradient(f, array, h=1e-3):
    """4th-order central differences of the scalar f() with respect to every element of array, in place."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        direction = np.zeros_like(array)
        direction[index] = 1
        result[index] = along(f, array, direction, h)
    return result


def along(f, array, direction, h=1e-3):
    """The same along one direction: what `gradient` times the direction is."""
    kept, values = array.copy(), []
    for step in (-2, -1, 1, 2):
        array[...] = kept + step * h * direction
        values.append(f())
    array[...] = kept
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
