"""Measures of exploration in bandits, from the arms that replicates took.

Source: Krishnamurthy, Harris, Foster, Zhang and Slivkins (2024), Can large language
models explore in-context?, Section 2. Regret over a few hundred rounds is too noisy to
tell a policy that stops exploring from one that explores; these measures are not.
"""

import numpy as np
from jaxtyping import Bool, Float, Int


def suffix_failure_frequency(optimal: Bool[np.ndarray, "R T"], first: int) -> float:
    """Return the share of replicates that never take a best arm from a round on.

    Args:
        optimal: whether each arm taken was a best one.
        first: first round of the suffix, counted from 1.

    Raises:
        ValueError: if `first` is not a round.

    """
    if not 1 <= first <= optimal.shape[-1]:
        raise ValueError(f"first = {first}: must be a round, 1 to {optimal.shape[-1]}")
    return float((~optimal[:, first - 1 :].any(-1)).mean())


def k_min_fraction(action: Int[np.ndarray, "R T"], arms: int) -> float:
    """Return K times the mean over replicates of the smallest share of an arm.

    It is 1 if arms are taken equally often, and 0 if one is never taken.
    """
    share = (action[..., None] == np.arange(arms)).mean(1)
    return float(arms * share.min(-1).mean())


def greedy_fraction(
    action: Int[np.ndarray, "R T"],
    reward: Float[np.ndarray, "R T K"],
    seen: Bool[np.ndarray, "R T K"],
) -> float:
    """Return the share of rounds on an arm of the highest mean reward so far.

    Arms without a reward do not count, nor does the first round.

    Args:
        action: arms taken.
        reward: reward of each arm in each round.
        seen: whether the agent saw it.

    """
    count = np.cumsum(seen, 1)[:, :-1]
    total = np.cumsum(np.where(seen, reward, 0.0), 1)[:, :-1]
    mean = np.where(count > 0, total / np.maximum(count, 1), -np.inf)
    taken = np.take_along_axis(mean, action[:, 1:, None], -1)[..., 0]
    # Sums of equal rewards in another order can differ in their last digits.
    best = mean.max(-1)
    return float(
        (taken >= best - 1e-9 * np.maximum(1, np.abs(best))).mean()
        if taken.size
        else np.nan
    )
