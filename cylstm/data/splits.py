"""Splits of data: chronological, or stratified by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cylstm import _checks
from cylstm._checks import array_like
from cylstm.data.source import Index


def split(series: Any, validation: float = 0.1, test: float = 0.0, gap: int = 0) -> tuple[slice, ...]:
    """Split rows chronologically: training, validation and test data follow each other in time.

    Parameters
    ----------
    series : int or anything with a length
        Rows or samples, the earliest first, or their number.
    validation, test : float
        Fractions of the rows, each rounded to at least one row; 0 for none.
    gap : int
        Rows to leave out between the parts, for data in which neighbouring rows are correlated.

    Returns
    -------
    tuple of slice
        For training, validation and test; parts with fraction 0 are left out.

    Raises
    ------
    ValueError
        If no training rows would be left.

    Examples
    --------
    >>> from cylstm.data import split
    >>> split(100, validation=0.2)
    (slice(0, 80, None), slice(80, 100, None))
    >>> split([0.5] * 100, validation=0.2, test=0.1, gap=5)
    (slice(0, 60, None), slice(65, 85, None), slice(90, 100, None))
    """
    n = len(series) if hasattr(series, "__len__") else _checks.positive("series", series)
    fractions = {
        "test": _checks.number("test", test, 0, 1),
        "validation": _checks.number("validation", validation, 0, 1),
    }
    gap = _checks.natural("gap", gap)
    parts, end = [], n
    for fraction in fractions.values():
        if fraction:
            parts.append(slice(end - max(round(n * fraction), 1), end))
            end = parts[-1].start - gap
    if end < 1:
        raise ValueError(
            f"series: expected at least one training row, got {n} rows for validation {validation}, "
            f"test {test} and gap {gap}"
        )
    return (slice(0, end), *reversed(parts))


def stratified_split(
    labels: Sequence[Any], validation: float = 0.2, seed: int | None = None
) -> tuple[Index, Index]:
    """Split samples at random into training and validation data with the same class frequencies.

    Parameters
    ----------
    labels : sequence
        The class of each sample.
    validation : float
        Fraction of each class, rounded to at least one sample. A class of one sample is training data.
    seed : int, optional

    Returns
    -------
    train, validation : ndarray of int
        Sample indices in ascending order.

    Raises
    ------
    ValueError
        If no class has two samples.

    Examples
    --------
    >>> from cylstm.data import stratified_split
    >>> labels = ["a"] * 8 + ["b"] * 4
    >>> train, validation = stratified_split(labels, 0.25, seed=0)
    >>> len(train), [labels[i] for i in validation]
    (9, ['a', 'a', 'b'])
    """
    fraction, rng = _checks.number("validation", validation, 0, 1), _checks.generator(seed)
    _, of_class = np.unique(np.asarray(array_like.labels("labels", labels)), return_inverse=True)
    chosen = []
    for k in range(of_class.max(initial=-1) + 1):
        (members,) = np.nonzero(of_class == k)
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        chosen.append(rng.permutation(members)[:count])
    held_out = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)
    if not len(held_out):
        raise ValueError(f"labels: expected a class of two samples or more, got {len(of_class)} samples")
    return np.setdiff1d(np.arange(len(of_class)), held_out), held_out
