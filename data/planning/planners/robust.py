"""The plan against the worst rows in L1 balls around relative frequencies.

Rectangular sets (Iyengar, 2005, *Robust dynamic programming*) with the radii of
Weissman et al. (2003), which cover all true rows at once with the stated probability:
then the claim is a lower bound on the value. For many states, the radii exceed the
largest distance unless pairs have thousands of visits. `scale` replaces them by
scale / √n, without a guarantee.

Nature moves half of the radius from the best next states of a row to the worst of all
states. A `L1MDP` has the same sets, but a dense row for every pair; here, the time of
a stage is that of sorting the transitions that occurred.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy import sparse

from sdm.data.estimation.radii import weissman_radius
from sdm.data.planning.backward import greedy, plan_backward, visited
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner
from sdm.tasks.ranges import check_between


@register_planner
@dataclass(frozen=True)
class Robust:
    """Best plan against nature in L1 balls around relative frequencies.

    Attributes:
        confidence: probability with which all rows lie in their balls, below 1.
        scale: L1 radius of a pair with one visit, of which n visits leave the share
            1/√n; 0 for radii with the stated confidence.

    """

    confidence: float = 0.95
    scale: float = 0.0

    name: ClassVar[str] = "robust"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_between(self, ("confidence",))
        check_between(self, ("scale",), most=np.inf)
        if self.confidence == 1:
            raise ValueError("confidence = 1: must be below 1")

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the plan; see `Planner`."""
        visits, discount = evidence.visits, evidence.space.discount
        radius = self.radius(evidence).ravel()

        def backup(after: Float[np.ndarray, " S1"]) -> Float[np.ndarray, "S A"]:
            future = smallest_means(evidence.rows, radius, after).reshape(visits.shape)
            return np.where(
                visits > 0, evidence.reward + discount * future, evidence.worst
            )

        return plan_backward(evidence, backup, greedy(visited(evidence, 1)), horizon)

    def radius(self, evidence: Evidence) -> Float[np.ndarray, "S A"]:
        """Return the radius of each pair's ball, at most 2."""
        visits = evidence.visits
        if self.scale:
            return np.minimum(self.scale / np.sqrt(np.maximum(visits, 1.0)), 2.0)
        return weissman_radius(visits, evidence.space.end + 1, 1 - self.confidence)


def smallest_means(
    rows: sparse.csr_array,
    radius: Float[np.ndarray, " R"],
    value: Float[np.ndarray, " S1"],
) -> Float[np.ndarray, " R"]:
    """Return the smallest mean of a value within an L1 distance of each row.

    Args:
        rows: distributions over states; or zeros, of which the mean is 0.
        radius: largest distance of each row.
        value: value of each state.

    """
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    worth = value[rows.indices]
    order = np.lexsort((-worth, row))
    chance, worth = rows.data[order], worth[order]
    total = np.cumsum(chance)
    before = np.concatenate([[0.0], total])[rows.indptr[:-1]]
    moved = np.clip(radius[row] / 2 - (total - chance - before[row]), 0, chance)
    lost = chance * worth - moved * (worth - value.min())
    return np.bincount(row, lost, minlength=rows.shape[0])
