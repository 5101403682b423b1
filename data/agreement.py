"""Agreement of a policy's decisions with the oracle's."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sdm.data.benchmark import Benchmark
from sdm.data.replay import replayed
from sdm.solvers_jax.backward_induction import MDPSolution, optimal_action
from sdm.tasks.belief import BeliefPolicy
from sdm.tasks.rollout import Trajectory


class Agreement(NamedTuple):
    """Agreement of each decision with the oracle.

    Attributes:
        action: whether the action is the oracle's or, if the family breaks ties at
            random, any optimal one.
        merged: the same, with duplicates of an action counted as one action; None if
            the family has no duplicates.

    """

    action: Bool[np.ndarray, "B N T"]
    merged: Bool[np.ndarray, "B N T"] | None


def agreement(bed: Benchmark, played: Trajectory) -> Agreement:
    """Compare every decision in the episodes with the oracle's."""
    action, family = np.asarray(played.action), bed.config.family
    if family.defaults.stationary and isinstance(bed.solution, MDPSolution):
        q, seen = np.asarray(bed.solution.q), np.asarray(played.observation)
        task = np.arange(len(action))[:, None, None]
        stage = np.arange(action.shape[-1])
        best = q[task, stage, seen].max(-1)
        optimal = q[task, stage, seen, action] == best
        return Agreement(optimal, None)
    wanted = oracle_actions(bed, played)
    if not family.spaces.duplicates:
        return Agreement(action == wanted, None)
    merged = family.spaces.merged
    same = np.asarray(merged(jnp.asarray(action)) == merged(jnp.asarray(wanted)))
    return Agreement(action == wanted, same)


def oracle_actions(bed: Benchmark, played: Trajectory) -> Int[np.ndarray, "B N T"]:
    """Return the oracle's action at every decision in the episodes.

    If states are hidden, it is the action in the belief that follows from the episode's
    observations, actions and, if the oracle observes them, rewards.
    """
    if isinstance(bed.solution, MDPSolution):
        return np.asarray(optimal_action(bed.solution, played.observation))
    assert isinstance(bed.oracle, BeliefPolicy)
    return np.asarray(_decisions(bed.oracle, played))


@eqx.filter_jit
def _decisions(policy: BeliefPolicy, played: Trajectory) -> Int[Array, "B N T"]:
    """Return a policy's action at each stage of episodes of another policy."""

    def act(t: Array, state: Any, action: Array) -> Int[Array, "B N"]:
        return policy.plan.action(t, state.known)

    found: Int[Array, "B N T"] = replayed(act, policy.filter, played)[0]
    return found
