"""Configuration of an off-policy evaluation. This module imports nothing heavy."""

import math
from dataclasses import dataclass

from sdm.storage.checks import check_count


@dataclass(frozen=True)
class OffPolicyConfig:
    """Configuration of an off-policy evaluation.

    Attributes:
        discount: discount factor per decision, in [0, 1].
        reward_low: smallest possible reward of a decision; the smallest logged one if
            not given.
        reward_high: largest possible reward of a decision; the largest logged one if
            not given.
        return_low: smallest possible discounted return of an episode; from the rewards
            if not given.
        return_high: largest possible discounted return of an episode; from the rewards
            if not given.
        resamples: bootstrap resamples of the episodes.
        confounded_stage: stage of the decision that may be confounded, from 0.
        pool_tasks: whether all tasks of the logs are alike, so that what is estimated
            after an observation is the same in all of them.

    """

    discount: float = 1.0
    reward_low: float | None = None
    reward_high: float | None = None
    return_low: float | None = None
    return_high: float | None = None
    resamples: int = 1000
    confounded_stage: int = 0
    pool_tasks: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount = {self.discount!r}: must lie in [0, 1]")
        check_count("resamples", self.resamples, 40)  # for 2.5 % quantiles
        for what in ("reward", "return"):
            ends = (getattr(self, f"{what}_low"), getattr(self, f"{what}_high"))
            for name, value in zip(("low", "high"), ends, strict=True):
                if value is not None and not math.isfinite(value):
                    raise ValueError(f"{what}_{name} = {value!r}: must be finite")
            if None not in ends and ends[0] > ends[1]:
                raise ValueError(
                    f"{what}_low = {ends[0]}: must be at most {what}_high = {ends[1]}"
                )
        check_count("confounded_stage", self.confounded_stage, 0)
