"""Behaviour cloning: do what was done at this stage with this in sight.

π(a|o, t) is the share of each action among the task's own demonstrations; where they
show nothing for (o, t), among episodes of other tasks; where those show nothing either,
every action is equally likely.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sdm.solvers_jax.policies import TabularPolicy
from sdm.solvers_jax.rollout import Trajectory


def behaviour_cloning(
    support: Trajectory, others: Trajectory, *, symbols: int, actions: int
) -> TabularPolicy:
    """Clone each task's demonstrations.

    Args:
        support: of the tasks that are played.
        others: episodes of other tasks, as many stages long.
        symbols: how many things there are to be seen.
        actions: how many there are to be done.

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
    """How often each action was taken in sight of each symbol, stage by stage."""
    tasks, _, horizon = played.action.shape
    counts = np.zeros((tasks, horizon, symbols, actions), np.int64)
    task, _, stage = np.indices(played.action.shape)
    where = (task, stage, np.asarray(played.observation), np.asarray(played.action))
    np.add.at(counts, where, 1)
    return counts
