r"""Sums over decisions that importance-sampling estimators share.

A *contribution* of decision t of episode i is a number for the decisions before it and
one for those up to it, to be weighted by ρ_{i,t-1} and ρ_it. Ordinary estimators
average them over episodes. Weighted ones normalise the weights of every stage; if some
of the policy's probability is unsupported, they sum to the estimated probability that
an episode has taken supported actions only:

    S_t = S_{t-1} (1 − Σ_i ρ_{i,t-1} u_it / Σ_i ρ_{i,t-1}),   S_{-1} = 1.
"""

import numpy as np
from jaxtyping import Float

from sdm.data.off_policy.estimator import Diagnosis
from sdm.data.off_policy.sample import Sample


def mean(
    contribution: Float[np.ndarray, " N"], weights: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    """Return the mean over episodes for each row of weights."""
    return weights @ contribution / weights.sum(-1)


def normalised(
    sample: Sample,
    weights: Float[np.ndarray, "R N"],
    prior: Float[np.ndarray, "N T"],
    paid: Float[np.ndarray, "N T"],
    *,
    partial: bool,
) -> Float[np.ndarray, " R"]:
    """Return Σ_t γ^t Σ_i (w_{i,t-1} prior_it + w_it paid_it) with normalised weights.

    Args:
        sample: the logs.
        weights: weights of the episodes.
        prior: contributions of the decisions before each.
        paid: contributions of the decisions up to each.
        partial: whether the weights sum to S_t rather than to 1.

    """
    left = np.ones(len(weights))
    every = weights.sum(-1)
    total = np.zeros(len(weights))
    with np.errstate(divide="ignore", invalid="ignore"):
        for t, power in enumerate(sample.powers):
            old, new = sample.before[:, t], sample.weight[:, t]
            now = weights @ new
            total += power * left * (weights @ (old * prior[:, t])) / every
            if partial:
                left *= 1 - weights @ (old * sample.unsupported[:, t]) / every
            total += power * left * (weights @ (new * paid[:, t])) / now
            every = now
    return total


def weight_diagnosis(sample: Sample) -> Diagnosis:
    """Return the effective sample size of importance weights (Kish, 1965).

    It is (Σ_i ρ_it)² / Σ_i ρ_it² at the stage where it is smallest.
    """
    weight, sizes, left = sample.weight, [], 1.0
    for t in range(weight.shape[1]):
        square = (weight[:, t] ** 2).sum()
        sizes.append(weight[:, t].sum() ** 2 / square if square > 0 else 0.0)
        before = sample.before[:, t]
        if before.sum() > 0:
            left *= 1 - before @ sample.unsupported[:, t] / before.sum()
    return Diagnosis(float(min(sizes)), float(1 - left))
