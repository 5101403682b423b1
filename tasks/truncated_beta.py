"""Means of truncated Beta distributions."""

import numpy as np
from numpy.typing import NDArray
from scipy import special


def truncated_beta_mean(
    a: NDArray[np.float64], b: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Return the mean of Beta(a, b) truncated to [low, high], elementwise.

    The interval may be a single point. If its probability underflows in double
    precision, return the end that is nearer to the mean of Beta(a, b).
    """
    if low == high:
        return np.full(np.shape(a), low)

    def mass(a: NDArray[np.float64]) -> NDArray[np.float64]:
        # In the upper tail, both distribution functions are near 1: the difference of
        # the survival functions avoids cancellation.
        lower = special.betainc(a, b, high) - special.betainc(a, b, low)
        upper = special.betaincc(a, b, low) - special.betaincc(a, b, high)
        return np.where(special.betainc(a, b, low) > 0.5, upper, lower)

    there = mass(a)
    left = there > np.finfo(float).tiny / np.finfo(float).eps
    mean = a / (a + b) * mass(a + 1) / np.where(left, there, 1)
    nearer = np.where(a / (a + b) > (low + high) / 2, high, low)
    return np.where(left, np.clip(mean, low, high), nearer)
