"""Options that all estimators share."""

from dataclasses import dataclass
from typing import Literal, get_args

from sdm.storage.checks import check_choice, check_count, check_finite

Unvisited = Literal["worst", "forbid", "prior"]
Support = Literal["all", "seen"]


@dataclass(frozen=True)
class EstimationConfig:
    """What an estimate assumes.

    Attributes:
        discount: discount factor per decision, in [0, 1].
        prior: total pseudo-count of the Dirichlet prior of each row of next states; 0
            for relative frequencies.
        support: next states with a positive prior, `all` states, or those `seen` after
            the state and action.
        min_visits: decisions from which on a state and action count as visited.
        unvisited: treatment of unvisited states and actions, `worst` (the episode ends
            with the worst return), `forbid` (a mask of actions) or `prior` (its mean).
        worst: return after an unvisited state and action, in units of reward; the
            lowest return from any decision on in the logs if not given.
        outcomes: whether ends with different rewards are different states, which pay
            one decision later, so that the reward at the end is as uncertain as the
            transition to it.
        held_out: share of episodes in which the estimate from the others is scored, in
            (0, 1).

    """

    discount: float = 1.0
    prior: float = 1.0
    support: Support = "all"
    min_visits: int = 1
    unvisited: Unvisited = "worst"
    worst: float | None = None
    outcomes: bool = True
    held_out: float = 0.2

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        for name in ("discount", "held_out"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value:g}: must lie between 0 and 1")
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"held_out = {self.held_out:g}: must lie strictly between 0 and 1"
            )
        if not 0 <= self.prior < float("inf"):
            raise ValueError(f"prior = {self.prior:g}: must be 0 or more, and finite")
        check_count("min_visits", self.min_visits, 1)
        check_choice("support", self.support, get_args(Support))
        check_choice("unvisited", self.unvisited, get_args(Unvisited))
        if self.worst is not None:
            check_finite("worst", self.worst)
