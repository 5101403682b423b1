"""Ways to use a learned reward in a planner, by name.

`potential`  differences of the reward as a potential are added to the task's rewards
`added`      the reward of the next state is added to the task's rewards
`alone`      the reward of the next state replaces the task's rewards

A planner sees either all T decisions, or `lookahead` decisions only, at each stage.
With a limited lookahead, a potential is the value after the last decision that the
planner sees, so that a potential of V* makes every lookahead optimal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.solvers_jax.backward_induction import BackwardInduction
from sdm.storage.checks import check_count
from sdm.tasks.admissible import masked_rewards
from sdm.tasks.models import MDP
from sdm.tasks.policy import TabularPolicy, deterministic
from sdm.tasks.shaping import only_state_reward, with_potential, with_state_reward
from sdm.tasks.transitions import expected

ADDED = "added"


class Shaped(NamedTuple):
    """The models that a planner solves.

    Attributes:
        whole: model of all decisions.
        near: model of a limited lookahead.
        end: value after the last decision of a limited lookahead.

    """

    whole: MDP
    near: MDP
    end: Float[Array, "B S"]


Shape = Callable[[MDP, Array, int], Shaped]  # of tasks, reward and horizon


@dataclass(frozen=True)
class Use:
    """A way to use a learned reward.

    Attributes:
        name: name on the command line.
        shape: makes the models that a planner solves.
        weighted: whether a factor of the reward changes the plan.

    """

    name: str
    shape: Shape
    weighted: bool


_uses: dict[str, Use] = {}


def register_use(name: str, *, weighted: bool = True) -> Callable[[Shape], Shape]:
    """Return a decorator that registers a use under a name."""

    def add(shape: Shape) -> Shape:
        _uses[name] = Use(name, shape, weighted)
        return shape

    return add


def uses() -> Mapping[str, Use]:
    """Return every registered use by name."""
    return dict(_uses)


def use_of(name: str) -> Use:
    """Return a use by its name.

    Raises:
        ValueError: if it is unknown.

    """
    if name not in _uses:
        raise ValueError(
            f"use: unknown, found `{name}`: choose from {', '.join(_uses)}"
        )
    return _uses[name]


@register_use("potential")
def potential(mdp: MDP, reward: Array, horizon: int) -> Shaped:
    """Use the reward as a potential."""
    return Shaped(with_potential(mdp, reward, horizon=horizon), mdp, reward)


@register_use(ADDED)
def added(mdp: MDP, reward: Array, horizon: int) -> Shaped:
    """Add the reward."""
    sum_of_both = with_state_reward(mdp, reward)
    return Shaped(sum_of_both, sum_of_both, jnp.zeros_like(reward))


@register_use("alone", weighted=False)
def alone(mdp: MDP, reward: Array, horizon: int) -> Shaped:
    """Ignore the task's rewards."""
    only = only_state_reward(mdp, reward)
    return Shaped(only, only, jnp.zeros_like(reward))


def scaled(
    scores: Float[np.ndarray, "B S"], reward: Float[np.ndarray, "B S A"]
) -> Float[np.ndarray, "B S"]:
    """Return scores from 0 to the difference of a task's highest and lowest reward.

    Scores that are all equal become zero.
    """
    lowest = scores.min(-1, keepdims=True)
    spread = np.ptp(scores, axis=-1)[:, None]
    unit = np.divide(scores - lowest, spread, where=spread > 0, out=0.0 * scores)
    return unit * np.ptp(reward, axis=(-2, -1))[:, None]


def plan(
    use: str,
    mdp: MDP,
    reward: Float[Array, "B S"],
    *,
    horizon: int,
    lookahead: int = 0,
) -> TabularPolicy:
    """Return the plan for tasks with a learned reward.

    Args:
        use: name of the use.
        mdp: the tasks.
        reward: learned reward of each state, in units of the tasks' rewards.
        horizon: number of decisions T.
        lookahead: decisions that the planner sees at each stage; 0 for all.

    Raises:
        ValueError: if the use is unknown, or the lookahead negative.

    """
    check_count("lookahead", lookahead, 0)
    shaped = use_of(use).shape(mdp, reward, horizon)
    actions = mdp.reward.shape[-1]
    whole = BackwardInduction().solve(shaped.whole, horizon=horizon).policy
    if lookahead == 0 or lookahead >= horizon:
        return deterministic(whole, actions)
    value, far = shaped.end, horizon - lookahead
    for _ in range(lookahead):
        ahead = expected(shaped.near.transition, value)
        q = masked_rewards(shaped.near) + shaped.near.discount * ahead
        value = q.max(-1)
    early = jnp.repeat(q.argmax(-1)[:, None].astype(whole.dtype), far, axis=1)
    # The planner sees all decisions that are left at the other stages.
    return deterministic(jnp.concatenate([early, whole[:, far:]], axis=1), actions)
