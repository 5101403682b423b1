"""Configuration of a study of judges."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdm.data.benchmark import EvaluationConfig
from sdm.data.request import family_header
from sdm.feedback.reward_model import RewardConfig
from sdm.feedback.uses import ADDED, use_of
from sdm.storage.checks import check_count
from sdm.tasks.family import TaskFamily
from sdm.tasks.models import check_horizon


@dataclass(frozen=True)
class FeedbackConfig:
    """Configuration of a study of judges.

    Attributes:
        family: family of the tasks.
        horizon: decisions per episode, T; the family's default, energy 10.
        tasks: number of unseen tasks; the family's default, energy 100.
        reward: how preferences are asked for and fitted.
        uses: ways to use the reward.
        weights: factors of the reward; 1 stretches the scores of a task's states over
            the range of its rewards.
        lookaheads: decisions that a planner sees at each stage; 0 for all.

    """

    family: TaskFamily
    horizon: int
    tasks: int
    reward: RewardConfig
    uses: tuple[str, ...] = ("potential", "added")
    weights: tuple[float, ...] = (0.05, 0.2, 1.0)
    lookaheads: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_horizon(self.horizon)
        check_count("tasks", self.tasks, 1)
        if "mdp" not in self.family.kinds:
            raise ValueError(
                f"family `{self.family.name}`: judges compare observed states, found "
                f"the kinds {', '.join(sorted(self.family.kinds))}"
            )
        for use in self.uses:
            use_of(use)
        for weight in self.weights:
            if not np.isfinite(weight) or weight < 0:
                raise ValueError(f"weight = {weight:g}: must be 0 or more")
        for lookahead in self.lookaheads:
            check_count("lookahead", lookahead, 0)

    def describe(self) -> dict[str, Any]:
        """Return everything that determines a cell but its judge and seed."""
        return {
            **family_header(self.family, "mdp"),
            "horizon": self.horizon,
            "tasks": self.tasks,
            "reward": vars(self.reward),
            "uses": list(self.uses),
            "weights": list(self.weights),
            "lookaheads": list(self.lookaheads),
        }


def benchmark_of(
    config: FeedbackConfig, seed: int, trajectories: int = 1
) -> EvaluationConfig:
    """Return the benchmark with the tasks of a seed, and the same demonstrations."""
    return EvaluationConfig(
        config.family,
        config.horizon,
        config.tasks,
        trajectories,
        config.reward.support,
        seed,
    )


def uses_and_weights(config: FeedbackConfig) -> list[tuple[str, float]]:
    """Return each use with its weights, after one of weight 0."""
    weighed = [
        (name, weight)
        for name in config.uses
        for weight in (config.weights if use_of(name).weighted else (1.0,))
    ]
    return [(ADDED, 0.0), *(pair for pair in weighed if pair[1] > 0)]
