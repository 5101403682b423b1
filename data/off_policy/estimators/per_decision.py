r"""Per-decision importance sampling (Precup, Sutton, Singh 2000).

    V = 1/N Σ_i Σ_t γ^t ρ_it r_it

A reward is weighted by the decisions up to it only. It is unbiased under the conditions
of ordinary importance sampling, with less variance.
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
from sdm.data.off_policy.stagewise import mean, weight_diagnosis


@register_estimator
class PerDecision:
    """Weights each reward by the decisions up to it."""

    name = "pdis"
    title = "per-decision importance sampling"

    def refuse(self, sample: Sample) -> None:
        """Return None: it fits every policy."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        paid = ((sample.weight * sample.logs.reward) * sample.powers).sum(-1)
        lost = sample.before * sample.unsupported * sample.powers
        low, high = (
            paid + (lost * to_go).sum(-1)
            for to_go in (sample.ranges.floor, sample.ranges.ceiling)
        )

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            return Values(*(mean(each, weights) for each in (paid, low, high)))

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size of the weights."""
        return weight_diagnosis(sample)
