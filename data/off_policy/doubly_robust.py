r"""Doubly robust estimation: importance sampling of what fitted values miss.

    V = Σ_t γ^t Σ_i ( w_{i,t-1} V_t(h_i) + w_it ( r_it − Q_t(s_it, a_it) ) )

With w_it = ρ_it / N (Jiang, Li 2016), it is unbiased if the behavior policy is known,
whatever Q is; with normalised weights (Thomas, Brunskill 2016), it is consistent and
less variable. Q is cross-fitted: each half of the episodes gets values that are fitted
to the other half. They are the same in every bootstrap resample.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sdm.data.off_policy.sample import Sample
from sdm.data.off_policy.stage_values import FittedStages, by_mean


@dataclass(frozen=True)
class Scores:
    """Contributions to the doubly robust estimates.

    Attributes:
        prior: V_t before each decision.
        prior_low: V_t if unsupported actions have the smallest possible return.
        prior_high: V_t if they have the largest.
        paid: r − Q of each decision.

    """

    prior: Float[np.ndarray, "N T"]
    prior_low: Float[np.ndarray, "N T"]
    prior_high: Float[np.ndarray, "N T"]
    paid: Float[np.ndarray, "N T"]


def scores(sample: Sample) -> Scores:
    """Return the contributions of every decision."""
    fitted = FittedStages(sample)
    half = np.arange(sample.logs.episodes) % 2
    shape = sample.acted.shape
    q, value, fill = (np.zeros(shape) for _ in range(3))
    for own in (0, 1):
        fit = fitted.along((half != own).astype(float), by_mean)
        mine = half == own
        q[mine], value[mine] = fit.action_value[mine], fit.value[mine]
        fill[mine] = fit.fill[mine]
    ranges, lost = sample.ranges, sample.unsupported
    return Scores(
        prior=value,
        prior_low=value + lost * (ranges.floor - fill),
        prior_high=value + lost * (ranges.ceiling - fill),
        paid=np.where(sample.acted, sample.logs.reward - q, 0.0),
    )
