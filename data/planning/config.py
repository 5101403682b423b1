"""Options of `sdm plan` that all planners share."""

from dataclasses import dataclass

from sdm.storage.checks import check_count, check_finite, check_horizon


@dataclass(frozen=True)
class PlanningConfig:
    """How a plan from logs is made and bounded.

    Attributes:
        horizon: number of decisions of the plan; that of the longest logged episode if
            not given.
        discount: discount factor per decision, in [0, 1].
        folds: folds of episodes for the bounds, 2 or more.
        confidence: probability of each lower bound, in (0, 1).
        worst: the smallest possible return, in units of reward; the smallest of the
            logs if not given.

    """

    horizon: int | None = None
    discount: float = 1.0
    folds: int = 5
    confidence: float = 0.95
    worst: float | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        if self.horizon is not None:
            check_horizon(self.horizon)
        check_count("folds", self.folds, 2)
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount = {self.discount:g}: must lie between 0 and 1")
        if self.worst is not None:
            check_finite("worst", self.worst)
        if not 0 < self.confidence < 1:
            raise ValueError(
                f"confidence = {self.confidence:g}: must lie strictly between 0 and 1"
            )
