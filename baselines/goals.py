"""Darkroom policies that know the rules and read the goal from the demonstrations.

Before the demonstrations every cell may be the goal; a reward names it, and a decision
that would have paid there and did not rules a cell out.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.baselines.posterior import Posterior
from sdm.baselines.posterior_sampling import PosteriorSampling
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.families import DarkroomFamily
from sdm.solvers_jax.models import MDP
from sdm.solvers_jax.policies import TabularPolicy, deterministic
from sdm.solvers_jax.rollout import Trajectory


def prior(family: DarkroomFamily, tasks: int) -> Float[Array, "B S"]:
    """Every cell equally likely to be the goal of each task."""
    return jnp.full((tasks, family.states), 1 / family.states)


def posterior(family: DarkroomFamily, support: Trajectory) -> Float[Array, "B S"]:
    """Probability of each goal, after the demonstrations of each task."""
    return jnp.asarray(
        family.goal_posterior(
            np.asarray(support.observation),
            np.asarray(support.action),
            np.asarray(support.reward),
        )
    )


def plan_for_mean(
    family: DarkroomFamily, chance: Float[Array, "B S"], *, horizon: int
) -> TabularPolicy:
    """The optimal policy of the tasks that pay what is to be expected."""
    alike = family.mdp(jnp.zeros(len(chance), jnp.int32))
    paid = family.expected_reward(chance)
    mean = MDP(alike.transition, paid, alike.initial, alike.discount)
    solution = backward_induction(mean, horizon=horizon)
    return deterministic(solution.policy, family.actions)


def sample_goals(
    family: DarkroomFamily, chance: Float[Array, "B S"], *, horizon: int
) -> PosteriorSampling:
    """Draw a goal before each episode, and plan for it."""
    rooms = family.mdp(jnp.arange(family.states, dtype=jnp.int32))
    q = backward_induction(rooms, horizon=horizon).q
    return PosteriorSampling(
        Posterior(jnp.arange(family.states, dtype=float), chance), q, rooms
    )
