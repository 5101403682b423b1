r"""Per-decision weighted importance sampling (Precup, Sutton, Singh 2000).

    V = Σ_t γ^t Σ_i w_it r_it,   w_it = ρ_it / Σ_j ρ_jt

It is consistent, biased for few episodes, and much less variable than the estimators
whose weights are not normalised.
"""

import numpy as np
from jaxtyping import Float

from sdm.data.off_policy.estimator import (
    Diagnosis,
    Estimate,
    Values,
    register_estimator,
)
from sdm.data.off_policy.sample import Sample
from sdm.data.off_policy.stagewise import normalised, weight_diagnosis


@register_estimator
class WeightedPerDecision:
    """Normalises the weights of each stage."""

    name = "wpdis"
    title = "per-decision weighted importance sampling"

    def refuse(self, sample: Sample) -> None:
        """Return None: it fits every policy."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        paid, lost = sample.logs.reward, sample.unsupported
        ends = (sample.ranges.floor, sample.ranges.ceiling)
        low, high = (lost * to_go for to_go in ends)

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            return Values(
                normalised(sample, weights, np.zeros_like(paid), paid, partial=False),
                normalised(sample, weights, low, paid, partial=True),
                normalised(sample, weights, high, paid, partial=True),
            )

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size of the weights."""
        return weight_diagnosis(sample)
