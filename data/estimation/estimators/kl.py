"""Kullback–Leibler balls around posterior means, whose radii have a stated coverage."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from sdm.data.estimation.balls import credible, estimate_balls
from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts
from sdm.data.estimation.estimator import Estimate, Progress, register_estimator
from sdm.data.estimation.radii import chi_squared_radius, kl_distance
from sdm.data.estimation.rows import normalised, posterior_of
from sdm.data.logs import Logs
from sdm.storage.checks import check_choice
from sdm.tasks.rectangular import KLMDP

Radius = Literal["chi-squared", "credible"]


@register_estimator
@dataclass(frozen=True)
class KLBalls:
    """A Kullback–Leibler ball of next-state distributions for each state and action.

    Attributes:
        confidence: probability with which the balls of a task cover all true rows.
        radius: radii by `credible` (posterior) or `chi-squared` (large-sample), around
            posterior means.

    """

    confidence: float = 0.95
    radius: Radius = "credible"

    name: ClassVar[str] = "kl"

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
        if not config.prior:
            raise ValueError(
                "prior = 0: a KL ball around relative frequencies excludes next states "
                "that were not seen; set a positive prior"
            )

        def balls(counts: Counts, delta: float) -> tuple[np.ndarray, np.ndarray]:
            return RADII[self.radius](counts, config, delta, seed)

        sets = (
            f"KL balls cover all rows with {self.confidence:.0%} "
            f"{COVERAGE[self.radius]}"
        )
        return estimate_balls(
            KLMDP,
            balls,
            sets,
            self.confidence,
            np.inf,
            logs=logs,
            config=config,
            held_out=held_out,
            progress=progress,
        )


def _chi_squared(
    counts: Counts, config: EstimationConfig, delta: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    possible = counts.space.end + counts.space.direct
    decided = counts.visits[: counts.space.first_outcome]
    radius = np.zeros(counts.visits.shape)
    radius[: len(decided)] = chi_squared_radius(decided, possible, delta)
    return normalised(posterior_of(counts, config)), radius


def _credible(
    counts: Counts, config: EstimationConfig, delta: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    return credible(counts, config, delta, kl_distance, seed)


RADII = {"chi-squared": _chi_squared, "credible": _credible}
COVERAGE = {
    "chi-squared": "probability as the number of visits grows (Ben-Tal et al., 2013)",
    "credible": "posterior probability",
}
