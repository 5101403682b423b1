"""Tasks of a family, solved and played: the columns of an oracle dataset.

The first axis of all columns is tasks. `value` is the solver's; `oracle_value` is the
return of the oracle's policy in the model that generates episodes. The two are equal
except for an APOMDP, whose value is not the expected return in any model: its
`oracle_value` is the mean return of the episodes.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.data.oracles import Asked, solved
from sdm.data.request import OracleConfig
from sdm.solvers_jax.backward_induction import MDPSolution, optimal_action
from sdm.solvers_jax.methods import Method, make_method, method_class, option_names
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.family import SET_KEY, Params, Split
from sdm.tasks.models import Model, states_observed
from sdm.tasks.policy import Policy, uniform_random
from sdm.tasks.rollout import Trajectory, discounted_return, rollout, task_keys
from sdm.tasks.stages import check_stationary
from sdm.tasks.streams import Stream, stream_key
from sdm.tasks.worlds import world_of

# The random seed streams of a split's tasks and of their ambiguity sets.
STREAMS = {
    "train": (Stream.TRAIN_TASKS, Stream.TRAIN_SETS),
    "test": (Stream.TEST_TASKS, Stream.TEST_SETS),
}


class Tasks(NamedTuple):
    """A batch of sampled tasks.

    Attributes:
        params: their parameters; the first axis is tasks.
        model: the model that the oracle knows.
        world: the model that generates episodes; of an APOMDP, its first model.
        divergence: KL divergence of each model of an ambiguity set from the first, in
            nats.

    """

    params: Params
    model: Any
    world: Any
    divergence: Float[Array, "B K"]


def sample_tasks(
    first: int | Int[Array, ""],
    *,
    config: OracleConfig,
    size: int,
    split: Split = "train",
) -> Tasks:
    """Draw tasks `first`, ..., `first + size - 1` of a configuration.

    Args:
        first: index of the first task.
        config: configuration with the family and the seed.
        size: number of tasks.
        split: training tasks (`train`) or test tasks (`test`).

    Raises:
        AmbiguityError: if no ambiguity set has the requested radius.
        ValueError: if an array of the tasks depends on the stage.

    """
    family, (tasks, sets) = config.family, STREAMS[split]
    key = stream_key(config.seed, tasks)
    params = dict(family.parameters(key, size, split=split, first=first))
    if config.kind == "apomdp":
        params[SET_KEY] = task_keys(stream_key(config.seed, sets), size, first=first)
    model = family.model(params, config.kind)
    check_stationary(model, "a family of tasks")
    far = jnp.zeros((size, 0), model.reward.dtype)
    if config.kind == "apomdp":
        far = family.divergence(params, model)
    return Tasks(params, model, world_of(model), far)


def solve_sampled(model: Model, config: OracleConfig) -> tuple[Any, Policy]:
    """Solve sampled tasks, and return the solution and the oracle's policy.

    Sampled tasks are well posed, so they are not validated.
    """
    asked = Asked(
        config.horizon,
        config.believe,
        config.rewards_seen,
        config.family.defaults.stationary,
    )
    return solved(model, method_of(config, type(model)), asked)


def method_of(config: OracleConfig, model: type) -> Method[Any, Any]:
    """Return the method that solves a configuration's tasks.

    It is the default method for their type of model, with the configuration's options
    that this method has.
    """
    known = option_names(method_class(model))
    options = {
        "gap": config.gap,
        "atol": config.enough,
        "points": config.points_per_stage,
    }
    return make_method(model, None, {n: options[n] for n in options if n in known})


def columns(
    first: Int[Array, ""], *, config: OracleConfig, size: int
) -> dict[str, Array | Params]:
    """Return the columns of tasks `first`, ..., `first + size - 1`.

    JAX can trace this function if the tasks are MDPs.

    Args:
        first: index of the first task.
        config: configuration of the dataset.
        size: number of tasks.

    Raises:
        AmbiguityError: if no ambiguity set has the requested radius.

    """
    tasks = sample_tasks(first, config=config, size=size)
    found, policy = solve_sampled(tasks.model, config)
    nothing = jnp.full_like(found.value, jnp.nan)
    lower = nothing if found.lower is None else found.lower
    upper = nothing if found.upper is None else found.upper
    result: dict[str, Array | Params] = {
        "params": tasks.params,
        "value": found.value,
        "lower": lower,
        "upper": upper,
        "error": getattr(found, "error", upper - lower),
        "oracle_value": found.value,
        "random_value": _random_value(tasks.world, config.horizon),
        "divergence": tasks.divergence,
    }
    if not config.trajectories:
        return result
    episodes = stream_key(config.seed, Stream.TRAIN_EPISODES)
    played = _play(task_keys(episodes, size, first=first), tasks.world, policy, config)
    if config.kind == "apomdp":
        earned = discounted_return(played.reward, tasks.model.discount)
        result["oracle_value"] = earned.mean(-1)
    optimal = played.action  # the oracle generated these episodes
    if config.random_trajectories:
        assert isinstance(found, MDPSolution)  # `OracleConfig` checks it
        random = rollout(
            task_keys(stream_key(config.seed, Stream.TRAIN_RANDOM), size, first=first),
            tasks.world,
            uniform_random(tasks.world, config.horizon),
            horizon=config.horizon,
            episodes=config.random_trajectories,
        )
        labels = found
        if config.family.defaults.stationary:
            # In late stages, every action can be optimal; the action of stage 0 is
            # optimal at every stage.
            early = jnp.broadcast_to(found.policy[:, :1], found.policy.shape)
            labels = dataclasses.replace(found, policy=early)
        better = optimal_action(labels, random.observation)
        optimal = jnp.concatenate([optimal, better], axis=1)
        played = jax.tree.map(
            lambda *parts: jnp.concatenate(parts, axis=1), played, random
        )
    return result | {
        "observation": played.observation,
        "action": played.action,
        "reward": played.reward,
        "optimal_action": optimal,
    }


@partial(jax.jit, static_argnames="config")
def _play(
    keys: Key[Array, " B"], world: Model, policy: Policy, config: OracleConfig
) -> Trajectory:
    return rollout(
        keys,
        world,
        policy,
        horizon=config.horizon,
        episodes=config.trajectories,
    )


def _random_value(world: Model, horizon: int) -> Float[Array, " B"]:
    """Return the exact expected return of uniformly random actions."""
    states = states_observed(world)
    return evaluate_policy(states, uniform_random(states, horizon).probabilities)
