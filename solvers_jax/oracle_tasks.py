"""Tasks of one setting, solved and rolled out: the columns of an oracle dataset.

All columns have tasks leading. `value` is what the solver says; `oracle_value` what its
policy earns in the model that runs. Both are the same number but for an APOMDP, whose
value is no model's expectation: there the mean return of the episodes played stands in.
"""

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from sdm.solvers_jax.apomdp import solve_apomdp
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.belief import BeliefPolicy, belief_filter, true_model
from sdm.solvers_jax.models import MDP, POMDP
from sdm.solvers_jax.policies import deterministic, uniform_random
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.pomdp import solve_pomdp
from sdm.solvers_jax.rollout import (
    Trajectory,
    discounted_return,
    optimal_action,
    rollout,
    task_keys,
)
from sdm.solvers_jax.streams import Stream, stream_key

if TYPE_CHECKING:
    from sdm.solvers_jax.oracle_data import OracleConfig


def mdp_columns(
    first: Int[Array, ""], *, config: "OracleConfig", size: int
) -> dict[str, Array]:
    """Columns of MDPs `first`, ..., `first + size - 1`; traceable."""
    family, seed = config.family, config.seed
    p = family.sample_p(stream_key(seed, Stream.TRAIN_TASKS), size, first=first)
    mdp = family.mdp(p)
    solution = backward_induction(mdp, horizon=config.horizon)
    columns = {
        "p": p,
        "value": solution.value,
        "lower": solution.lower,
        "upper": solution.upper,
        "error": solution.upper - solution.lower,
        "oracle_value": solution.value,
        "random_value": random_value(mdp, config.horizon),
        "divergence": jnp.zeros((size, 0), p.dtype),
    }
    if config.trajectories:
        played = rollout(
            task_keys(stream_key(seed, Stream.TRAIN_EPISODES), size, first=first),
            mdp,
            deterministic(solution.policy, family.actions),
            horizon=config.horizon,
            episodes=config.trajectories,
        )
        wanted = optimal_action(solution, played.observation)
        columns |= episode_columns(played, wanted)
    return columns


def pomdp_columns(
    first: Int[Array, ""], *, config: "OracleConfig", size: int
) -> dict[str, Array]:
    """Columns of POMDPs `first`, ..., `first + size - 1`."""
    family, seed = config.family, config.seed
    p = family.sample_p(stream_key(seed, Stream.TRAIN_TASKS), size, first=first)
    model = family.pomdp(p)
    found = solve_pomdp(
        model, horizon=config.horizon, gap=config.gap, points=config.points_per_stage
    )
    columns = {
        "p": p,
        "value": found.value,
        "lower": found.lower,
        "upper": found.upper,
        "error": found.upper - found.lower,
        "oracle_value": found.value,
        "random_value": random_value(model, config.horizon),
        "divergence": jnp.zeros((size, 0), p.dtype),
    }
    if config.trajectories:
        policy = BeliefPolicy(found, belief_filter(model))
        played = _play(_episode_keys(config, size, first), model, policy, config)
        columns |= episode_columns(played, played.action)
    return columns


def apomdp_columns(
    first: Int[Array, ""], *, config: "OracleConfig", size: int
) -> dict[str, Array]:
    """Columns of APOMDPs `first`, ..., `first + size - 1`; their first model runs.

    Raises:
        AmbiguityError: if the radius of the ambiguity sets cannot be met.

    """
    family, seed = config.family, config.seed
    p = family.sample_p(stream_key(seed, Stream.TRAIN_TASKS), size, first=first)
    sets = task_keys(stream_key(seed, Stream.TRAIN_SETS), size, first=first)
    model, divergence = family.apomdp(sets, p)
    family.check_divergence(divergence)
    found = solve_apomdp(model, horizon=config.horizon, points=config.points_per_stage)
    world, nothing = true_model(model), jnp.full_like(found.value, jnp.nan)
    policy = BeliefPolicy(found, belief_filter(model))
    played = _play(_episode_keys(config, size, first), world, policy, config)
    returns = discounted_return(played.reward, model.discount)
    return {
        "p": p,
        "value": found.value,
        "lower": nothing if found.lower is None else found.lower,
        "upper": nothing if found.upper is None else found.upper,
        "error": found.error,
        "oracle_value": returns.mean(-1),
        "random_value": random_value(world, config.horizon),
        "divergence": divergence,
        **episode_columns(played, played.action),
    }


def episode_columns(
    played: Trajectory, wanted: Int[Array, "B N T"]
) -> dict[str, Array]:
    """What was seen, done and paid, and what the oracle would have done."""
    return {
        "observation": played.observation,
        "action": played.action,
        "reward": played.reward,
        "optimal_action": wanted,
    }


def random_value(model: MDP | POMDP, horizon: int) -> Array:
    """Exact return of uniformly random actions, which need no observation."""
    states = MDP(model.transition, model.reward, model.initial, model.discount)
    return evaluate_policy(states, uniform_random(states, horizon).probabilities)


def _episode_keys(
    config: "OracleConfig", size: int, first: Int[Array, ""]
) -> Key[Array, " B"]:
    return task_keys(stream_key(config.seed, Stream.TRAIN_EPISODES), size, first=first)


@partial(jax.jit, static_argnames="config")
def _play(
    keys: Key[Array, " B"], model: POMDP, policy: BeliefPolicy, config: "OracleConfig"
) -> Trajectory:
    return rollout(
        keys,
        model,
        policy,
        horizon=config.horizon,
        episodes=max(1, config.trajectories),
    )


COLUMNS_OF = {"mdp": mdp_columns, "pomdp": pomdp_columns, "apomdp": apomdp_columns}


def bytes_per_task(config: "OracleConfig") -> int:
    """What solving one task holds at once, roughly."""
    family = config.family
    states, eight = family.states, np.dtype(float).itemsize
    episodes = max(1, config.trajectories) * config.horizon * 4 * eight
    if config.setting == "mdp":
        return episodes + eight * family.actions * states * (states + config.horizon)
    models = family.models if config.setting == "apomdp" else 1
    points = config.points_per_stage + states
    return episodes + 4 * eight * config.horizon * points * models * states
