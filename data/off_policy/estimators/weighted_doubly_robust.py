"""Weighted doubly robust estimation (Thomas, Brunskill 2016).

See `off_policy.doubly_robust`.
"""

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
from sdm.data.off_policy.stagewise import normalised, weight_diagnosis


@register_estimator
class WeightedDoublyRobust:
    """Corrects fitted values by importance sampling with normalised weights."""

    name = "wdr"
    title = "weighted doubly robust"

    def refuse(self, sample: Sample) -> None:
        """Return None: it fits every policy."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        found = scores(sample)
        priors = (found.prior, found.prior_low, found.prior_high)

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            return Values(
                *(
                    normalised(sample, weights, prior, found.paid, partial=partial)
                    for prior, partial in zip(priors, (False, True, True), strict=True)
                )
            )

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size of the weights."""
        return weight_diagnosis(sample)
