"""Effects of learned rewards: rank correlation with V*, and exact gaps of plans."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.optimality_gap import optimality_gap
from sdm.feedback.fit_quality import rank_correlation
from sdm.feedback.reward_model import RewardModel
from sdm.feedback.uses import plan, scaled
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.models import MDP

NOT_USED = "none"  # the use of weight 0


def mean_rank_correlation(
    scores: Float[np.ndarray, "B S"], solution: MDPSolution
) -> float | None:
    """Return the mean over tasks of the rank correlation of scores with V*_0.

    Tasks in which it is undefined do not count; None if it is undefined in all.
    """
    value = np.asarray(solution.state_value[:, 0], np.float64)
    each = np.array(
        [rank_correlation(*both) for both in zip(scores, value, strict=True)]
    )
    return None if np.isnan(each).all() else float(np.nanmean(each))


def gaps(
    mdp: MDP,
    solution: MDPSolution,
    scores: Float[np.ndarray, "B S"],
    *,
    use: str,
    weight: float,
    lookaheads: Sequence[int],
    horizon: int,
) -> Iterator[dict[str, Any]]:
    """Return the exact gap of the plan for a learned reward, for every lookahead.

    Args:
        mdp: the tasks.
        solution: their solution.
        scores: scores of the states of each task.
        use: use of the reward.
        weight: factor of the reward.
        lookaheads: decisions that the planner sees at each stage; 0 for all.
        horizon: number of decisions T.

    """
    unit = weight * scaled(scores, np.asarray(mdp.reward))
    reward = jnp.asarray(unit, mdp.reward.dtype)
    for lookahead in lookaheads:
        value = _plan_value(use, horizon, lookahead, mdp, reward)
        gap = optimality_gap(np.asarray(value), np.asarray(solution.value))
        alone = len(unit) == 1  # a single task has no interval
        yield {
            "use": use if weight else NOT_USED,
            "weight": weight,
            "lookahead": lookahead,
            "gap_percent": 100 * gap.mean,
            "ci_low": None if alone else 100 * gap.low,
            "ci_high": None if alone else 100 * gap.high,
        }


@partial(jax.jit, static_argnums=(0, 1, 2))
def _plan_value(
    use: str, horizon: int, lookahead: int, mdp: MDP, reward: Float[Array, "B S"]
) -> Float[Array, " B"]:
    """Return the exact value of the plan for a reward in each task."""
    policy = plan(use, mdp, reward, horizon=horizon, lookahead=lookahead)
    return evaluate_policy(mdp, policy.probabilities)


def summary(models: Sequence[RewardModel]) -> dict[str, Any]:
    """Return the measurements of the fits, averaged over tasks.

    `asked`, `outside` and `held_out` are totals; `separable` and `converged` are shares
    of tasks; `bins` is left to each task.
    """
    found: dict[str, Any] = {}
    for name in models[0].report:
        if name == "bins":
            continue
        values = np.array([model.report[name] for model in models], np.float64)
        if name in ("asked", "outside", "held_out"):
            found[name] = int(values.sum())
        else:
            some = values[~np.isnan(values)]
            found[name] = float(some.mean()) if some.size else None
    return found
