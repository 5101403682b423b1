"""Logs in which an observation of one task is another one than that of another task.

Rewards and transitions may differ between tasks. Models, fitted values and behavior
policies that are estimated after an observation are then right only within a task.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from sdm.data.logs import NOTHING, Logs


def several_tasks(logs: Logs) -> bool:
    """Return whether there are episodes of more than one task."""
    return bool((logs.task != logs.task[0]).any())


def by_task(
    logs: Logs, table: Float[np.ndarray, "T S A"] | None
) -> tuple[Logs, Float[np.ndarray, "T P A"] | None]:
    """Return logs whose observations are pairs of a task and an observation.

    Args:
        logs: the logs.
        table: a policy π_t(a | s) for their observations, or None.

    Returns:
        The logs, with the P pairs that they have, and the policy for these pairs.

    """
    known = logs.observation != NOTHING
    size = len(logs.observations)
    task = np.broadcast_to(logs.task[:, None], known.shape).astype(np.int64)
    pairs, place = np.unique(
        task[known] * size + logs.observation[known], return_inverse=True
    )
    observation = np.full(known.shape, NOTHING, np.int32)
    observation[known] = place
    names = (f"{logs.tasks[i // size]}: {logs.observations[i % size]}" for i in pairs)
    split = dataclasses.replace(
        logs, observation=observation, observations=tuple(names)
    )
    return split, None if table is None else table[:, pairs % size]
