"""The plan for a hierarchical posterior, in which rows shrink to those of their state.

See `data.planning.pooling` for the prior. Actions without visits have the mean values
of their observation, so that they are never better than it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sdm.data.planning.backward import greedy, plan_backward, visited
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner
from sdm.data.planning.pooling import pooling_weights
from sdm.storage.checks import check_count


@register_planner
@dataclass(frozen=True)
class Pooled:
    """Best plan for the posterior mean under a prior that is estimated from the logs.

    Attributes:
        min_visits: decisions from which on an action is allowed after an observation.

    """

    min_visits: int = 1

    name: ClassVar[str] = "pooled"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("min_visits", self.min_visits, 1)

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the plan; see `Planner`."""
        weight, discount = pooling_weights(evidence), evidence.space.discount
        mean = evidence.pooled_reward[:, None]
        reward = weight * evidence.reward + (1 - weight) * mean

        def backup(after: Float[np.ndarray, " S1"]) -> Float[np.ndarray, "S A"]:
            own = (evidence.rows @ after).reshape(weight.shape)
            every = (evidence.pooled_rows @ after)[:, None]
            return reward + discount * (weight * own + (1 - weight) * every)

        choose = greedy(visited(evidence, self.min_visits))
        return plan_backward(evidence, backup, choose, horizon)
