"""Behaviour cloning: imitate the actions at this stage after this observation.

π(a|o, t) is the relative frequency of action a after observation o at stage t in the
task's demonstrations. If (o, t) does not occur in them, it is the frequency in episodes
of training tasks; if it does not occur there either, every action is equally likely.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sdm.data.benchmark import Shown
from sdm.data.solved_tasks import sample_tasks, solve_sampled
from sdm.policies.prepared import Prepared, table
from sdm.policies.registry import register_policy
from sdm.tasks.policy import TabularPolicy
from sdm.tasks.rollout import Trajectory, rollout, task_keys
from sdm.tasks.streams import Stream, stream_key

# Training tasks whose episodes are the fallback; all tasks of a finite split.
OTHER_TASKS = 20
OTHER_EPISODES = 15


@register_policy("bc")
def behaviour_cloning(bed: Shown) -> Prepared:
    """Clone each task's demonstrations."""
    family, kind = bed.config.prior_family, bed.config.kind
    config = dataclasses.replace(bed.config.oracle, family=family)
    number = family.available("train") or OTHER_TASKS
    others = sample_tasks(0, config=config, size=number)
    _, oracle = solve_sampled(others.model, config)
    shown = rollout(
        task_keys(stream_key(config.seed, Stream.TRAIN_EPISODES), number),
        others.world,
        oracle,
        horizon=config.horizon,
        episodes=OTHER_EPISODES,
    )
    spaces = bed.config.family.spaces
    sizes = {"symbols": spaces.symbols(kind), "actions": len(spaces.actions)}
    return table(bed, clone(bed.support, shown, **sizes))


def clone(
    support: Trajectory, others: Trajectory, *, symbols: int, actions: int
) -> TabularPolicy:
    """Return the frequencies of actions in demonstrations as a policy.

    Args:
        support: demonstrations of each task.
        others: episodes of other tasks, with the same horizon.
        symbols: number of distinct observations.
        actions: number of actions.

    """
    own = count_actions(support, symbols=symbols, actions=actions)
    pooled = count_actions(others, symbols=symbols, actions=actions).sum(0)
    counts = np.where(own.sum(-1, keepdims=True) > 0, own, pooled)
    counts = np.where(counts.sum(-1, keepdims=True) > 0, counts, 1)
    shares = counts / counts.sum(-1, keepdims=True)
    return TabularPolicy(jnp.asarray(shares, jnp.result_type(float)))


def count_actions(
    played: Trajectory, *, symbols: int, actions: int
) -> Int[np.ndarray, "B T O A"]:
    """Count how often each action followed each observation, stage by stage."""
    tasks, _, horizon = played.action.shape
    counts = np.zeros((tasks, horizon, symbols, actions), np.int64)
    task, _, stage = np.indices(played.action.shape)
    where = (task, stage, np.asarray(played.observation), np.asarray(played.action))
    np.add.at(counts, where, 1)
    return counts
