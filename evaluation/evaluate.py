"""Optimality gaps of policies on the same unseen tasks, with common random numbers."""

import dataclasses
import gc
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.evaluation.result import PolicyResult, result_of
from sdm.evaluation.stepwise import (
    ROWS_TOGETHER,
    play_in_groups,
    play_stepwise,
    played_of,
)
from sdm.policies.prepared import Prepared
from sdm.policies.registry import prepare
from sdm.policies.spec import ActingOptions, parse_policy
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import rollout
from sdm.tasks.rollout_in_models import play_in_models
from sdm.tasks.transitions import take_tasks

DEFAULT = ActingOptions()
Progress = Callable[[int, int], None]  # called with completed tasks and all tasks


def evaluate_untrained(name: str, bed: Benchmark) -> PolicyResult:
    """Evaluate a policy that needs no training."""
    return evaluate_traced(name, prepare(name, bed), bed)


def evaluate_traced(
    name: str, made: Prepared, bed: Benchmark, *, before: float = 0.0
) -> PolicyResult:
    """Evaluate a policy that JAX can trace.

    Args:
        name: name of the policy in the result.
        made: the policy.
        bed: the benchmark.
        before: seconds that the preparation of the policy took.

    """
    start = time.perf_counter() - before
    played = play_in_models(
        rollout,
        bed.keys,
        bed.worlds,
        made.policy,
        horizon=bed.config.horizon,
        episodes=bed.config.trajectories,
    )
    value = None if made.value is None else np.asarray(made.value)
    jax.block_until_ready(played)
    seconds = time.perf_counter() - start
    return result_of(name, bed, played, seconds, value=value, bounds=made.bounds)


def evaluate_stepwise(
    name: str,
    bed: Benchmark,
    make_policy: Callable[[slice], Policy],
    *,
    rows: int = sys.maxsize,
    kept: Path | None = None,
    progress: Progress = lambda done, tasks: None,
) -> PolicyResult:
    """Evaluate a policy that is stepped from the host, one group of tasks at a time.

    Args:
        name: name of the policy in the result.
        bed: the benchmark.
        make_policy: makes the policy for a group of tasks.
        rows: most episodes to play together; the episodes of one task are always played
            together.
        kept: prefix of the files that store played groups for a resumed run; None to
            store nothing.
        progress: called with the number of completed tasks and of all tasks.

    """
    config = bed.config
    episodes = config.trajectories * bed.models
    if rows < episodes:
        warnings.warn(
            f"memory is estimated to hold {rows} of a task's {episodes} episodes: if "
            "it runs out, lower `--trajectories`",
            stacklevel=2,
        )
    whole = play_in_groups(
        lambda group: _play_group(bed, group, make_policy),
        config.tasks,
        together=max(1, min(rows, ROWS_TOGETHER) // episodes),
        kept=kept,
        progress=progress,
    )
    played = played_of(whole)
    invalid = whole["invalid"]
    return result_of(
        name,
        bed,
        played,
        float(whole["seconds"].sum()),
        invalid=float(invalid.mean()) if invalid.size else None,
    )


def _play_group(
    bed: Benchmark, group: slice, make_policy: Callable[[slice], Policy]
) -> dict[str, np.ndarray]:
    """Play a group of tasks in all models; see `play_stepwise`."""
    models = slice(group.start * bed.models, group.stop * bed.models)
    return play_stepwise(
        bed.keys[group],
        take_tasks(bed.worlds, models),
        lambda: make_policy(group),
        horizon=bed.config.horizon,
        episodes=bed.config.trajectories,
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
        names: names of the policies, in the order of the results.
        bed: the benchmark.
        options: options of language models.
        kept: folder that stores played groups of tasks for a resumed run; None to store
            nothing.
        progress: called with a description of the step, the number of completed tasks
            and of all tasks.

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
            # JAX is asynchronous; a network may still be computing its table.
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
        del made  # two models may not fit the memory together
        gc.collect()
    return results


def check_policy(
    name: str, config: EvaluationConfig, options: ActingOptions = DEFAULT
) -> None:
    """Raise `ValueError` unless `name` can play a benchmark; load no model."""
    parse_policy(name).check(config, options)


def plan_of(
    names: Sequence[str], config: EvaluationConfig, options: ActingOptions
) -> dict[str, object]:
    """Return everything that determines an evaluation's episodes, to resume it."""
    runs = {name: parse_policy(name).fingerprint() for name in names}
    return {
        "evaluate": config.describe(),
        "policies": list(names),
        "runs": {name: found for name, found in runs.items() if found is not None},
        **dataclasses.asdict(options),
    }
