"""A lower confidence bound on a mean that holds for every number of episodes.

For numbers y_1, ..., y_n that are independent, have mean μ and are not below w, and
stakes λ_i in [0, 1 / (m - w)) that depend on y_1, ..., y_{i-1} only,

    K_i(m) = Π_{j ≤ i} (1 + λ_j (y_j - m))

has an expectation of at most 1 if μ ≤ m, so that it ever reaches 1 / α with probability
at most α. The bound is the largest m at which it does (Waudby-Smith and Ramdas, 2024,
*Estimating means of bounded random variables by betting*, with their predictable
stakes). In n equal numbers, it is below them by a little more than -ln(α) / n of their
distance to w: what has happened to nobody may still happen to three in n.
"""

import numpy as np
from jaxtyping import Float
from scipy import optimize

MOST = 0.9  # share of what is left after the smallest number, at stake


def lower_mean(
    numbers: Float[np.ndarray, " n"], least: float, *, confidence: float
) -> float:
    """Return a lower confidence bound on the mean of independent numbers.

    Args:
        numbers: the numbers, in an order that does not depend on them.
        least: the smallest possible number.
        confidence: probability of the bound, in (0, 1).

    """
    centred = np.maximum(numbers, least) - least
    span = float(centred.max())
    if span == 0:
        return least
    y = centred / span
    stake = _stakes(y, confidence)

    def excess(m: float) -> float:
        """Return the logarithm of the largest capital over the needed one."""
        bets = np.minimum(stake, MOST / m) if m > 0 else stake
        capital = np.log1p(bets * (y - m)).cumsum().max()
        return float(capital + np.log1p(-confidence))

    if excess(0.0) < 0:
        return least
    # Nothing is won if m = 1, the largest number.
    return least + span * float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-12))


def _stakes(y: Float[np.ndarray, " n"], confidence: float) -> Float[np.ndarray, " n"]:
    """Return stakes for numbers in [0, 1], each from those before it."""
    n = len(y)
    count = np.arange(1, n + 1)
    mean = (0.5 + y.cumsum()) / (count + 1)
    spread = (0.25 + ((y - mean) ** 2).cumsum()) / (count + 1)
    before = np.concatenate([[0.25], spread[:-1]])
    return np.sqrt(-2 * np.log1p(-confidence) / (n * before))
