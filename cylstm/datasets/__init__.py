"""Datasets included in the package."""

import numpy as np
from numpy.typing import NDArray


def elnino() -> NDArray[np.float64]:
    """Sea-surface temperature off Peru, the El Niño series.

    Monthly averages of the region 0-10° S, 80-90° W, January 1950 to December 2010.

    Returns
    -------
    ndarray
        (732,) in °C, in order of time.

    Notes
    -----
    Source: National Oceanic and Atmospheric Administration's National Weather Service,
    ERSST.V3B, as shipped by statsmodels 0.14 (`statsmodels.datasets.elnino`), whose notice
    says: "This data is in the public domain."

    Examples
    --------
    >>> from cylstm import datasets
    >>> values = datasets.elnino()
    >>> len(values), float(values[0])
    (732, 23.11)
    """
    from importlib import resources

    with resources.files(__package__).joinpath("elnino.csv").open(encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, 1:].reshape(-1)
