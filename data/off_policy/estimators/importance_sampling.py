r"""Ordinary importance sampling (Precup, Sutton, Singh 2000).

    V = 1/N Σ_i ρ_{i,T-1} Σ_t γ^t r_it

It is unbiased if the behavior policy is known and gives every action of the policy a
positive probability. Its variance grows exponentially with the horizon.
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
class ImportanceSampling:
    """Weights the return of each episode."""

    name = "is"
    title = "importance sampling"

    def refuse(self, sample: Sample) -> None:
        """Return None: it fits every policy."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        earned = np.cumsum(sample.logs.reward * sample.powers, -1)
        whole = sample.weight[:, -1] * earned[:, -1]
        before = np.concatenate([np.zeros((len(earned), 1)), earned[:, :-1]], -1)
        lost = sample.before * sample.unsupported
        low, high = (
            whole + (lost * (before + sample.powers * to_go)).sum(-1)
            for to_go in (sample.ranges.floor, sample.ranges.ceiling)
        )

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            return Values(*(mean(each, weights) for each in (whole, low, high)))

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size of the weights."""
        return weight_diagnosis(sample)
