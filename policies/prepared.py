"""A policy that is ready for a benchmark, with its exact value where that is known."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.benchmark import Benchmark
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.models import POMDP
from sdm.tasks.policy import Policy, TabularPolicy


class PlanBounds(NamedTuple):
    """How far a plan can be from the best one for what its agent believes.

    Attributes:
        lower: certified lower bound on what the agent expects to earn in each task.
        upper: certified upper bound on what any policy would earn there.

    """

    lower: Float[Array, " B"]
    upper: Float[Array, " B"]


@dataclass(frozen=True)
class Prepared:
    """A policy for the tasks of a benchmark.

    Attributes:
        policy: chooses the actions.
        value: exact expected return in each task; None where it is not known.
        bounds: of a plan that need not be the best one; None where it is exact, or
            nothing is known.

    """

    policy: Policy
    value: Float[Array, " B"] | None = None
    bounds: PlanBounds | None = None


def state_table(bed: Benchmark, policy: TabularPolicy) -> Prepared:
    """Prepare a table over states, or one that is the same for every observation."""
    return Prepared(policy, evaluate_policy(bed.states, policy.probabilities))


def table(bed: Benchmark, policy: TabularPolicy) -> Prepared:
    """Prepare a table over observations.

    Its value is exact where a symbol depends on the state alone: the table then acts
    in each state as its mixture over the symbols that the state shows.
    """
    world = bed.tasks.world
    if not isinstance(world, POMDP):
        return state_table(bed, policy)
    first, later = world.initial_observation, np.asarray(world.observation)
    if first is None or not (later == np.asarray(first)[:, None]).all():
        return Prepared(policy)
    shown = jnp.einsum("bso,btoa->btsa", first, policy.probabilities)
    return Prepared(policy, evaluate_policy(bed.states, shown))
