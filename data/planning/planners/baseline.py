"""Policy improvement that keeps the logged policy where the logs say little.

SPIBB, Π_b (Laroche, Trichelair, Tachet des Combes, 2019, *Safe policy improvement with
baseline bootstrapping*): pairs with few visits keep the probability of the logged
policy, and the rest of an observation's probability goes to the best other action.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sdm.data.planning.backward import frequencies, plan_backward
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner
from sdm.storage.checks import check_count


@register_planner
@dataclass(frozen=True)
class Baseline:
    """Improvement on the logged policy, which is kept for rare actions (SPIBB).

    Attributes:
        min_visits: decisions from which on the probability of an action can change.

    """

    min_visits: int = 10

    name: ClassVar[str] = "baseline"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("min_visits", self.min_visits, 1)

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the plan; see `Planner`."""
        rare = evidence.visits < self.min_visits
        kept = np.where(rare, evidence.behavior, 0.0)
        free = np.where(rare.all(1), 0.0, 1 - kept.sum(1))

        def choose(q: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
            best = np.where(rare, -np.inf, q).argmax(1)
            return kept + free[:, None] * np.eye(q.shape[1])[best]

        return plan_backward(evidence, frequencies(evidence), choose, horizon)
