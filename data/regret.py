r"""Regret by the performance-difference lemma, from the oracle's action values.

The expected return that a policy loses is the sum, over its own episodes, of what each
of its actions loses,

    V*_0 - J(π)  =  E_π Σ_t γ^t [ V*_t(s_t) - Q*_t(s_t, a_t) ]

(Kakade and Langford, 2002, Lemma 6.1), so that episodes give an unbiased estimate. In
an MDP, no term is negative, and optimal actions contribute no noise: for good policies
the estimate is several times less variable than differences of returns.

If states are hidden, s_t is the belief of the oracle's filter. The identity holds for
any function V that is zero after the last decision, with Q_t(b, a) = r(b, a) + γ E
V_{t+1}(b'), not only for the optimal one. V here is the value of the oracle's plans, a
lower bound, so that the policy of one-step lookahead, which is the oracle's, can lose
less than nothing. Regret is the difference to what the oracle loses with the same
random numbers: the return that a policy loses to the oracle. The optimum can be larger
than the oracle's return by the `slack`, by the certified bounds.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.solved_tasks import RewardsKnownPlan, Solution
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.tasks.belief import BeliefFilter, BeliefPolicy, FilterState
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import Trajectory
from sdm.tasks.stages import at_stage


class Losses(NamedTuple):
    """What every decision of some episodes loses, and what a task has to offer.

    Attributes:
        lost: γ^t [V_t - Q_t] of each decision, in units of reward.
        promised: expected return V_0 in each task.

    """

    lost: Float[np.ndarray, "B N T"]
    promised: Float[np.ndarray, " B"]


def losses(
    solution: Solution, oracle: Policy, played: Trajectory, discount: float
) -> Losses | None:
    """Return what every decision in the episodes loses.

    Args:
        solution: the oracle's solution of a batch of tasks.
        oracle: the oracle's policy.
        played: episodes of any policy in these tasks.
        discount: discount factor of the tasks.

    Returns:
        The losses; None for ambiguous tasks, whose values are not expected returns.

    """
    factor = discount ** np.arange(played.action.shape[-1])
    if isinstance(solution, MDPSolution):
        value = np.asarray(solution.value, np.float64)
        return Losses(factor * _lost_in_states(solution, played), value)
    if not isinstance(solution, POMDPSolution):
        return None
    assert isinstance(oracle, BeliefPolicy)
    assert isinstance(oracle.plan, POMDPSolution | RewardsKnownPlan)
    lost = _lost_in_beliefs(oracle.plan, oracle.filter, played)
    return Losses(factor * np.asarray(lost, np.float64), _promised(solution))


def _lost_in_states(
    solution: MDPSolution, played: Trajectory
) -> Float[np.ndarray, "B N T"]:
    q = np.asarray(solution.q, np.float64)
    action, seen = np.asarray(played.action), np.asarray(played.observation)
    task, stage = np.arange(len(q))[:, None, None], np.arange(action.shape[-1])
    here = q[task, stage, seen]
    taken = np.take_along_axis(here, action[..., None], axis=-1)[..., 0]
    return here.max(-1) - taken


def _promised(solution: POMDPSolution) -> Float[np.ndarray, " B"]:
    """Return the mean over first symbols of the values at stage 0."""
    value = solution.action_value(0, solution.model.root).max(-1)
    mass = solution.model.root_mass[..., 0, :]
    return np.asarray((mass * value).sum(-1), np.float64)


@eqx.filter_jit
def _lost_in_beliefs(
    plan: POMDPSolution | RewardsKnownPlan, belief: BeliefFilter, played: Trajectory
) -> Float[Array, "B N T"]:
    """Return V_t - Q_t at every decision, in the belief of its history."""
    seen, done, paid = (
        jnp.moveaxis(x, -1, 0)
        for x in (played.observation, played.action, played.reward)
    )
    state = belief.see_first(belief.start(seen.shape[-1]), seen[0])
    first = plan.lost(0, state.belief, done[0])

    def step(state: FilterState, now: tuple[Array, ...]) -> tuple[FilterState, Array]:
        t, symbol, before, reward, action = now
        state = at_stage(belief, t - 1).update(state, before, symbol, reward)
        return state, plan.lost(t, state.belief, action)

    stages = jnp.arange(1, len(seen), dtype=jnp.int32)
    later = (stages, seen[1:], done[:-1], paid[:-1], done[1:])
    _, others = jax.lax.scan(step, state, later)
    return jnp.moveaxis(jnp.concatenate([first[None], others]), 0, -1)
