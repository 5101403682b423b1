"""Tasks of one setting, solved and rolled out: the columns of an oracle dataset.

All columns have tasks leading. `value` is what the solver says; `oracle_value` what its
policy earns in the model that runs. Both are the same number but for an APOMDP, whose
value is no model's expectation: there the mean return of the episodes played stands in.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.solvers_jax.apomdp import APOMDPSolution, solve_apomdp
from sdm.solvers_jax.backward_induction import MDPSolution, backward_induction
from sdm.solvers_jax.belief import BeliefPolicy, belief_filter, true_model
from sdm.solvers_jax.families import DarkroomFamily, EnergyFamily
from sdm.solvers_jax.models import APOMDP, MDP, POMDP
from sdm.solvers_jax.policies import (
    Policy,
    any_optimal,
    deterministic,
    uniform_random,
)
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.pomdp import POMDPSolution, solve_pomdp
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

SETTINGS = ("mdp", "pomdp", "apomdp", "darkroom")
Solution = MDPSolution | POMDPSolution | APOMDPSolution


class Tasks(NamedTuple):
    """A batch of sampled tasks.

    Attributes:
        p: success probabilities of energy tasks; NaN elsewhere.
        goal: the cells to be found of Darkroom tasks; -1 elsewhere.
        model: what the agent knows.
        world: the model that runs; of an APOMDP its first.
        divergence: of each model of an ambiguity set to the first, in nats.

    """

    p: Float[Array, " B"]
    goal: Int[Array, " B"]
    model: MDP | POMDP | APOMDP
    world: MDP | POMDP
    divergence: Float[Array, "B K"]


def sample_tasks(
    first: int | Int[Array, ""],
    *,
    config: "OracleConfig",
    size: int,
    streams: tuple[Stream, Stream] = (Stream.TRAIN_TASKS, Stream.TRAIN_SETS),
) -> Tasks:
    """Tasks `first`, ..., `first + size - 1` of the configuration.

    Args:
        first: index of the first task.
        config: which says where tasks come from, and the seed.
        size: how many.
        streams: the random streams of the tasks and of their ambiguity sets.

    Raises:
        AmbiguityError: if the radius of the ambiguity sets cannot be met.

    """
    family, seed = config.family, config.seed
    if isinstance(family, DarkroomFamily):
        goals = family.goals(held_out=streams[0] is Stream.TEST_TASKS)
        # The last batch is as long as the others: what is over repeats the last goal.
        goal = jnp.take(goals, first + jnp.arange(size, dtype=jnp.int32), mode="clip")
        rooms = family.mdp(goal)
        unknown = jnp.full(size, jnp.nan)
        return Tasks(unknown, goal, rooms, rooms, unknown[:, None][:, :0])
    goal = jnp.full(size, -1, jnp.int32)
    p = family.sample_p(stream_key(seed, streams[0]), size, first=first)
    nothing = jnp.zeros((size, 0), p.dtype)
    if config.setting == "mdp":
        mdp = family.mdp(p)
        return Tasks(p, goal, mdp, mdp, nothing)
    if config.setting == "pomdp":
        pomdp = family.pomdp(p)
        return Tasks(p, goal, pomdp, pomdp, nothing)
    sets = task_keys(stream_key(seed, streams[1]), size, first=first)
    model, divergence = family.apomdp(sets, p)
    return Tasks(p, goal, model, true_model(model), divergence)


def solve_sampled(
    model: MDP | POMDP | APOMDP, config: "OracleConfig"
) -> tuple[Solution, Policy]:
    """The solution of sampled tasks, which are well posed, and the oracle's policy."""
    horizon, points = config.horizon, config.points_per_stage
    if isinstance(model, MDP):
        exact = backward_induction(model, horizon=horizon)
        if config.setting == "darkroom":  # many shortest ways: any of them
            return exact, any_optimal(exact.q)
        return exact, deterministic(exact.policy, config.family.actions)
    found: POMDPSolution | APOMDPSolution
    if isinstance(model, POMDP):
        found = solve_pomdp(model, horizon=horizon, gap=config.gap, points=points)
    else:
        found = solve_apomdp(model, horizon=horizon, points=points)
    return found, BeliefPolicy(found, belief_filter(model, believe=config.believe))


def columns(
    first: Int[Array, ""], *, config: "OracleConfig", size: int
) -> dict[str, Array]:
    """Columns of tasks `first`, ..., `first + size - 1`; of MDPs, traceable.

    Raises:
        AmbiguityError: if the radius of the ambiguity sets cannot be met.

    """
    tasks = sample_tasks(first, config=config, size=size)
    found, policy = solve_sampled(tasks.model, config)
    nothing = jnp.full_like(found.value, jnp.nan)
    lower = nothing if found.lower is None else found.lower
    upper = nothing if found.upper is None else found.upper
    result = {
        "p": tasks.p,
        "goal": tasks.goal,
        "value": found.value,
        "lower": lower,
        "upper": upper,
        "error": found.error if isinstance(found, APOMDPSolution) else upper - lower,
        "oracle_value": found.value,
        "random_value": _random_value(tasks.world, config.horizon),
        "divergence": tasks.divergence,
    }
    if not config.trajectories:
        return result
    episodes = stream_key(config.seed, Stream.TRAIN_EPISODES)
    played = _play(task_keys(episodes, size, first=first), tasks.world, policy, config)
    if isinstance(tasks.model, APOMDP):
        earned = discounted_return(played.reward, tasks.model.discount)
        result["oracle_value"] = earned.mean(-1)
    optimal = played.action  # the oracle is what played
    if config.random_trajectories:
        assert isinstance(found, MDPSolution)  # as `OracleConfig` sees to
        assert isinstance(tasks.world, MDP)
        wandered = rollout(
            task_keys(stream_key(config.seed, Stream.TRAIN_RANDOM), size, first=first),
            tasks.world,
            uniform_random(tasks.world, config.horizon),
            horizon=config.horizon,
            episodes=config.random_trajectories,
        )
        asked = found
        if config.setting == "darkroom":
            # Too late to reach the goal, every action is optimal: take the one that
            # leads there, which is optimal at every stage.
            early = jnp.broadcast_to(found.policy[:, :1], found.policy.shape)
            asked = dataclasses.replace(found, policy=early)
        better = optimal_action(asked, wandered.observation)
        optimal = jnp.concatenate([optimal, better], axis=1)
        played = jax.tree.map(
            lambda *parts: jnp.concatenate(parts, axis=1), played, wandered
        )
    return result | {
        "observation": played.observation,
        "action": played.action,
        "reward": played.reward,
        "optimal_action": optimal,
    }


@partial(jax.jit, static_argnames="config")
def _play(
    keys: Key[Array, " B"], world: MDP | POMDP, policy: Policy, config: "OracleConfig"
) -> Trajectory:
    return rollout(
        keys,
        world,
        policy,
        horizon=config.horizon,
        episodes=config.trajectories,
    )


def _random_value(world: MDP | POMDP, horizon: int) -> Float[Array, " B"]:
    """Exact return of uniformly random actions, which need no observation."""
    states = MDP(world.transition, world.reward, world.initial, world.discount)
    return evaluate_policy(states, uniform_random(states, horizon).probabilities)


def bytes_per_task(config: "OracleConfig") -> int:
    """What solving one task holds at once, roughly."""
    family = config.family
    states, eight = family.states, np.dtype(float).itemsize
    played = max(1, config.trajectories) + config.random_trajectories
    episodes = played * config.horizon * 4 * eight
    if not isinstance(family, EnergyFamily) or config.setting == "mdp":
        return episodes + eight * family.actions * states * (states + config.horizon)
    models = family.models if config.setting == "apomdp" else 1
    points = config.points_per_stage + states
    return episodes + 4 * eight * config.horizon * points * models * states
