r"""Bounds on returns that follow from the range of the rewards alone.

With rewards in [l, h] and n ≥ 1 further decisions, the return to go from stage t is
in

    [ min_n Σ_{k<n} γ^k l,  max_n Σ_{k<n} γ^k h ],   1 ≤ n ≤ T − t,

where n = T − t if no episode ends early. If the return of an episode lies in [L, H],
the return to go after a discounted reward of g also lies in [(L − g) / γ^t,
(H − g) / γ^t].
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.config import OffPolicyConfig


@dataclass(frozen=True)
class Ranges:
    """Bounds on returns.

    Attributes:
        low: lower bound on the discounted return of an episode.
        high: upper bound on it.
        floor: lower bound on the return to go of each logged decision.
        ceiling: upper bound on it.
        stage_floor: lower bound on the return to go of any decision of a stage.
        stage_ceiling: upper bound on it.

    """

    low: float
    high: float
    floor: Float[np.ndarray, "N T"]
    ceiling: Float[np.ndarray, "N T"]
    stage_floor: Float[np.ndarray, " T"]
    stage_ceiling: Float[np.ndarray, " T"]


def ranges_of(logs: Logs, config: OffPolicyConfig) -> Ranges:
    """Return the bounds on the returns of logs.

    Raises:
        ValueError: if a logged reward or return lies outside of its stated range.

    """
    acted, powers = logs.action != NOTHING, config.discount ** np.arange(logs.horizon)
    paid = logs.reward[acted]
    ends = [
        float(paid.min() if config.reward_low is None else config.reward_low),
        float(paid.max() if config.reward_high is None else config.reward_high),
    ]
    earned = np.cumsum(logs.reward * powers, -1)
    _check("reward", paid, ends)
    early = bool((logs.length < logs.horizon).any())
    floor, ceiling = _to_go(ends, powers, early=early)
    stated = (config.return_low, config.return_high)
    low = float(floor[0]) if stated[0] is None else max(stated[0], float(floor[0]))
    high = float(ceiling[0]) if stated[1] is None else min(stated[1], float(ceiling[0]))
    _check("return", earned[:, -1], [low, high])
    before = np.concatenate([np.zeros((logs.episodes, 1)), earned[:, :-1]], -1)
    sums = np.concatenate([[0.0], np.cumsum(powers)[:-1]])
    least, most = ends[0] * sums, ends[1] * sums  # before each stage
    scale = np.where(powers > 0, powers, np.inf)
    return Ranges(
        low=low,
        high=high,
        floor=np.maximum(floor, _left(low - before, scale, -np.inf)),
        ceiling=np.minimum(ceiling, _left(high - before, scale, np.inf)),
        stage_floor=np.maximum(floor, _left(low - most, scale, -np.inf)),
        stage_ceiling=np.minimum(ceiling, _left(high - least, scale, np.inf)),
    )


def _left(rest: np.ndarray, scale: np.ndarray, nothing: float) -> np.ndarray:
    """Return what is left of a bound in units of a stage; `nothing` if γ^t is 0."""
    return np.where(np.isinf(scale), nothing, rest / scale)


def _to_go(
    ends: list[float], powers: Float[np.ndarray, " T"], *, early: bool
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """Return the bounds on the return to go of each stage, in units of the stage."""
    longest = np.cumsum(powers)[::-1]  # Σ γ^k over the decisions that are left
    low, high = ends[0] * longest, ends[1] * longest
    if early:
        low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
    return low, high


def _check(what: str, found: np.ndarray, ends: list[float]) -> None:
    """Raise `ValueError` if a logged number lies outside of its stated range."""
    slack = 1e-9 * max(1.0, *map(abs, ends))  # of sums of rewards
    wrong = (found < ends[0] - slack) | (found > ends[1] + slack)
    if wrong.any():
        raise ValueError(
            f"{what}: must lie between {what}_low = {ends[0]:g} and {what}_high = "
            f"{ends[1]:g}, found {found[wrong][0]:g} in the logs ({int(wrong.sum())} "
            f"of {wrong.size} are outside)"
        )
