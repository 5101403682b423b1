"""Optimality gaps of policies on the same unseen tasks, with common random numbers."""

import dataclasses
import gc
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdm.data.benchmark import Benchmark, EvaluationConfig, agreement, task_returns
from sdm.data.optimality_gap import OptimalityGap, optimality_gap
from sdm.policies.prepared import PlanBounds, Prepared
from sdm.policies.registry import prepare
from sdm.policies.spec import ActingOptions, parse_policy
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.storage.files import temporary_name
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import Trajectory, rollout, rollout_on_host, task_keys
from sdm.tasks.streams import Stream, stream_key

# Episodes that are played together, at most: a processor has enough to do with those.
ROWS_TOGETHER = 1024
DEFAULT = ActingOptions()
Progress = Callable[[int, int], None]  # told the tasks done and the tasks there are


@runtime_checkable
class StepwisePolicy(Policy, Protocol):
    """A policy that is stepped from the host and knows how sure it was.

    Attributes:
        invalid: probability of anything but an action, of every decision so far.

    """

    invalid: list[float]


@dataclass(frozen=True)
class PolicyResult:
    """How one policy did.

    Attributes:
        policy: its name.
        gap: optimality gap estimated from the episodes played.
        exact_gap: the same from exact values; None where a value is not known exactly.
        return_mean: mean discounted return.
        exact_return_mean: its expectation; None where it is not known exactly.
        optimal_return_mean: that of the oracle, with common random numbers.
        agreement: share of decisions that equal the oracle's, or, where the family
            breaks ties at random, that are optimal.
        merged_agreement: the same, duplicates of an action counted as one action; None
            where the family has none.
        invalid_mass: mean probability that a language model gave to anything but an
            action; None for other policies.
        seconds: spent acting.
        returns: mean return of each task.
        optimal_returns: the oracle's.
        bounds: on what the agent expects to earn, of a plan that need not be the best
            one; None for other policies.

    """

    policy: str
    gap: OptimalityGap
    exact_gap: OptimalityGap | None
    return_mean: float
    exact_return_mean: float | None
    optimal_return_mean: float
    agreement: float
    merged_agreement: float | None
    invalid_mass: float | None
    seconds: float
    returns: Float[np.ndarray, " B"]
    optimal_returns: Float[np.ndarray, " B"]
    bounds: PlanBounds | None = None


def evaluate_untrained(name: str, bed: Benchmark) -> PolicyResult:
    """Play a policy that needs no training."""
    return evaluate_traced(name, prepare(name, bed), bed)


def evaluate_traced(
    name: str, made: Prepared, bed: Benchmark, *, before: float = 0.0
) -> PolicyResult:
    """Play a policy made of JAX operations, which took `before` seconds already."""
    start = time.perf_counter() - before
    played = rollout(
        _episode_keys(bed),
        bed.tasks.world,
        made.policy,
        horizon=bed.config.horizon,
        episodes=bed.config.trajectories,
    )
    value = None if made.value is None else np.asarray(made.value)
    jax.block_until_ready(played)
    seconds = time.perf_counter() - start
    result = _result(name, bed, played, seconds, value=value)
    return dataclasses.replace(result, bounds=made.bounds)


def evaluate_stepwise(
    name: str,
    bed: Benchmark,
    make_policy: Callable[[slice], Policy],
    *,
    rows: int = sys.maxsize,
    kept: Path | None = None,
    progress: Progress = lambda done, tasks: None,
) -> PolicyResult:
    """Play a policy that is stepped from the host, a group of tasks at a time.

    Args:
        name: what to call it in the result.
        bed: the test.
        make_policy: makes the policy for a group of tasks.
        rows: at most so many episodes are played together, but always all of a task.
        kept: beginning of the names of the files where played groups are kept, and
            found by a run that goes on; None to keep nothing.
        progress: called with the number of tasks done and of all tasks.

    """
    config = bed.config
    if rows < config.trajectories:
        warnings.warn(
            f"memory is reckoned to hold {rows} of a task's {config.trajectories} "
            "episodes: if it runs out, lower `--trajectories`",
            stacklevel=2,
        )
    together = max(1, min(rows, ROWS_TOGETHER) // config.trajectories)
    parts: list[dict[str, np.ndarray]] = []
    first = 0
    while first < config.tasks:
        group = slice(first, min(first + together, config.tasks))
        file = None if kept is None else kept.with_name(f"{kept.name}-{first}.npz")
        if file is None or not file.is_file():
            part = _play_group(bed, group, make_policy)
            if file is not None:
                _keep(file, part)
        else:
            with np.load(file) as arrays:
                part = dict(arrays)
        parts.append(part)
        first += len(part["action"])  # what was kept may have been played elsewhere
        progress(first, config.tasks)
    whole = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    played = Trajectory(
        *(jnp.asarray(whole[f]) for f in Trajectory.__dataclass_fields__)
    )
    invalid = whole["invalid"]
    return _result(
        name,
        bed,
        played,
        float(whole["seconds"].sum()),
        invalid=float(invalid.mean()) if invalid.size else None,
    )


def _play_group(
    bed: Benchmark, group: slice, make_policy: Callable[[slice], Policy]
) -> dict[str, np.ndarray]:
    """Episodes of a group of tasks, and what is to be known of how they were played."""
    start, policy = time.perf_counter(), make_policy(group)
    played = rollout_on_host(
        _episode_keys(bed)[group],
        jax.tree.map(lambda x: x[group] if np.ndim(x) else x, bed.tasks.world),
        policy,
        horizon=bed.config.horizon,
        episodes=bed.config.trajectories,
    )
    invalid = policy.invalid if isinstance(policy, StepwisePolicy) else []
    return {
        **{f: np.asarray(getattr(played, f)) for f in played.__dataclass_fields__},
        "invalid": np.asarray(invalid, np.float64),
        "seconds": np.array([time.perf_counter() - start]),
    }


def _keep(file: Path, part: dict[str, np.ndarray]) -> None:
    """Write a group's episodes, or nothing."""
    with temporary_name(file) as temporary, temporary.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **part)


def _episode_keys(bed: Benchmark) -> jax.Array:
    return task_keys(
        stream_key(bed.config.seed, Stream.TEST_EPISODES), bed.config.tasks
    )


def _result(
    name: str,
    bed: Benchmark,
    played: Trajectory,
    seconds: float,
    *,
    value: np.ndarray | None = None,
    invalid: float | None = None,
) -> PolicyResult:
    returns, best = task_returns(bed.tasks, played), bed.optimal_returns
    same = agreement(bed, played)
    exact = None
    if value is not None and isinstance(bed.solution, MDPSolution):
        exact = optimality_gap(value, np.asarray(bed.solution.value))
    return PolicyResult(
        policy=name,
        gap=optimality_gap(returns, best),
        exact_gap=exact,
        return_mean=float(returns.mean()),
        exact_return_mean=None if value is None else float(value.mean()),
        optimal_return_mean=float(best.mean()),
        agreement=float(same.action.mean()),
        merged_agreement=None if same.merged is None else float(same.merged.mean()),
        invalid_mass=invalid,
        seconds=seconds,
        returns=returns,
        optimal_returns=best,
    )


def evaluate(
    names: Sequence[str],
    bed: Benchmark,
    options: ActingOptions = DEFAULT,
    *,
    kept: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, tasks: None,
) -> list[PolicyResult]:
    """Evaluate policies by name; see `sdm.policies.spec`.

    Args:
        names: policies, in the order wanted.
        bed: the benchmark.
        options: how language models are read and computed.
        kept: a folder where played groups of tasks are kept, and found again by a
            resumed run; None to keep nothing.
        progress: called with what is being played, the tasks done and all tasks.

    Raises:
        ValueError: if a name is unknown, or the policy does not fit the benchmark.

    """
    results = []
    if kept is not None:
        kept.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        start = time.perf_counter()
        made = parse_policy(name).build(bed, options)
        if isinstance(made, Prepared):
            # A network may have computed its whole table by now.
            jax.block_until_ready(jax.tree.leaves((made.policy, made.value)))
            spent = time.perf_counter() - start
            results.append(evaluate_traced(name, made, bed, before=spent))
            continue
        result = evaluate_stepwise(
            name,
            bed,
            made,
            rows=made.rows,
            kept=None if kept is None else kept / str(i),
            progress=partial(progress, f"playing {name}"),
        )
        results.append(result)
        del made  # before the next model is loaded: two may not fit
        gc.collect()
    return results


def check_policy(
    name: str, config: EvaluationConfig, options: ActingOptions = DEFAULT
) -> None:
    """Raise `ValueError` unless `name` can play a benchmark; loads no model."""
    parse_policy(name).check(config, options)


def plan_of(
    names: Sequence[str], config: EvaluationConfig, options: ActingOptions
) -> dict[str, object]:
    """Return everything that decides the episodes of an evaluation, to resume it."""
    runs = {name: parse_policy(name).fingerprint() for name in names}
    return {
        "evaluate": config.describe(),
        "policies": list(names),
        "runs": {name: found for name, found in runs.items() if found is not None},
        **dataclasses.asdict(options),
    }
