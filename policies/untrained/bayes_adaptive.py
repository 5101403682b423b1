r"""The optimal plan of an agent that has the demonstrations and keeps learning.

The Bayes-adaptive MDP (Duff, 2002): its states are those of the task and what is
believed about it. Its optimal policy explores as far as that pays, and no policy that
reads moves, and rewards where they are seen, earns more on average over tasks from the
prior. Demonstrated actions say more where they are optimal for the true task.

Where a family's moves are told by a few counts, the plan is exact (`count_plan`).
Elsewhere it is for the K candidates of the prior, weighed by the demonstrations, with
certified bounds on how far it is from the best one (`solvers_jax.hidden_model`).
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.data.benchmark import Benchmark
from sdm.policies.count_plan import count_plan, expected_return, is_small
from sdm.policies.posterior import IMPOSSIBLE, posterior
from sdm.policies.prepared import PlanBounds, Prepared
from sdm.policies.registry import register_policy
from sdm.solvers_jax.hidden_backup import cost_of
from sdm.solvers_jax.hidden_model import HiddenModelPlan, solve_hidden_model
from sdm.tasks.family import ConjugateFamily, Kind, TaskFamily
from sdm.tasks.models import MDP, Model
from sdm.tasks.rewards import agrees

# Beliefs per stage and state: the first that fit the memory and the time are taken.
POINTS = (32, 16, 8)
MOST_BYTES, MOST_WORK = 1 << 31, 2e11


class Weighed(NamedTuple):
    """What is remembered in an episode.

    Attributes:
        weight: probability of each candidate.
        state: the last state.
        action: the last action.

    """

    weight: Float[Array, "B N K"]
    state: Int[Array, "B N"]
    action: Int[Array, "B N"]


class CandidatePolicy(eqx.Module):
    """Weighs the candidates by Bayes' rule, and takes the plan's action.

    Attributes:
        plan: what to do in a state and a belief.
        models: the candidates.
        weight: probability of each candidate in each task, before an episode.
        rewards: whether rewards are seen.

    """

    plan: HiddenModelPlan
    models: MDP
    weight: Float[Array, "B K"]
    rewards: bool = eqx.field(static=True)

    def init(self, model: Model) -> None:
        """The first decision starts to weigh: it knows the number of episodes."""

    def act(
        self,
        memory: Weighed | None,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Weighed]:
        """Weigh the candidates by the last move and reward, and look the action up."""
        if memory is None:
            weight = jnp.broadcast_to(
                self.weight[:, None], (*observation.shape, self.weight.shape[-1])
            )
            told: list[Array] = [self.models.initial[:, observation]]
        else:
            weight, state, action = memory
            told = [self.models.transition[:, state, action, observation]]
            if self.rewards:
                expected = self.models.reward[:, state, action]
                told.append(agrees(reward[None], expected).astype(expected.dtype))
        for chance in told:
            weight *= jnp.maximum(jnp.moveaxis(chance, 0, -1), IMPOSSIBLE)
        weight /= weight.sum(-1, keepdims=True)
        action = self.plan.action(t, observation, weight)
        return action, Weighed(weight, observation, action)


def _fits(family: TaskFamily, kind: Kind) -> str | None:
    if kind == "mdp":
        return None
    return "it plans for observed states, and beliefs over candidates"


@register_policy("bayes-adaptive", _fits)
def bayes_adaptive(bed: Benchmark) -> Prepared:
    """Plan for everything that an episode can tell.

    Raises:
        ValueError: if there is too much of it.

    """
    family, config = bed.config.prior_family, bed.config
    if isinstance(family, ConjugateFamily) and is_small(
        family, horizon=config.horizon, tasks=config.tasks
    ):
        counted = count_plan(bed)
        return Prepared(counted, expected_return(counted, bed.states))
    policy = candidate_plan(bed)
    return Prepared(policy, bounds=PlanBounds(policy.plan.lower, policy.plan.upper))


def candidate_plan(bed: Benchmark) -> CandidatePolicy:
    """Return the plan for the prior's candidates.

    Raises:
        ValueError: if there are too many candidates and states.

    """
    found, config = posterior(bed), bed.config
    assert isinstance(found.models, MDP)
    seen = config.rewards_seen
    for points in POINTS:
        needed, work = cost_of(
            found.models,
            tasks=config.tasks,
            horizon=config.horizon,
            rewards=seen,
            points=points,
        )
        if needed <= MOST_BYTES and work <= MOST_WORK:
            break
    else:
        count, states, actions, _ = found.models.transition.shape
        raise ValueError(
            f"policy `bayes-adaptive`: {count} candidates, {states} states, {actions} "
            f"actions and {config.horizon} stages are too many to plan for: they need "
            f"{needed / 2**30:.2g} GiB of memory and {work:.1g} operations a sweep, of "
            f"at most {MOST_BYTES / 2**30:.2g} GiB and {MOST_WORK:.1g}"
        )
    plan = solve_hidden_model(
        found.models,
        found.weight,
        horizon=config.horizon,
        rewards=seen,
        points=points,
    )
    return CandidatePolicy(plan, found.models, found.weight, seen)
