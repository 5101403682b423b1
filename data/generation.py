"""Oracle datasets: sample and solve tasks, roll the optimal policy out, write shards.

Tasks are solved in batches of equal size, so that one compilation serves all batches
and memory does not grow with the number of tasks. Task i and its episodes depend only
on the seed and on i; an interrupted and resumed run writes the same bytes.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Array

from sdm.data.optimality_gap import optimality_gap
from sdm.data.request import (
    OracleConfig,
    check_available,
    dataset_header,
    plain_params,
)
from sdm.data.shard_checks import is_whole, remove_damaged
from sdm.data.shards import (
    PARAMETERS,
    shard_path,
    write_manifest,
    write_shard,
)
from sdm.data.solved_tasks import columns
from sdm.solvers_jax.certificate import close, relative_gap
from sdm.storage.processes import JaxGroup, folder_of_all, is_first, wait_for_all

EPISODE_COLUMNS = ("observation", "action", "reward", "optimal_action")
TASK_COLUMNS = ("value", "lower", "upper", "error", "oracle_value", "random_value")
Progress = Callable[[int], None]  # called with the number of completed tasks


@dataclass(frozen=True)
class OracleSummary:
    """Results over all tasks, and computing time.

    Attributes:
        value_mean: mean optimal value.
        lower_mean: mean certified lower bound; None if there is none.
        upper_mean: mean certified upper bound; None if there is none.
        gap_max: largest `upper - lower` of a task, or largest estimated error, in units
            of the rewards.
        relative_gap_max: largest `upper - lower` relative to the larger of the two, to
            which the option `gap` refers; None unless tasks are POMDPs.
        missed_gap: number of tasks that exceed the gaps `gap` and `atol`; None
            unless tasks are POMDPs.
        random_gap_percent: optimality gap of random actions, in % of the oracle's
            return.
        compile_seconds: seconds of tracing and compilation, or of loading compiled
            programs from the cache.
        seconds: seconds of everything else.

    """

    value_mean: float
    lower_mean: float | None
    upper_mean: float | None
    gap_max: float
    relative_gap_max: float | None
    missed_gap: int | None
    random_gap_percent: float
    compile_seconds: float
    seconds: float


class OracleBatches:
    """The solved batches of a configuration, all of one size to compile only once.

    Attributes:
        count: number of batches.
        size: tasks per batch; the last one may be smaller.
        compile_seconds: seconds of compilation so far.

    """

    def __init__(self, config: OracleConfig) -> None:
        """Compile the solver; for hidden states, at the first batch."""
        self.config = config
        self.size: int = min(config.together, config.tasks)
        self.count: int = -(-config.tasks // self.size)
        self.compile_seconds: float = 0.0
        make = partial(columns, config=config, size=self.size)
        self._make: Callable[[Array], dict[str, Any]] = make
        if config.kind == "mdp":
            with self._compiling():
                self._make = jax.jit(make).lower(jnp.int32(0)).compile()

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Solve one batch, and return its columns on the host."""
        first = index * self.size
        left = min(self.size, self.config.tasks - first)
        with self._compiling():
            made = dict(self._make(jnp.int32(first)))
            params = plain_params(made.pop("params"))
            made = jax.device_get(made)
        columns = {name: np.asarray(array)[:left] for name, array in made.items()}
        return columns | {
            f"{PARAMETERS}.{name}": array[:left] for name, array in params.items()
        }

    def rows(self, index: int) -> int:
        """Return the number of episodes of one batch."""
        tasks = min(self.size, self.config.tasks - index * self.size)
        return tasks * (self.config.trajectories + self.config.random_trajectories)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Iterate over all batches in order."""
        return (self[index] for index in range(self.count))

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """Add the seconds in which JAX traces and compiles to `compile_seconds`."""
        spans: list[tuple[float, float]] = []

        def add(event: str, duration_secs: float, **kwargs: str | int) -> None:
            if event.startswith("/jax/core/compile"):
                end = time.perf_counter()
                spans.append((end - duration_secs, end))

        jax.monitoring.register_event_duration_secs_listener(add)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(add)
            self.compile_seconds += covered(spans)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals, which may contain each other."""
    total, last = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


def solve_tasks(
    config: OracleConfig, *, progress: Progress = lambda done: None
) -> OracleSummary:
    """Solve every task, and return only the summary.

    Args:
        config: the tasks and the solver's options.
        progress: called with the number of completed tasks.

    Raises:
        ValueError: if the family has fewer training tasks.

    """
    # The return of an APOMDP's oracle can be estimated from episodes only.
    episodes = max(1, config.trajectories) if config.kind == "apomdp" else 0
    check_available(config)
    config = dataclasses.replace(config, trajectories=episodes, random_trajectories=0)
    start, parts = time.perf_counter(), []
    batches = OracleBatches(config)
    for batch in batches:
        parts.append({name: batch[name] for name in TASK_COLUMNS})
        progress(sum(len(part["value"]) for part in parts))
    return _summary(config, parts, batches.compile_seconds, time.perf_counter() - start)


def write_oracle_dataset(
    config: OracleConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done: None,
) -> OracleSummary:
    """Solve every task, roll its optimal policy out and write the dataset `out`.

    If several processes have joined, each one solves a part of the batches. The dataset
    is the same byte for byte.

    Args:
        config: configuration of the dataset.
        out: the folder to write.
        resume: resume an unfinished `out.partial` of the same configuration, or make
            the damaged shards of a complete `out` again.
        overwrite: replace `out`.
        progress: called with the number of completed tasks.

    Raises:
        ValueError: if `config.trajectories` is 0, or the family has fewer training
            tasks.
        StorageError: if the folder cannot be created; see `storage.folder_in_progress`.
        LockedError: if another process writes the folder.

    """
    if config.trajectories < 1:
        raise ValueError("trajectories = 0: must be 1 or more for a dataset")
    check_available(config)
    about = describe(config)
    options = {"resume": resume, "overwrite": overwrite, "is_damaged": remove_damaged}
    with folder_of_all(out, about, JaxGroup(), **options) as folder:
        start, batches = time.perf_counter(), OracleBatches(config)
        for index in range(jax.process_index(), batches.count, jax.process_count()):
            path = shard_path(folder, index)
            if not is_whole(path, rows=batches.rows(index)):
                first = index * batches.size
                write_shard(path, _rows(batches[index], first, config.trajectories))
            progress(min(config.tasks, (index + 1) * batches.size))
        wait_for_all("every shard is written")
        parts = [_of_tasks(shard_path(folder, i)) for i in range(batches.count)]
        if is_first():
            error = max(float(part["error"].max()) for part in parts)
            apomdp = config.kind == "apomdp"
            kind = "estimated_error" if apomdp else "certified_error"
            write_manifest(folder, {**about, kind: error})
    return _summary(config, parts, batches.compile_seconds, time.perf_counter() - start)


def _of_tasks(path: Path) -> dict[str, np.ndarray]:
    """Return the columns that a summary needs, with one row per task of a shard."""
    table = pq.read_table(path, columns=["episode", *TASK_COLUMNS])
    first = table.column("episode").to_numpy() == 0
    return {name: table.column(name).to_numpy()[first] for name in TASK_COLUMNS}


def describe(config: OracleConfig) -> dict[str, Any]:
    """Return everything that determines a dataset, for its manifest and its plan."""
    return {
        **dataset_header(
            config.family,
            config.kind,
            policy="oracle",
            observes_reward=config.rewards_seen,
            horizon=config.horizon,
            tasks=config.tasks,
            trajectories=config.trajectories,
            random_trajectories=config.random_trajectories,
            seed=config.seed,
        ),
        "batch": config.together,
        "gap": config.gap if config.kind == "pomdp" else None,
        "atol": config.enough if config.kind == "pomdp" else None,
        "points": config.points_per_stage,
        "believe": config.believe if config.kind == "apomdp" else None,
    }


def _rows(
    batch: dict[str, np.ndarray], first: int, optimal: int
) -> dict[str, np.ndarray]:
    """Flatten [tasks, episodes, ...] columns into one row per episode.

    The first `optimal` episodes of a task are the oracle's; the others are random.
    """
    tasks, episodes = batch["action"].shape[:2]
    rows = {
        "task": np.repeat(np.arange(first, first + tasks), episodes),
        "episode": np.tile(np.arange(episodes), tasks),
        "random": np.tile(np.arange(episodes) >= optimal, tasks),
    }
    for name, array in batch.items():
        if name not in EPISODE_COLUMNS:  # of the task
            rows[name] = np.repeat(array, episodes, axis=0)
        else:
            rows[name] = array.reshape(tasks * episodes, -1)
    return rows


def _summary(
    config: OracleConfig,
    parts: list[dict[str, np.ndarray]],
    compile_seconds: float,
    seconds: float,
) -> OracleSummary:
    value, lower, upper, error, oracle, random = (
        np.concatenate([part[name] for part in parts]) for name in TASK_COLUMNS
    )
    bounded = bool(np.isfinite(lower).all())
    pomdp = config.kind == "pomdp"
    gaps = relative_gap(lower, upper) if pomdp else None
    missed = ~close(lower, upper, config.gap, config.enough)
    return OracleSummary(
        value_mean=float(value.mean()),
        lower_mean=float(lower.mean()) if bounded else None,
        upper_mean=float(upper.mean()) if bounded else None,
        gap_max=float(error.max()),
        relative_gap_max=None if gaps is None else float(gaps.max()),
        missed_gap=int(missed.sum()) if pomdp else None,
        random_gap_percent=100 * optimality_gap(random, oracle).mean,
        compile_seconds=compile_seconds,
        seconds=max(0.0, seconds - compile_seconds),
    )
