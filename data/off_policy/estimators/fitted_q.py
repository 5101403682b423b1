"""Fitted Q-evaluation with a table for each stage; see `stage_values`."""

import numpy as np
from jaxtyping import Float

from sdm.data.off_policy.estimator import (
    Diagnosis,
    Estimate,
    Values,
    register_estimator,
)
from sdm.data.off_policy.sample import Sample
from sdm.data.off_policy.stage_values import Fill, FittedStages, Stage, by_mean


@register_estimator
class FittedQ:
    """Values of actions from counts, stage by stage; no importance weights."""

    name = "fqe"
    title = "fitted Q-evaluation"

    def refuse(self, sample: Sample) -> None:
        """Return None: it fits every policy."""

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        fitted, ranges = FittedStages(sample), sample.ranges
        fills = [by_mean, _constant(ranges.floor), _constant(ranges.ceiling)]

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            used = np.ascontiguousarray(weights.T)
            found = [
                (used * fitted.first_values(used, fill)).sum(0) / used.sum(0)
                for fill in (fills[:1] if fitted.complete else fills)
            ]
            return Values(found[0], found[1 % len(found)], found[-1])

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size of the fit."""
        return FittedStages(sample).diagnose()


def _constant(to_go: Float[np.ndarray, "N T"]) -> Fill:
    """Return the fill with a bound on the return to go."""

    def fill(stage: Stage, mean: np.ndarray) -> np.ndarray:
        return to_go[stage.alive, stage.t][:, None]

    return fill
