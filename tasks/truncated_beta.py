"""Means of Beta distributions that are cut off at both ends."""

import numpy as np
from numpy.typing import NDArray
from scipy import special


def truncated_beta_mean(
    a: NDArray[np.float64], b: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Mean of Beta(a, b) conditioned on [low, high], which may be a single point.

    Where so little of the distribution lies there that nothing is left of it in double
    precision, all that counts is the end that is nearer to its mode.
    """
    if low == high:
        return np.full(np.shape(a), low)

    def mass(a: NDArray[np.float64]) -> NDArray[np.float64]:
        # In the upper tail the two distribution functions are near 1 and their
        # difference cancels; there the survival functions are subtracted instead.
        lower = special.betainc(a, b, high) - special.betainc(a, b, low)
        upper = special.betaincc(a, b, low) - special.betaincc(a, b, high)
        return np.where(special.betainc(a, b, low) > 0.5, upper, lower)

    there = mass(a)
    left = there > np.finfo(float).tiny / np.finfo(float).eps
    mean = a / (a + b) * mass(a + 1) / np.where(left, there, 1)
    nearer = np.where(a / (a + b) > (low + high) / 2, high, low)
    return np.where(left, np.clip(mean, low, high), nearer)
