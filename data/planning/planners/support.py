"""The plan for relative frequencies, restricted to actions that were seen often."""

from dataclasses import dataclass
from typing import ClassVar

from sdm.data.planning.backward import frequencies, greedy, plan_backward, visited
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner
from sdm.storage.checks import check_count
from sdm.tasks.ranges import check_between


@register_planner
@dataclass(frozen=True)
class Support:
    """Best plan for the maximum-likelihood model, among actions that were seen often.

    Where no action was, the most frequent one is taken.

    Attributes:
        min_visits: decisions from which on an action is allowed after an observation.
        min_share: share of the decisions after an observation from which on an action
            is allowed, in [0, 1].

    """

    min_visits: int = 10
    min_share: float = 0.0

    name: ClassVar[str] = "support"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("min_visits", self.min_visits, 1)
        check_between(self, ("min_share",))

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the plan; see `Planner`."""
        allowed = visited(evidence, self.min_visits, self.min_share)
        return plan_backward(evidence, frequencies(evidence), greedy(allowed), horizon)
