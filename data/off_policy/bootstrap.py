"""Bayesian bootstrap over episodes (Rubin 1981).

Every resample weights the episodes by independent exponential numbers, instead of
drawing them with replacement. No episode vanishes from a resample, so that all
resamples have data for the same observations and actions.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from scipy import stats

from sdm.data.off_policy.estimator import Estimate, Values

AT_ONCE = 1 << 22  # weights held together, of 8 bytes
LEVEL = 0.95
# Effective episodes below which a bootstrap interval means nothing.
LEAST = 10
Progress = Callable[[int, int], None]  # completed and all resamples


def weightings(
    episodes: int, resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "R N"]]:
    """Yield blocks of weights; the first row of the first has equal weights.

    The weights depend on the seed, the number of episodes and the number of resamples
    before only, so that policies share them.
    """
    random = np.random.default_rng(seed)
    rows = max(1, min(resamples + 1, AT_ONCE // episodes))
    for first in range(0, resamples + 1, rows):
        count = min(rows, resamples + 1 - first)
        block = np.ones((count, episodes))
        start = 1 if first == 0 else 0
        block[start:] = random.standard_exponential((count - start, episodes))
        yield block


def resampled(
    estimate: Estimate,
    episodes: int,
    resamples: int,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> Values:
    """Return the estimate from the logs in the first row, then those of resamples."""
    found, done = list[Values](), 0
    for block in weightings(episodes, resamples, seed):
        found.append(estimate(block))
        done += len(block)
        progress(done, resamples + 1)
    return Values(
        *(
            np.concatenate([getattr(each, name) for each in found])
            for name in ("value", "low", "high")
        )
    )


def interval(
    low: Float[np.ndarray, " R"], high: Float[np.ndarray, " R"], effective: float
) -> tuple[float, float]:
    """Return the lower end of the interval of `low`, and the upper end for `high`.

    The interval is the union of two 95 % intervals: percentiles of the resamples, and
    the estimate ± their standard deviation times the quantile of Student's t. Alone,
    each is too narrow for skewed weights (`benchmarks/results/off_policy.md`).

    Args:
        low: an estimate, then those of resamples.
        high: the same, or an estimate that is larger.
        effective: effective sample size, for the degrees of freedom.

    """
    outside = (1 - LEVEL) / 2
    factor = stats.t.ppf(1 - outside, max(1.0, effective - 1))
    below = min(np.quantile(low[1:], outside), low[0] - factor * low[1:].std())
    above = max(np.quantile(high[1:], 1 - outside), high[0] + factor * high[1:].std())
    return float(below), float(above)
