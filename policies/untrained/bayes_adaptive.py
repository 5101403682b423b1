r"""Bayes-adaptive planning from the posterior after the demonstrations.

A state of the Bayes-adaptive MDP (Duff, 2002) is a state of the task and a belief about
the task. Its optimal policy balances exploration and exploitation: no policy that
learns from transitions, and from rewards if they are observed, has a higher mean return
over tasks from the prior. A policy that also learns from the demonstrated actions, if
they are optimal for the true task, can have a higher one.

If counts of transitions are a sufficient statistic, the plan is exact (`count_plan`).
In other families, it is a plan for the K candidates of the prior, weighted by the
demonstrations, with certified bounds on its suboptimality (`tasks.hidden_mdp`).
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.data.benchmark import Shown
from sdm.policies.count_plan import count_plan, expected_return, is_small
from sdm.policies.posterior import IMPOSSIBLE, posterior
from sdm.policies.prepared import PlanBounds, Prepared
from sdm.policies.registry import register_policy
from sdm.solvers_jax.momdp import MixedObservability, MOMDPSolution
from sdm.solvers_jax.momdp_backup import plan_cost
from sdm.solvers_jax.momdp_moves import moves_of
from sdm.solvers_jax.solve import solve
from sdm.tasks.conjugate_family import ConjugateFamily
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.hidden_mdp import hidden_model
from sdm.tasks.models import MDP, Model
from sdm.tasks.rewards import agrees
from sdm.tasks.transitions import likelihood

# Beliefs per stage and state; the first number within the limits below is used.
POINTS = (32, 16, 8)
MOST_BYTES, MOST_WORK = 1 << 31, 2e11
GAP = 1e-3  # of the bounds, at which to stop


class Weighed(NamedTuple):
    """Memory of an episode.

    Attributes:
        weight: probability of each candidate.
        state: the last state.
        action: the last action.

    """

    weight: Float[Array, "B N K"]
    state: Int[Array, "B N"]
    action: Int[Array, "B N"]


class CandidatePolicy(eqx.Module):
    """A policy that updates the candidates' weights and takes the plan's action.

    Attributes:
        plan: actions by state and belief.
        models: the candidates.
        weight: probability of each candidate in each task, before an episode.
        rewards: whether rewards are observed.

    """

    plan: MOMDPSolution
    models: MDP
    weight: Float[Array, "B K"]
    rewards: bool = eqx.field(static=True)

    def init(self, model: Model) -> None:
        """Return None; the first decision makes the memory, for N episodes."""

    def act(
        self,
        memory: Weighed | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Weighed]:
        """Update the weights by the last transition and reward; look the action up."""
        if memory is None:
            weight = jnp.broadcast_to(
                self.weight[:, None], (*observation.shape, self.weight.shape[-1])
            )
            likelihoods: list[Array] = [self.models.initial[:, observation]]
        else:
            weight, state, action = memory
            likelihoods = [
                likelihood(self.models.transition, state, action, observation)
            ]
            if self.rewards:
                expected = self.models.reward[:, state, action]
                same = agrees(reward[None], expected)
                likelihoods.append(same.astype(expected.dtype))
        for each in likelihoods:
            weight *= jnp.maximum(jnp.moveaxis(each, 0, -1), IMPOSSIBLE)
        weight /= weight.sum(-1, keepdims=True)
        action = self.plan.action(t, (observation, weight))
        return action, Weighed(weight, observation, action)

    def follow(self, memory: Weighed, action: Int[Array, "B N"]) -> Weighed:
        """Return the memory if the last decision had been `action`."""
        return memory._replace(action=action)


def _fits(family: TaskFamily, kind: Kind) -> str | None:
    if kind != "mdp":
        return "it plans for observed states, and beliefs over candidates"
    if family.spaces.random_rewards:
        return "it does not learn from random rewards"
    return None


@register_policy("bayes-adaptive", _fits)
def bayes_adaptive(bed: Shown) -> Prepared:
    """Prepare the Bayes-adaptive plan.

    Raises:
        ValueError: if the plan exceeds the memory or the time.

    """
    family, config = bed.config.prior_family, bed.config
    if isinstance(family, ConjugateFamily) and is_small(
        family, horizon=config.horizon, tasks=config.tasks
    ):
        counted = count_plan(bed)
        if bed.states is None:
            return Prepared(counted)
        return Prepared(counted, expected_return(counted, bed.states))
    policy = candidate_plan(bed)
    return Prepared(policy, bounds=PlanBounds(policy.plan.lower, policy.plan.upper))


def candidate_plan(bed: Shown) -> CandidatePolicy:
    """Return the plan for the prior's candidates.

    Raises:
        ValueError: if the plan exceeds the memory or the time.

    """
    found, config = posterior(bed), bed.config
    assert isinstance(found.models, MDP)
    seen, horizon = config.rewards_seen, config.horizon
    task = hidden_model(found.models, found.weight, observes_reward=seen)
    moves = moves_of(task, horizon=horizon)
    for points in POINTS:
        needed, work = plan_cost(
            moves, roots=config.tasks, horizon=horizon, points=points
        )
        if needed <= MOST_BYTES and work <= MOST_WORK:
            break
    else:
        count, states, actions, _ = found.models.transition.shape
        raise ValueError(
            "policy `bayes-adaptive`: a plan must need at most "
            f"{MOST_BYTES / 2**30:.2g} GiB of memory and {MOST_WORK:.1g} operations "
            f"per sweep, found {count} candidates, {states} states, {actions} actions "
            f"and {horizon} stages, which need {needed / 2**30:.2g} GiB of "
            f"memory and {work:.1g} operations"
        )
    method = MixedObservability(gap=GAP, points=points)
    plan = solve(task, horizon=horizon, method=method)
    return CandidatePolicy(plan, found.models, found.weight, seen)
