"""L1 balls around estimated rows, whose radii have a stated coverage."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from sdm.data.estimation.balls import credible, estimate_balls
from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts
from sdm.data.estimation.estimator import Estimate, Progress, register_estimator
from sdm.data.estimation.radii import l1_distance, weissman_radius
from sdm.data.estimation.rows import normalised
from sdm.data.logs import Logs
from sdm.storage.checks import check_choice
from sdm.tasks.rectangular import L1MDP

Radius = Literal["weissman", "credible"]


@register_estimator
@dataclass(frozen=True)
class L1Balls:
    """An L1 ball of next-state distributions for each state and action.

    Attributes:
        confidence: probability with which the balls of a task cover all true rows.
        radius: radii by `weissman` (finite-sample, around relative frequencies) or
            `credible` (posterior, around posterior means).

    """

    confidence: float = 0.95
    radius: Radius = "weissman"

    name: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        """Raise `ValueError` for unknown radii."""
        check_choice("radius", self.radius, RADII)

    def estimate(
        self,
        logs: Logs,
        config: EstimationConfig,
        *,
        held_out: np.ndarray,
        seed: int,
        progress: Progress,
    ) -> Estimate:
        """Return the model of each task; see `Estimator`."""

        def balls(counts: Counts, delta: float) -> tuple[np.ndarray, np.ndarray]:
            return RADII[self.radius](counts, config, delta, seed)

        sets = (
            f"L1 balls cover all rows with {self.confidence:.0%} "
            f"{COVERAGE[self.radius]}"
        )
        return estimate_balls(
            L1MDP,
            balls,
            sets,
            self.confidence,
            2.0,
            logs=logs,
            config=config,
            held_out=held_out,
            progress=progress,
        )


def _weissman(
    counts: Counts, config: EstimationConfig, delta: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    possible = counts.space.end + counts.space.direct
    decided = counts.visits[: counts.space.first_outcome]
    radius = np.zeros(counts.visits.shape)
    radius[: len(decided)] = weissman_radius(decided, possible, delta)
    return normalised(counts.count), radius


def _credible(
    counts: Counts, config: EstimationConfig, delta: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    nominal, radius = credible(counts, config, delta, l1_distance, seed)
    return nominal, np.minimum(radius, 2.0)  # the largest distance


RADII = {"weissman": _weissman, "credible": _credible}
COVERAGE = {
    "weissman": "probability (Weissman et al., 2003, and a union bound over rows and "
    "numbers of visits)",
    "credible": "posterior probability",
}
