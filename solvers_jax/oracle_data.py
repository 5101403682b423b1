"""Oracle datasets: sample tasks, solve them, roll the optimal policy out, write shards.

Tasks are worked off in batches of one size, so that one compilation serves them all and
memory does not grow with their number. Task i and its episodes depend on the seed and
on i only; a run that was interrupted and resumed leaves the same bytes.
"""

import dataclasses
import importlib.metadata
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Array

import sdm
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.models import check_count, check_horizon
from sdm.solvers_jax.optimality_gap import optimality_gap
from sdm.solvers_jax.policies import deterministic, uniform_random
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.rollout import optimal_action, rollout, task_keys
from sdm.solvers_jax.shards import (
    folder_in_progress,
    shard_path,
    write_manifest,
    write_shard,
)
from sdm.solvers_jax.streams import Stream, stream_key

TASK_COLUMNS = ("value", "lower", "upper", "random_value")
Progress = Callable[[int], None]  # told the number of tasks done so far


@dataclass(frozen=True)
class OracleConfig:
    """What to make.

    Attributes:
        family: where the tasks come from.
        horizon: decisions per episode.
        tasks: number of tasks.
        trajectories: optimal episodes of each task; 0 to solve only.
        seed: of tasks and episodes.
        batch: tasks solved together, and per shard.

    """

    family: EnergyFamily
    horizon: int
    tasks: int
    trajectories: int
    seed: int = 0
    batch: int = 1024

    def __post_init__(self) -> None:
        """Raise `ValueError` for counts that make no dataset."""
        check_horizon(self.horizon)
        check_count("tasks", self.tasks, 1)
        check_count("trajectories", self.trajectories, 0)
        check_count("seed", self.seed, 0, 2**32 - 1)
        check_count("batch", self.batch, 1)


@dataclass(frozen=True)
class OracleSummary:
    """Results over all tasks, and what they cost.

    Attributes:
        value_mean: mean optimal return.
        lower_mean: mean certified lower bound.
        upper_mean: mean certified upper bound.
        gap_max: largest `upper - lower` of a task.
        random_gap_percent: optimality gap of random actions, exact in each task.
        compile_seconds: spent compiling.
        seconds: spent on everything else.

    """

    value_mean: float
    lower_mean: float
    upper_mean: float
    gap_max: float
    random_gap_percent: float
    compile_seconds: float
    seconds: float


def make_batch(first: Array, *, config: OracleConfig, size: int) -> dict[str, Array]:
    """Columns of tasks `first`, ..., `first + size - 1`, tasks leading; traceable."""
    family, seed = config.family, config.seed
    p = family.sample_p(stream_key(seed, Stream.TRAIN_TASKS), size, first=first)
    mdp = family.mdp(p)
    solution = backward_induction(mdp, horizon=config.horizon)
    columns = {
        "p": p,
        "value": solution.value,
        "lower": solution.lower,
        "upper": solution.upper,
        "random_value": evaluate_policy(
            mdp, uniform_random(mdp, config.horizon).probabilities
        ),
    }
    if config.trajectories:
        played = rollout(
            task_keys(stream_key(seed, Stream.TRAIN_EPISODES), size, first=first),
            mdp,
            deterministic(solution.policy, family.actions),
            horizon=config.horizon,
            episodes=config.trajectories,
        )
        columns |= {
            "observation": played.observation,
            "action": played.action,
            "reward": played.reward,
            "optimal_action": optimal_action(solution, played.observation),
        }
    return columns


class OracleBatches:
    """The batches of a configuration, compiled once."""

    def __init__(self, config: OracleConfig) -> None:
        """Compile; `compile_seconds` says how long that took."""
        self.config, self.size = config, min(config.batch, config.tasks)
        self.count = -(-config.tasks // self.size)
        start = time.perf_counter()
        make = jax.jit(partial(make_batch, config=config, size=self.size))
        self._make = make.lower(jnp.int32(0)).compile()
        self.compile_seconds = time.perf_counter() - start

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Columns of one batch on the host; the last one may be short."""
        first = index * self.size
        left = min(self.size, self.config.tasks - first)
        columns = jax.device_get(self._make(jnp.int32(first)))
        return {name: np.asarray(array)[:left] for name, array in columns.items()}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """All batches in order."""
        return (self[index] for index in range(self.count))


def solve_tasks(
    config: OracleConfig, *, progress: Progress = lambda done: None
) -> OracleSummary:
    """Solve every task and keep only the summary."""
    batches = OracleBatches(dataclasses.replace(config, trajectories=0))
    start, parts = time.perf_counter(), []
    for batch in batches:
        parts.append({name: batch[name] for name in TASK_COLUMNS})
        progress(sum(len(part["value"]) for part in parts))
    return _summary(parts, batches.compile_seconds, time.perf_counter() - start)


def write_oracle_dataset(
    config: OracleConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done: None,
) -> OracleSummary:
    """Solve every task, roll its optimal policy out and write the dataset `out`.

    Args:
        config: what to make.
        out: the folder to write.
        resume: go on with an unfinished `out.partial` of the same configuration.
        overwrite: replace `out`.
        progress: called with the number of tasks done.

    Raises:
        ValueError: if no trajectories are asked for.
        DatasetError: if the folder cannot be begun; see `shards.folder_in_progress`.

    """
    if config.trajectories < 1:
        raise ValueError("trajectories = 0: a dataset needs 1 or more")
    about = describe(config)
    with folder_in_progress(out, about, resume=resume, overwrite=overwrite) as folder:
        batches = OracleBatches(config)
        start, parts = time.perf_counter(), []
        for index in range(batches.count):
            path = shard_path(folder, index)
            if not path.is_file():
                write_shard(path, _rows(batches[index], index * batches.size))
            table = pq.read_table(path, columns=["episode", *TASK_COLUMNS])
            first = table.column("episode").to_numpy() == 0
            parts.append({n: table.column(n).to_numpy()[first] for n in TASK_COLUMNS})
            progress(sum(len(part["value"]) for part in parts))
        error = max(float((part["upper"] - part["lower"]).max()) for part in parts)
        write_manifest(folder, {**about, "certified_error": error})
    return _summary(parts, batches.compile_seconds, time.perf_counter() - start)


def describe(config: OracleConfig) -> dict[str, Any]:
    """How a dataset is made: the manifest's and the plan's common part."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "pyarrow")}
    return {
        "setting": "mdp",
        "family": config.family.name,
        "family_config": dataclasses.asdict(config.family),
        "policy": "oracle",
        "horizon": config.horizon,
        "tasks": config.tasks,
        "trajectories": config.trajectories,
        "seed": config.seed,
        "batch": config.batch,
        "float": str(jnp.result_type(float)),
        "versions": {"sdm": sdm.__version__, **versions},
    }


def _rows(batch: dict[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
    """Flatten [tasks, episodes, ...] columns into one row an episode."""
    tasks, episodes = batch["action"].shape[:2]
    rows = {
        "task": np.repeat(np.arange(first, first + tasks), episodes),
        "episode": np.tile(np.arange(episodes), tasks),
    }
    for name, array in batch.items():
        if array.ndim == 1:
            rows[name] = np.repeat(array, episodes)
        else:
            rows[name] = array.reshape(tasks * episodes, -1)
    return rows


def _summary(
    parts: list[dict[str, np.ndarray]], compile_seconds: float, seconds: float
) -> OracleSummary:
    value, lower, upper, random = (
        np.concatenate([part[name] for part in parts]) for name in TASK_COLUMNS
    )
    return OracleSummary(
        value_mean=float(value.mean()),
        lower_mean=float(lower.mean()),
        upper_mean=float(upper.mean()),
        gap_max=float((upper - lower).max()),
        random_gap_percent=100 * optimality_gap(random, value).mean,
        compile_seconds=compile_seconds,
        seconds=seconds,
    )
