"""Scores by what was paid; they need no oracle."""

import numpy as np
from jaxtyping import Float

from sdm.evaluation.hindsight import lost_in_hindsight
from sdm.llm.self_training.selection import Scenarios, register_score


@register_score("regret")
def realised_regret(scenarios: Scenarios) -> Float[np.ndarray, "S L"]:
    """Return what an episode was paid less than the best in hindsight.

    In most families, the best in hindsight is the best return of the scenario's own
    episodes. A family can define another one (`evaluation.hindsight`).
    """
    lost = lost_in_hindsight(scenarios.config.family, scenarios.played)
    if lost is not None:
        return lost
    returns = scenarios.returns
    return returns.max(-1, keepdims=True) - returns


@register_score("reward", across=True)
def reward(scenarios: Scenarios) -> Float[np.ndarray, "S L"]:
    """Return the negative return: the best episodes are those of rich scenarios."""
    return -scenarios.returns
