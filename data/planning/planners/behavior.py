"""The policy that generated the logs."""

from dataclasses import dataclass
from typing import ClassVar

from sdm.data.planning.backward import frequencies, plan_backward
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner


@register_planner
@dataclass(frozen=True)
class Behavior:
    """Relative frequencies of actions after each observation (behavior cloning).

    If those who acted saw more than the logs have, it is worth less than their policy.
    """

    name: ClassVar[str] = "behavior"

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the policy; see `Planner`."""
        own = evidence.behavior
        return plan_backward(evidence, frequencies(evidence), lambda q: own, horizon)
