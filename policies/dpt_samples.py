"""Training samples of decision-pretrained transformers, from an oracle dataset.

A sample is a task, a query with its optimal action, and a context. The context is
either episodes of the oracle (`trajectories`, as in the comparison of Zhang, Aghaei,
Saghafian, 2026) or transitions from uniformly random states and actions (`transitions`,
as in Lee et al., 2023). If states are observed, half of the queries are uniformly
random states, as in Lee et al., and half are stages of the oracle's episodes;
otherwise, the goal of a Darkroom, the only state in which to stay, is rarely a query.
If states are hidden, all queries are such stages, and the context includes the
episode's past.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Array, Float, Int, Key

from sdm.data.request import family_of, params_of
from sdm.data.shards import parameters
from sdm.policies.dpt import (
    DPTShape,
    Transitions,
    followed_by,
    one_after_another,
    tokens_of,
    transitions_of,
)
from sdm.policies.dpt_config import DPTConfig
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.tasks.family import HIDDEN
from sdm.tasks.models import Model
from sdm.tasks.reward_law import law_of, realised
from sdm.tasks.rollout import Trajectory
from sdm.tasks.worlds import (
    expected_reward,
    first_seen,
    next_seen,
    next_state,
    sizes_of,
    world_of,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pool:
    """The data that samples are drawn from.

    Attributes:
        played: the oracle's episodes of each task.
        optimal: an optimal action of each stage and state; None if states are hidden.
        world: the tasks' models, which generate transitions; None if contexts are
            episodes.

    """

    played: Trajectory
    optimal: Int[Array, "N T S"] | None
    world: Any


def oracle_episodes(table: pa.Table, tasks: int) -> Trajectory:
    """Return the oracle's episodes of a dataset, [N, M, T], for N tasks."""
    rows = table.filter(pc.invert(table["random"]))

    def column(name: str, kind: Any) -> Array:
        return jnp.asarray(
            np.stack(rows[name].to_numpy()).reshape(tasks, -1, len(rows[name][0])), kind
        )

    return Trajectory(
        column("observation", np.int32),
        column("action", np.int32),
        column("reward", np.float32),
    )


def make_pool(manifest: Mapping[str, Any], table: pa.Table, *, contexts: str) -> Pool:
    """Return the data that samples are drawn from.

    The models are those of the dataset's parameters. Of an ambiguity set, it is the
    first model, which generates the episodes. All of them are in memory together only
    if contexts are transitions that they generate.

    Args:
        manifest: manifest of the dataset.
        table: rows of the dataset.
        contexts: `trajectories` or `transitions`, see `DPTConfig`.

    """
    family, tasks = family_of(manifest), manifest["tasks"]
    first = table.take(np.arange(tasks) * (len(table) // tasks))
    params, kind = params_of(parameters(first)), manifest["kind"]
    world, optimal = None, None
    if contexts == "transitions":
        world = world_of(family.model(params, kind))
    if kind == "mdp":
        parts = [
            jax.tree.map(lambda x, a=a: x[a : a + manifest["batch"]], params)
            for a in range(0, tasks, manifest["batch"])
        ]
        optimal = jnp.concatenate(
            [
                backward_induction(
                    world_of(family.model(part, kind)), horizon=manifest["horizon"]
                ).policy.astype(jnp.int32)
                for part in parts
            ]
        )
    played = oracle_episodes(table, tasks)
    if not manifest["observes_reward"]:
        nothing = jnp.zeros_like(played.reward)
        played = Trajectory(played.observation, played.action, nothing)
    return Pool(played, optimal, world)


def shape_for(config: DPTConfig, manifest: Mapping[str, Any]) -> DPTShape:
    """Return the dimensions of the network for a dataset."""
    family, horizon = family_of(manifest), manifest["horizon"]
    hidden = manifest["kind"] in HIDDEN
    return DPTShape(
        components=tuple(c.size for c in family.spaces.seen(manifest["kind"])),
        actions=len(family.spaces.actions),
        stages=0 if family.defaults.stationary else horizon,
        length=(config.support + hidden) * horizon,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        rewards=manifest["observes_reward"],
    )


def random_transitions(
    key: Key[Array, ""],
    world: Model,
    task: Int[Array, " B"],
    length: int,
    *,
    rewards: bool,
) -> Transitions:
    """Sample `length` transitions of each task, from random states and actions.

    States and actions are uniformly random, and independent of each other.

    Args:
        key: random key.
        world: the tasks' models.
        task: index of each sample's task.
        length: transitions per sample.
        rewards: whether rewards are observed; if not, they are zero.

    """
    states, actions, _ = sizes_of(world)
    keys = jax.random.split(key, 5)
    shape = (len(task), length)
    state = jax.random.randint(keys[0], shape, 0, states, jnp.int32)
    action = jax.random.randint(keys[1], shape, 0, actions, jnp.int32)
    own, kind = task[:, None], world.reward.dtype
    numbers = [jax.random.uniform(each, shape, kind) for each in keys[2:]]
    after = next_state(world, own, state, action, numbers[0])
    expected, pay = expected_reward(world, own, state, action), None
    # A network cannot read the -inf of actions that are not admissible.
    expected = jnp.where(jnp.isneginf(expected), jnp.zeros_like(expected), expected)
    if law_of(world) is not None:
        pay = jax.random.split(jax.random.fold_in(key, 5), shape)
    paid = realised(world, expected, own, state, action, after, pay)
    paid = paid.astype(jnp.float32) if rewards else jnp.zeros(shape, jnp.float32)
    seen = first_seen(world, own, state, numbers[1])
    return Transitions(
        seen, action, next_seen(world, own, action, after, numbers[2]), paid
    )


def sample(
    key: Key[Array, ""], pool: Pool, config: DPTConfig, shape: DPTShape
) -> tuple[Float[Array, "B L F"], Int[Array, " B"], Float[Array, "B L"]]:
    """Return a batch: tokens, optimal actions, and the loss weight of every prefix."""
    tasks, episodes, horizon = pool.played.action.shape
    which, query, moment, where, around = jax.random.split(key, 5)
    size = config.batch_size
    task = jax.random.randint(which, (size,), 0, tasks, jnp.int32)
    # Without replacement, so that the context excludes the query's episode.
    order = jax.vmap(lambda k: jax.random.permutation(k, episodes))(
        jax.random.split(query, size)
    )
    stage = jax.random.randint(moment, (size,), 0, horizon, jnp.int32)
    context = (
        one_after_another(
            transitions_of(_episodes(pool.played, task, order[:, : config.support]))
        )
        if config.contexts == "trajectories"
        else random_transitions(
            around,
            pool.world,
            task,
            config.support * horizon,
            rewards=shape.rewards,
        )
    )
    length = context.seen.shape[-1]
    own = _episodes(pool.played, task, order[:, -1:])
    row = jnp.arange(size, dtype=jnp.int32)
    met = own.observation[row, 0, stage]
    if pool.optimal is not None:
        anywhere = jax.random.randint(where, (size,), 0, shape.symbols, jnp.int32)
        seen = jnp.where(row % 2 == 0, anywhere, met)
        stage = stage if shape.stages else jnp.zeros_like(stage)
        wanted = pool.optimal[task, stage, seen]
        weight = jnp.ones((size, length + 1), jnp.float32)
    else:
        past = one_after_another(transitions_of(own))
        context = followed_by(context, past)
        seen, wanted = met, own.action[row, 0, stage]
        place = jnp.arange(length + horizon + 1, dtype=jnp.int32)
        known = place[None] <= length + stage[:, None]
        weight = known.astype(jnp.float32)
    weight = weight.at[:, 0].set(0)  # the empty prefix
    return tokens_of(shape, seen, stage, context), wanted, weight


def _episodes(
    played: Trajectory, task: Int[Array, " B"], chosen: Int[Array, "B N"]
) -> Trajectory:
    """Return the chosen episodes of the tasks."""
    return jax.tree.map(lambda x: x[task[:, None], chosen], played)
