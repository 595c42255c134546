"""Parts of data: in order of time, or of every class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cylstm import _checks
from cylstm._checks import array_like
from cylstm.data.source import Index


def split(series: Any, validation: float = 0.1, test: float = 0.0, gap: int = 0) -> tuple[slice, ...]:
    """Rows for training, validation and test, in order of time: what is judged is later than what is learnt.

    Parameters
    ----------
    series : int or anything with a length
        Rows or samples, the earliest first, or how many there are.
    validation, test : float
        Shares of the rows, each rounded to at least one row; 0 for none.
    gap : int
        Rows that are left out between the parts, for data in which neighbours know of each other.

    Returns
    -------
    tuple of slice
        For training, validation and test; none for a share of 0.

    Raises
    ------
    ValueError
        If nothing would be left to learn from.

    Examples
    --------
    >>> from cylstm.data import split
    >>> split(100, validation=0.2)
    (slice(0, 80, None), slice(80, 100, None))
    >>> split([0.5] * 100, validation=0.2, test=0.1, gap=5)
    (slice(0, 60, None), slice(65, 85, None), slice(90, 100, None))
    """
    n = len(series) if hasattr(series, "__len__") else _checks.positive("series", series)
    shares = {
        "test": _checks.number("test", test, 0, 1),
        "validation": _checks.number("validation", validation, 0, 1),
    }
    gap = _checks.natural("gap", gap)
    parts, end = [], n
    for share in shares.values():
        if share:
            parts.append(slice(end - max(round(n * share), 1), end))
            end = parts[-1].start - gap
    if end < 1:
        raise ValueError(
            f"series: expected rows to learn from, got {n} rows for validation {validation}, test {test} "
            f"and gap {gap}"
        )
    return (slice(0, end), *reversed(parts))


def stratified_split(
    labels: Sequence[Any], validation: float = 0.2, seed: int | None = None
) -> tuple[Index, Index]:
    """Samples for training and for validation, chosen at random, with the same shares of every class.

    Parameters
    ----------
    labels : sequence
        The class of each sample.
    validation : float
        Share of each class, rounded, to one sample at least; a class of one sample is learnt from only.
    seed : int, optional

    Returns
    -------
    train, validation : ndarray of int
        Numbers of samples in ascending order.

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
    share, rng = _checks.number("validation", validation, 0, 1), _checks.generator(seed)
    _, of_class = np.unique(np.asarray(array_like.labels("labels", labels)), return_inverse=True)
    chosen = []
    for k in range(of_class.max(initial=-1) + 1):
        (members,) = np.nonzero(of_class == k)
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen.append(rng.permutation(members)[:count])
    held_out = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)
    if not len(held_out):
        raise ValueError(f"labels: expected a class of two samples or more, got {len(of_class)} samples")
    return np.setdiff1d(np.arange(len(of_class)), held_out), held_out
