"""Policies prepared for a benchmark, with exact values or bounds if known."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Array, Float

from sdm.data.benchmark import Shown
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.policy import Policy, TabularPolicy
from sdm.tasks.worlds import over_states


class PlanBounds(NamedTuple):
    """Bounds on the expected return of an agent under its belief, per task.

    Attributes:
        lower: certified lower bound on the expected return of the agent's plan.
        upper: certified upper bound on the expected return of every policy.

    """

    lower: Float[Array, " B"]
    upper: Float[Array, " B"]


@dataclass(frozen=True)
class Prepared:
    """A policy for the tasks of a benchmark.

    Attributes:
        policy: chooses the actions.
        value: exact expected return in each task; None if it, or the task, is unknown.
        bounds: bounds of an approximate plan; None if the plan is exact, or if the
            bounds are unknown.

    """

    policy: Policy
    value: Float[Array, " B"] | None = None
    bounds: PlanBounds | None = None


def state_table(bed: Shown, policy: TabularPolicy) -> Prepared:
    """Prepare a policy over states, or one that ignores the observation."""
    if bed.states is None:
        return Prepared(policy)
    return Prepared(policy, evaluate_policy(bed.states, policy.probabilities))


def table(bed: Shown, policy: TabularPolicy) -> Prepared:
    """Prepare a policy over observations.

    Its value is known exactly if symbols depend on the state alone: in each state, the
    policy then acts as its mixture over the state's distribution of symbols.
    """
    if bed.world is None or bed.states is None:
        return Prepared(policy)
    shown = over_states(bed.world, policy.probabilities)
    if shown is None:
        return Prepared(policy)
    return Prepared(policy, evaluate_policy(bed.states, shown))
