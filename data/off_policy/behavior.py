"""The behavior policy of logs, estimated from counts."""

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import NOTHING, Logs


def action_counts(logs: Logs) -> Int[np.ndarray, "S A"]:
    """Return how often each action follows each observation, over all stages."""
    acted = logs.action != NOTHING
    seen = logs.observation[:, : logs.horizon][acted]
    counts = np.zeros((len(logs.observations), len(logs.actions)), np.int64)
    np.add.at(counts, (seen, logs.action[acted]), 1)
    return counts


def estimated_behavior(logs: Logs) -> Float[np.ndarray, "S A"]:
    """Return the relative frequency of each action after each observation.

    It is the maximum-likelihood estimate of a behavior policy that depends on the
    observation only; uniform after observations without a logged action.
    """
    counts = action_counts(logs).astype(float)
    total = counts.sum(-1, keepdims=True)
    equal = np.full_like(counts, 1 / counts.shape[1])
    return np.divide(counts, total, out=equal, where=total > 0)


def behavior_probability(logs: Logs) -> Float[np.ndarray, "N T"]:
    """Return the probability of each logged action; 1 after the end of an episode.

    It is the logged one, or else the estimated one.

    Raises:
        ValueError: if a logged probability is not in (0, 1].

    """
    acted = logs.action != NOTHING
    if logs.probability is None:
        seen = np.where(acted, logs.observation[:, : logs.horizon], 0)
        chance = estimated_behavior(logs)[seen, np.where(acted, logs.action, 0)]
        return np.where(acted, chance, 1.0)
    wrong = acted & ~((logs.probability > 0) & (logs.probability <= 1))
    if wrong.any():
        i, t = (int(x) for x in np.argwhere(wrong)[0])
        raise ValueError(
            f"behavior probability: must lie in (0, 1], since the action was taken, "
            f"found {logs.probability[i, t]} in episode {i}, step {t} "
            f"({int(wrong.sum())} of {int(acted.sum())} decisions are wrong)"
        )
    return np.where(acted, logs.probability, 1.0)
