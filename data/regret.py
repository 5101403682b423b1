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

from functools import singledispatch
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from sdm.data.oracles import ValuedPlan
from sdm.data.replay import replayed
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.momdp import MOMDPSolution
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.tasks.belief import BeliefPolicy, Filter
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import Trajectory


class Losses(NamedTuple):
    """What every decision of some episodes loses, and what a task has to offer.

    Attributes:
        lost: γ^t [V_t - Q_t] of each decision, in units of reward.
        promised: expected return V_0 in each task.

    """

    lost: Float[np.ndarray, "B N T"]
    promised: Float[np.ndarray, " B"]


@singledispatch
def losses(
    solution: Any, oracle: Policy, played: Trajectory, discount: float
) -> Losses | None:
    """Return what every decision in the episodes loses.

    Each class of solutions whose values are expected returns registers its own.

    Args:
        solution: the oracle's solution of a batch of tasks.
        oracle: the oracle's policy.
        played: episodes of any policy in these tasks.
        discount: discount factor of the tasks.

    Returns:
        The losses; None for ambiguous tasks, whose values are not expected returns.

    """
    return None


@losses.register
def _(
    solution: MDPSolution, oracle: Policy, played: Trajectory, discount: float
) -> Losses:
    value = np.asarray(solution.value, np.float64)
    lost = _lost_in_states(solution, played)
    return Losses(discount ** np.arange(lost.shape[-1]) * lost, value)


@losses.register(POMDPSolution)
@losses.register(MOMDPSolution)
def _(
    solution: POMDPSolution | MOMDPSolution,
    oracle: BeliefPolicy,
    played: Trajectory,
    discount: float,
) -> Losses:
    assert isinstance(oracle.plan, ValuedPlan)
    lost = np.asarray(_lost_in_beliefs(oracle.plan, oracle.filter, played), np.float64)
    promised = np.asarray(oracle.plan.promised(), np.float64)
    return Losses(discount ** np.arange(lost.shape[-1]) * lost, promised)


def _lost_in_states(
    solution: MDPSolution, played: Trajectory
) -> Float[np.ndarray, "B N T"]:
    q = np.asarray(solution.q, np.float64)
    action, seen = np.asarray(played.action), np.asarray(played.observation)
    task, stage = np.arange(len(q))[:, None, None], np.arange(action.shape[-1])
    here = q[task, stage, seen]
    taken = np.take_along_axis(here, action[..., None], axis=-1)[..., 0]
    return here.max(-1) - taken


@eqx.filter_jit
def _lost_in_beliefs(
    plan: ValuedPlan, belief: Filter, played: Trajectory
) -> Float[Array, "B N T"]:
    """Return V_t - Q_t at every decision, in the belief of its history."""

    def lost(t: Array, state: Any, action: Array) -> Float[Array, "B N"]:
        return plan.lost(t, state.known, action)

    found: Float[Array, "B N T"] = replayed(lost, belief, played)[0]
    return found
