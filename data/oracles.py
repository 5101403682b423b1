"""Oracles: solutions of sampled tasks, and the policies that act by them.

Each class of models registers its own:

    @solved.register
    def _(model: MyModel, method, asked) -> tuple[MySolution, Policy]: ...
"""

import dataclasses
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.apomdp import APOMDPSolution
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.belief_solution import BeliefSolution
from sdm.solvers_jax.methods import Method, Solution
from sdm.solvers_jax.momdp import MOMDPSolution
from sdm.solvers_jax.momdp_lookahead import plans_in
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.tasks.belief import BeliefPolicy, belief_filter
from sdm.tasks.models import APOMDP, MDP, POMDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_filter import HiddenFilter
from sdm.tasks.policy import Policy, any_optimal, deterministic
from sdm.tasks.rewards import observe_rewards


@dataclass(frozen=True)
class Asked:
    """What an oracle knows and observes.

    Attributes:
        horizon: number of decisions T.
        believe: model in the policy's filter, for an APOMDP; see `belief_filter`.
        rewards: whether the agent observes its rewards.
        stationary: whether to break ties between optimal actions at random.

    """

    horizon: int
    believe: int | str = 0
    rewards: bool = False
    stationary: bool = False


@runtime_checkable
class ValuedPlan(Protocol):
    """Plan whose values are expected returns."""

    def action(self, t: int | Int[Array, ""], x: Any) -> Int[Array, "B N"]:
        """Return the actions at stage `t`, by what a filter knows."""
        ...

    def lost(
        self, t: int | Int[Array, ""], x: Any, action: Int[Array, "B N"]
    ) -> Float[Array, "B N"]:
        """Return V_t - Q_t(a) of actions at stage `t`."""
        ...

    def promised(self) -> Float[Array, " B"]:
        """Return the expected value at stage 0."""
        ...


class RewardsKnownPlan(eqx.Module):
    """A plan for beliefs over states, from a plan for pairs of a state and a reward.

    The future does not depend on the reward of a pair, so any pair of a state serves.

    Attributes:
        plan: plan for beliefs over the pairs.
        start: index of the pair that represents each state.
        pairs: number of pairs.

    """

    plan: BeliefSolution
    start: Int[np.ndarray, " S"]
    pairs: int = eqx.field(static=True)

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "B N S"]
    ) -> Int[Array, "B N"]:
        """Return the actions at stage `t` in beliefs `x` over the states."""
        return self.plan.action(t, self._over_pairs(x))

    def lost(
        self,
        t: int | Int[Array, ""],
        x: Float[Array, "B N S"],
        action: Int[Array, "B N"],
    ) -> Float[Array, "B N"]:
        """Return what actions at stage `t` lose in beliefs `x` over the states."""
        return self.plan.lost(t, self._over_pairs(x), action)

    def promised(self) -> Float[Array, " B"]:
        """Return the expected value at stage 0."""
        return self.plan.promised()

    def _over_pairs(self, x: Float[Array, "B N S"]) -> Float[Array, "B N P"]:
        wide = jnp.zeros((*x.shape[:-1], self.pairs), x.dtype)
        return wide.at[..., self.start].set(x)


@singledispatch
def solved(model: Any, method: Method[Any, Any], asked: Asked) -> tuple[Any, Policy]:
    """Solve a batch of tasks, and return the solution and the oracle's policy.

    Args:
        model: the tasks; they are not validated.
        method: the solution method.
        asked: what the oracle knows and observes.

    Raises:
        TypeError: if there is no oracle for this class of models.

    """
    raise TypeError(f"oracle: not available for {type(model).__name__} models")


@solved.register
def _(model: MDP, method: Method[Any, Any], asked: Asked) -> tuple[MDPSolution, Policy]:
    found: MDPSolution = method.solve(model, horizon=asked.horizon)
    if asked.stationary:
        return found, any_optimal(found.q)
    return found, deterministic(found.policy, model.reward.shape[-1])


@solved.register(POMDP)
@solved.register(APOMDP)
def _(
    model: POMDP | APOMDP, method: Method[Any, Any], asked: Asked
) -> tuple[POMDPSolution | APOMDPSolution, BeliefPolicy]:
    belief = belief_filter(model, believe=asked.believe, rewards=asked.rewards)
    if not asked.rewards:
        found = method.solve(model, horizon=asked.horizon)
        return found, BeliefPolicy(found, belief)
    larger = observe_rewards(model)
    found = method.solve(larger.model, horizon=asked.horizon)
    plan = RewardsKnownPlan(found, larger.start, len(larger.state))
    return found, BeliefPolicy(plan, belief)


@solved.register
def _(
    model: MOMDP, method: Method[Any, Any], asked: Asked
) -> tuple[MOMDPSolution, BeliefPolicy]:
    task = dataclasses.replace(model, observes_reward=asked.rewards)
    found = method.solve(task, horizon=asked.horizon)
    return found, BeliefPolicy(plans_in(found, task), HiddenFilter(task))


def solve_hidden(
    model: Any,
    method: Method[Any, Any],
    *,
    horizon: int,
    believe: int | str = 0,
    rewards: bool = False,
) -> tuple[Solution, BeliefPolicy]:
    """Solve tasks whose states are hidden, and return the solution and the policy.

    Args:
        model: a batch of tasks.
        method: the solution method.
        horizon: number of decisions T.
        believe: model in the policy's filter, for an APOMDP; see `belief_filter`.
        rewards: whether the agent observes its rewards. A POMDP is then solved as the
            larger task that `observe_rewards` makes; the policy plays in `model`.

    """
    found, policy = solved(model, method, Asked(horizon, believe, rewards))
    assert isinstance(policy, BeliefPolicy)
    return found, policy
