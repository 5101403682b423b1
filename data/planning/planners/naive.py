"""The plan for relative frequencies, as if they were the truth."""

from dataclasses import dataclass
from typing import ClassVar

from sdm.data.planning.backward import frequencies, greedy, plan_backward, visited
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner


@register_planner
@dataclass(frozen=True)
class Naive:
    """Best plan for the maximum-likelihood model, among all actions that were seen.

    Its claim is too high: of many noisy values, the largest is chosen.
    """

    name: ClassVar[str] = "naive"

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the plan; see `Planner`."""
        backup, choose = frequencies(evidence), greedy(visited(evidence, 1))
        return plan_backward(evidence, backup, choose, horizon)
