"""Measures of bandits: regret curve, its exponent, and how a policy explores.

Regret is pseudo-regret: the difference between the highest mean and the mean of the arm
taken. With full information, the hindsight regret compares realised rewards with those
of the best single arm; it excludes the last round, whose rewards are not shown.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from sdm.data.benchmark import Benchmark, regrets
from sdm.evaluation.exploration import (
    greedy_fraction,
    k_min_fraction,
    suffix_failure_frequency,
)
from sdm.evaluation.hindsight import register_hindsight
from sdm.evaluation.measure import register_measure
from sdm.evaluation.regret_curve import regret_curve, regret_exponent
from sdm.tasks.arms_family import ArmsFamily
from sdm.tasks.family import TaskFamily
from sdm.tasks.rollout import Trajectory

DIGITS = 5  # significant digits of the points of a curve
TITLES = {
    "regret": "regret",
    "regret_exponent": "exponent",
    "suffix_failure_frequency": "SuffFail",
    "k_min_fraction": "K·MinFrac",
    "greedy_fraction": "GreedyFrac",
}


@register_measure(TITLES)
def of_arms(bed: Benchmark, played: Trajectory) -> dict[str, Any]:
    """Return the measures of a policy in a family of bandits; {} in other families.

    Replicates of the intervals are tasks if there are several, else episodes.
    """
    family = bed.config.family
    if not isinstance(family, ArmsFamily):
        return {}
    found = regrets(bed, played)
    assert found is not None
    action = np.asarray(played.action)
    rewards = _rewards(family, played)
    flat = action.reshape(-1, action.shape[-1])
    first = max(1, flat.shape[-1] // 2)
    row = {
        "regret": float(found.lost.sum(-1).mean()),
        **_curve(_replicates(found.lost), "regret"),
        "suffix_failure_frequency": suffix_failure_frequency(
            found.lost.reshape(flat.shape) == 0, first
        ),
        "k_min_fraction": k_min_fraction(flat, family.arms),
        "greedy_fraction": _number(greedy_fraction(flat, *rewards)),
        "replicates": len(flat),
    }
    lost = _lost_by_round(family, played)
    if lost is not None:
        row |= _curve(_replicates(lost), "hindsight_regret")
    return row


@register_hindsight
def of_best_arm(
    family: TaskFamily, played: Trajectory
) -> Float[np.ndarray, "B N"] | None:
    """Return the realised regret to the best single arm, if all rewards are shown."""
    if not isinstance(family, ArmsFamily):
        return None
    lost = _lost_by_round(family, played)
    return None if lost is None else lost.sum(-1)


def _lost_by_round(
    family: ArmsFamily, played: Trajectory
) -> Float[np.ndarray, "B N R"] | None:
    """Return each round's increase of the hindsight regret, without the last round."""
    action = np.asarray(played.action)
    if not family.shows_all or action.shape[-1] == 1:
        return None
    shown = _rewards(family, played)[0][:, :-1]
    flat = action.reshape(-1, action.shape[-1])
    taken = np.take_along_axis(shown, flat[:, :-1, None], -1)[..., 0]
    best = np.cumsum(shown, 1).max(-1)
    lost = np.diff(best, axis=-1, prepend=0.0) - taken
    return lost.reshape(*action.shape[:2], -1)


def _replicates(lost: Float[np.ndarray, "B N T"]) -> Float[np.ndarray, "R T"]:
    """Return independent replicates: means of tasks, or the episodes of one task."""
    return lost.mean(1) if len(lost) > 1 else lost[0]


def _curve(regret: Float[np.ndarray, "R T"], name: str) -> dict[str, Any]:
    """Return a regret curve and its exponent, with intervals."""
    curve, growth = regret_curve(regret), regret_exponent(regret)
    ends = (math.nan,) * 3
    if growth is not None:
        ends = (growth.slope, growth.low, growth.high)
    return {
        f"{name}_curve": _points(curve.mean),
        f"{name}_curve_low": _points(curve.low),
        f"{name}_curve_high": _points(curve.high),
        f"{name}_exponent": _number(ends[0]),
        f"{name}_exponent_low": _number(ends[1]),
        f"{name}_exponent_high": _number(ends[2]),
    }


def _points(values: Float[np.ndarray, " T"]) -> list[float | None]:
    return [_number(float(f"{x:.{DIGITS}g}")) for x in values]


def _number(x: float) -> float | None:
    """Return a number that JSON can represent: None in place of NaN."""
    return None if math.isnan(x) else x


def _rewards(family: ArmsFamily, played: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Return the reward of each arm in each round, and whether the agent saw it.

    The rewards of the last round are those of the arms taken only.
    """
    action = np.asarray(played.action).reshape(-1, played.action.shape[-1])
    own = np.asarray(played.reward, np.float64).reshape(action.shape)
    seen = action[..., None] == np.arange(family.arms)
    reward = np.where(seen, own[..., None], 0.0)
    if family.shows_all:
        shown = np.asarray(family.shown(played.observation), np.float64)
        reward[:, :-1] = shown.reshape(reward.shape)[:, 1:]
        seen[:, :-1] = True
    return reward, seen
