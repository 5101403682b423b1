"""Configuration of a dataset: its tasks, and how they are solved and played."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sdm
from sdm.data.budget import (
    default_points,
    numbers_to_solve,
    shapes_of_task,
    states_with_rewards,
)
from sdm.storage.checks import check_tolerance
from sdm.tasks.belief import check_believe
from sdm.tasks.family import HIDDEN, SET_KEY, Kind, Params, TaskFamily, poses
from sdm.tasks.models import check_count, check_horizon
from sdm.tasks.registry import load_family, reference_of

BATCH_BYTES = 1 << 28  # memory budget of a batch, estimated
CHUNK = 64  # tasks; 2 or 4 devices divide batches of complete chunks evenly


@dataclass(frozen=True)
class OracleConfig:
    """Configuration of an oracle dataset.

    Attributes:
        family: family of the tasks.
        horizon: decisions per episode, T; the family's default, energy 10.
        tasks: number of tasks; the family's default, energy 3200, or at most 100 for a
            summary without `--out`.
        trajectories: optimal episodes per task, with `--out`; the family's default,
            energy 15.
        seed: random seed of tasks and episodes.
        batch: tasks solved together, and per shard; chosen from the memory budget if
            not given.
        kind: kind of model, mdp, pomdp or apomdp.
        gap: certified gap to reach, relative to the value (pomdp).
        atol: certified gap that is always enough, in units of reward (pomdp); the
            family's default if not given.
        points: beliefs per stage (pomdp: 512, apomdp: 64, small files 256), or per
            stage and visible value if states are seen in part (16).
        believe: model in the oracle's filter (apomdp), 0, which generates the episodes,
            to K - 1, or `mixture` for all of them.
        random_trajectories: additional episodes of uniformly random actions per task
            (mdp); the family's default, energy 0.
        observes_reward: whether agents, including the oracle, observe their rewards;
            the family's default if not given.

    """

    family: TaskFamily
    horizon: int
    tasks: int
    trajectories: int
    seed: int = 0
    batch: int | None = field(default=None, metadata={"option": "--batch-size"})
    kind: Kind = "mdp"
    gap: float = 0.01
    atol: float | None = None
    points: int | None = None
    believe: int | str = "mixture"
    random_trajectories: int = 0
    observes_reward: bool | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_horizon(self.horizon)
        check_count("tasks", self.tasks, 1)
        check_count("trajectories", self.trajectories, 0)
        check_count("seed", self.seed, 0, 2**32 - 1)
        if self.batch is not None:
            check_count("batch size", self.batch, 1)
        poses(self.family, self.kind)
        check_count("random_trajectories", self.random_trajectories, 0)
        if self.random_trajectories and self.kind in HIDDEN:
            raise ValueError(
                f"random_trajectories = {self.random_trajectories}: must be 0 for kind "
                f"{self.kind}, since they need observed states"
            )
        if self.points is not None:
            check_count("points", self.points, 4 if self.kind == "apomdp" else 1)
        for name in ("gap", "atol"):
            if getattr(self, name) is not None:
                check_tolerance(name, getattr(self, name))
        if self.kind == "apomdp":
            check_believe(self.believe, getattr(self.family, "models", 1))

    @property
    def together(self) -> int:
        """Return the tasks per batch: complete chunks if one fits the memory budget."""
        fit = max(1, min(1024, BATCH_BYTES // bytes_per_task(self)))
        return self.batch or (fit if fit < CHUNK else fit // CHUNK * CHUNK)

    @property
    def points_per_stage(self) -> int:
        """Return the beliefs per stage, or per stage and visible value."""
        if self.points is not None:
            return self.points
        family: Any = self.family  # hashable: `check_family` refuses others
        return default_points(shapes_of_task(family, self.kind))

    @property
    def enough(self) -> float:
        """Return the certified gap that is always enough, in units of reward."""
        return self.family.defaults.atol if self.atol is None else self.atol

    @property
    def rewards_seen(self) -> bool:
        """Return whether agents observe their rewards."""
        return sees_rewards(self.family, self.kind, self.observes_reward)


def sees_rewards(family: TaskFamily, kind: Kind, chosen: bool | None) -> bool:
    """Return `chosen`, or the family's default if it is None."""
    if chosen is None:
        return kind in family.defaults.observes_reward
    return chosen


def bytes_per_task(config: OracleConfig) -> int:
    """Estimate the memory to solve one task, in bytes."""
    family: Any = config.family  # hashable: `check_family` refuses others
    kind = config.kind
    played = max(1, config.trajectories) + config.random_trajectories
    states = None
    if config.rewards_seen and kind in HIDDEN:
        states = states_with_rewards(family, kind)
    solver = numbers_to_solve(
        shapes_of_task(family, kind),
        config.horizon,
        config.points_per_stage,
        states=states,
    )
    return np.dtype(float).itemsize * (4 * played * config.horizon + solver)


def check_available(config: OracleConfig) -> None:
    """Raise `ValueError` if the family has fewer training tasks than the dataset."""
    most = config.family.available("train")
    if most is not None and config.tasks > most:
        raise ValueError(
            f"tasks = {config.tasks}: must be at most {most}, the training tasks of "
            f"family `{config.family.name}`"
        )


def family_header(family: TaskFamily, kind: Kind) -> dict[str, Any]:
    """Describe a family and a kind, so that `family_of` can make the family."""
    return {
        "family": reference_of(family),
        "kind": kind,
        "family_config": family.config(),
    }


def dataset_header(
    family: TaskFamily,
    kind: Kind,
    *,
    policy: str,
    observes_reward: bool,
    horizon: int,
    tasks: int,
    trajectories: int,
    random_trajectories: int,
    seed: int,
) -> dict[str, Any]:
    """Describe the tasks and episodes of a dataset, for its manifest.

    Args:
        family: family of the tasks.
        kind: kind of the tasks.
        policy: what acted in the episodes to learn.
        observes_reward: whether the agent observes its rewards.
        horizon: decisions per episode.
        tasks: number of tasks.
        trajectories: largest number of episodes of a task to learn.
        random_trajectories: largest number of its other episodes.
        seed: random seed.

    """
    versions = {name: importlib.metadata.version(name) for name in ("jax", "pyarrow")}
    return {
        **family_header(family, kind),
        "observes_reward": observes_reward,
        "policy": policy,
        "horizon": horizon,
        "tasks": tasks,
        "trajectories": trajectories,
        "random_trajectories": random_trajectories,
        "seed": seed,
        "believe": None,
        "float": str(jnp.result_type(float)),
        "versions": {"sdm": sdm.__version__, **versions},
    }


def family_of(header: Mapping[str, Any]) -> TaskFamily:
    """Make the family that a header describes.

    Raises:
        FamilyError: if the family cannot be found, or its options have changed.

    """
    return load_family(header["family"], header["family_config"])


def plain_params(params: Params) -> dict[str, np.ndarray]:
    """Return parameters as NumPy arrays, with random keys as their data."""
    plain = {}
    for name, value in params.items():
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        plain[name] = np.asarray(value)
    return plain


def params_of(plain: Mapping[str, np.ndarray]) -> Params:
    """Return the parameters from which `plain_params` made these arrays."""
    return {
        name: jax.random.wrap_key_data(jnp.asarray(value, jnp.uint32))
        if name == SET_KEY
        else jnp.asarray(value)
        for name, value in plain.items()
    }
