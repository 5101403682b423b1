"""Doubly robust estimation (Jiang, Li 2016); see `off_policy.doubly_robust`."""

import numpy as np
from jaxtyping import Float

from sdm.data.off_policy.doubly_robust import scores
from sdm.data.off_policy.estimator import (
    Diagnosis,
    Estimate,
    Values,
    register_estimator,
)
from sdm.data.off_policy.sample import Sample
from sdm.data.off_policy.stagewise import mean, weight_diagnosis


@register_estimator
class DoublyRobust:
    """Corrects fitted values by importance sampling."""

    name = "dr"
    title = "doubly robust"

    def refuse(self, sample: Sample) -> None:
        """Return None: it fits every policy."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        found, powers = scores(sample), sample.powers
        paid = sample.weight * found.paid
        each = [
            ((sample.before * prior + paid) * powers).sum(-1)
            for prior in (found.prior, found.prior_low, found.prior_high)
        ]

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            return Values(*(mean(one, weights) for one in each))

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size of the weights."""
        return weight_diagnosis(sample)
