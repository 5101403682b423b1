"""Play a policy that is stepped from the host in groups of tasks, and keep the groups.

A run that is interrupted continues with the first group that is not kept.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from sdm.storage.arrays import read_arrays
from sdm.storage.files import temporary_name
from sdm.tasks.models import Model
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import Trajectory, rollout_on_host
from sdm.tasks.rollout_in_models import play_in_models

# Most episodes that are played together; more would not use a processor better.
ROWS_TOGETHER = 1024
Progress = Callable[[int, int], None]  # called with completed tasks and all tasks


@runtime_checkable
class StepwisePolicy(Policy, Protocol):
    """A policy that is stepped from the host and records invalid probability mass.

    Attributes:
        invalid: probability of any text but an action, for every decision so far.

    """

    invalid: list[float]


def play_in_groups(
    play: Callable[[slice], dict[str, np.ndarray]],
    tasks: int,
    *,
    together: int,
    kept: Path | None = None,
    progress: Progress = lambda done, tasks: None,
) -> dict[str, np.ndarray]:
    """Play groups of tasks one after the other, and return their concatenated arrays.

    Args:
        play: plays a group, and returns arrays; `action` has the group's tasks on the
            first axis.
        tasks: number of tasks.
        together: tasks in a group.
        kept: prefix of the files that store played groups for a resumed run; None to
            store nothing.
        progress: called with the number of completed tasks and of all tasks.

    """
    parts: list[dict[str, np.ndarray]] = []
    first = 0
    while first < tasks:
        group = slice(first, min(first + together, tasks))
        file = None if kept is None else kept.with_name(f"{kept.name}-{first}.npz")
        if file is None or not file.is_file():
            part = play(group)
            if file is not None:
                _keep(file, part)
        else:
            part = read_arrays(file)
        parts.append(part)
        first += len(part["action"])  # a stored group can have another machine's size
        progress(first, tasks)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def play_stepwise(
    keys: Key[Array, " B"],
    worlds: Model,
    make_policy: Callable[[], Policy],
    *,
    horizon: int,
    episodes: int,
) -> dict[str, np.ndarray]:
    """Play a group of tasks; return its episodes, invalid mass and seconds.

    Args:
        keys: one key per task.
        worlds: the models that generate episodes, K for each task in a row.
        make_policy: makes the policy.
        horizon: decisions per episode.
        episodes: episodes per task and model.

    """
    start = time.perf_counter()
    policy = make_policy()
    played = play_in_models(
        rollout_on_host, keys, worlds, policy, horizon=horizon, episodes=episodes
    )
    invalid = policy.invalid if isinstance(policy, StepwisePolicy) else []
    return {
        **{f: np.asarray(getattr(played, f)) for f in played.__dataclass_fields__},
        "invalid": np.asarray(invalid, np.float64),
        "seconds": np.array([time.perf_counter() - start]),
    }


def played_of(arrays: dict[str, np.ndarray]) -> Trajectory:
    """Return the episodes among the arrays of `play_in_groups`."""
    names = Trajectory.__dataclass_fields__
    return Trajectory(*(jnp.asarray(arrays[name]) for name in names))


def _keep(file: Path, part: dict[str, np.ndarray]) -> None:
    """Write a group's arrays atomically."""
    with temporary_name(file) as temporary, temporary.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **part)
