"""Tasks of one setting, solved and rolled out: the columns of an oracle dataset.

All columns have tasks leading. `value` is what the solver says; `oracle_value` what its
policy earns in the model that runs. Both are the same number but for an APOMDP, whose
value is no model's expectation: there the mean return of the episodes played stands in.
"""

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.solvers_jax.apomdp import APOMDPSolution, solve_apomdp
from sdm.solvers_jax.backward_induction import MDPSolution, backward_induction
from sdm.solvers_jax.belief import BeliefPolicy, belief_filter, true_model
from sdm.solvers_jax.models import APOMDP, MDP, POMDP
from sdm.solvers_jax.policies import Policy, deterministic, uniform_random
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.pomdp import POMDPSolution, solve_pomdp
from sdm.solvers_jax.rollout import Trajectory, discounted_return, rollout, task_keys
from sdm.solvers_jax.streams import Stream, stream_key

if TYPE_CHECKING:
    from sdm.solvers_jax.oracle_data import OracleConfig

SETTINGS = ("mdp", "pomdp", "apomdp")
Solution = MDPSolution | POMDPSolution | APOMDPSolution


class Tasks(NamedTuple):
    """A batch of sampled tasks.

    Attributes:
        p: success probabilities.
        model: what the agent knows.
        world: the model that runs; of an APOMDP its first.
        divergence: of each model of an ambiguity set to the first, in nats.

    """

    p: Float[Array, " B"]
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
    p = family.sample_p(stream_key(seed, streams[0]), size, first=first)
    nothing = jnp.zeros((size, 0), p.dtype)
    if config.setting == "mdp":
        mdp = family.mdp(p)
        return Tasks(p, mdp, mdp, nothing)
    if config.setting == "pomdp":
        pomdp = family.pomdp(p)
        return Tasks(p, pomdp, pomdp, nothing)
    sets = task_keys(stream_key(seed, streams[1]), size, first=first)
    model, divergence = family.apomdp(sets, p)
    return Tasks(p, model, true_model(model), divergence)


def solve_sampled(
    model: MDP | POMDP | APOMDP, config: "OracleConfig"
) -> tuple[Solution, Policy]:
    """The solution of sampled tasks, which are well posed, and the oracle's policy."""
    horizon, points = config.horizon, config.points_per_stage
    if isinstance(model, MDP):
        exact = backward_induction(model, horizon=horizon)
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
    return result | {
        "observation": played.observation,
        "action": played.action,
        "reward": played.reward,
        "optimal_action": played.action,  # the oracle is what played
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
    episodes = max(1, config.trajectories) * config.horizon * 4 * eight
    if config.setting == "mdp":
        return episodes + eight * family.actions * states * (states + config.horizon)
    models = family.models if config.setting == "apomdp" else 1
    points = config.points_per_stage + states
    return episodes + 4 * eight * config.horizon * points * models * states
