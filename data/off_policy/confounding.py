"""Intervals of the bounds under confounding, and the confounding that turns a ranking.

See `sensitivity` for the bounds.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq

from sdm.data.off_policy.bootstrap import LEAST, interval, weightings
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.sample import Sample
from sdm.data.off_policy.sensitivity import ConfoundedStage

MOST = 100.0  # largest Λ for which a turning point is sought

# Returns the lower (1) or upper (-1) bound of a value for a Λ.
Bound = Callable[[float, int], float]


class Confounding:
    """A policy's bounds under one confounded decision."""

    def __init__(self, sample: Sample, config: OffPolicyConfig) -> None:
        """Group the decisions of the stage; raise `ValueError` if there is none."""
        self.sample = sample
        self.config = config
        self.stage = ConfoundedStage(sample, config.confounded_stage)
        self._equal = np.ones((1, sample.logs.episodes))

    @property
    def identified(self) -> bool:
        """Return whether the logs have enough episodes like those of the policy."""
        return self.stage.effective >= LEAST

    def bound(self, factor: float, sign: int) -> float:
        """Return the lower (`sign` 1) or upper (-1) bound for a Λ."""
        return float(self.stage.bound(factor, sign, self._equal)[0])

    def row(self, factor: float, *, seed: int) -> dict[str, Any]:
        """Return the bounds for a Λ with the interval that covers both, as JSON values.

        The interval is the range of possible returns if there is too little data.
        """
        ranges, episodes = self.sample.ranges, self.sample.logs.episodes
        ends = (ranges.low, ranges.high)
        if self.identified:
            blocks = list(weightings(episodes, self.config.resamples, seed))
            low, high = (
                np.concatenate([self.stage.bound(factor, sign, w) for w in blocks])
                for sign in (1, -1)
            )
            below, above = interval(low, high, self.stage.effective)
            ends = (max(below, ranges.low), min(above, ranges.high))
        return {
            "factor": factor,
            "low": self.bound(factor, 1),
            "high": self.bound(factor, -1),
            "ci_low": ends[0],
            "ci_high": ends[1],
        }


def turning_point(first: Bound, second: Bound) -> float | None:
    """Return the smallest Λ at which the ranking of two policies may turn.

    Args:
        first: bounds on the value of a policy.
        second: bounds on the value of another one.

    Returns:
        The smallest Λ at which the bounds of both touch; 1 if they do without
        confounding, None if they do not up to `MOST`.

    """
    ahead = sum(first(1.0, sign) - second(1.0, sign) for sign in (1, -1))
    sign = 1 if ahead >= 0 else -1

    def apart(log: float) -> float:
        factor = math.exp(log)
        return sign * (first(factor, sign) - second(factor, -sign))

    if apart(0.0) <= 0:
        return 1.0
    if apart(math.log(MOST)) > 0:
        return None
    return math.exp(brentq(apart, 0.0, math.log(MOST), xtol=1e-6))


def behavior_bound(sample: Sample) -> Bound:
    """Return the mean logged return: no confounder changes the behavior's value."""
    mean = float((sample.logs.reward @ sample.powers).mean())
    return lambda factor, sign: mean


def check_factors(factors: Sequence[float]) -> None:
    """Raise `ValueError` unless every Λ is a number from 1."""
    for factor in factors:
        if not 1 <= factor < math.inf:
            raise ValueError(
                f"confounding: Λ must be at least 1 and finite, found {factor}"
            )
