"""Optimality gaps of any mix of policies on the same unseen tasks and the same luck.

PyTorch is imported only where a language model takes part.
"""

import dataclasses
import gc
import hashlib
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
from sdm.llm.base_names import check_base_name
from sdm.policies import by_name
from sdm.policies.by_name import Baseline, baseline, check_baseline
from sdm.policies.learned import check_learned, is_learned, learned, run_folder
from sdm.policies.policy_runs import ABOUT
from sdm.tasks.policy import Policy
from sdm.tasks.rollout import Trajectory, rollout, rollout_on_host, task_keys
from sdm.tasks.streams import Stream, stream_key

# Episodes that are played together, at most: a processor has enough to do with those.
ROWS_TOGETHER = 1024
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
        optimal_return_mean: that of the oracle, under the same luck.
        agreement: share of decisions that equal the oracle's; in Darkroom, where
            several may be best, that are optimal.
        work_agreement: the same when the two ways to charge count as one; None in
            Darkroom.
        invalid_mass: mean probability that a language model gave to anything but an
            action; None for other policies.
        seconds: spent acting.
        returns: mean return of each task.
        optimal_returns: the oracle's.

    """

    policy: str
    gap: OptimalityGap
    exact_gap: OptimalityGap | None
    return_mean: float
    exact_return_mean: float | None
    optimal_return_mean: float
    agreement: float
    work_agreement: float | None
    invalid_mass: float | None
    seconds: float
    returns: Float[np.ndarray, " B"]
    optimal_returns: Float[np.ndarray, " B"]


def evaluate_baseline(name: str, bed: Benchmark) -> PolicyResult:
    """Play a policy that needs no learning."""
    return evaluate_traced(name, baseline(name, bed), bed)


def evaluate_traced(
    name: str, made: Baseline, bed: Benchmark, *, before: float = 0.0
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
    return _result(name, bed, played, time.perf_counter() - start, value=value)


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
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **part)
    temporary.replace(file)


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
    optimum_is_exact = bed.config.setting in ("mdp", "darkroom")
    exact = None
    if value is not None and optimum_is_exact:
        exact = optimality_gap(value, np.asarray(bed.solution.value))
    return PolicyResult(
        policy=name,
        gap=optimality_gap(returns, best),
        exact_gap=exact,
        return_mean=float(returns.mean()),
        exact_return_mean=None if value is None else float(value.mean()),
        optimal_return_mean=float(best.mean()),
        agreement=float(same.action.mean()),
        work_agreement=None if same.work is None else float(same.work.mean()),
        invalid_mass=invalid,
        seconds=seconds,
        returns=returns,
        optimal_returns=best,
    )


def evaluate(
    names: Sequence[str],
    bed: Benchmark,
    *,
    schema: str | None = None,
    quantize: str | None = None,
    backend: str | None = None,
    kept: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, tasks: None,
) -> list[PolicyResult]:
    """Evaluate policies by name: see `check_policy`.

    Args:
        names: policies, in the order wanted.
        bed: the test.
        schema: wording for `icl:` policies; None for the base's default. A run folder
            is always read in the schema that it was trained in.
        quantize: `nf4` to load the bases of `icl:` policies in 4 bits.
        backend: `vllm` to let vLLM score for `icl:` policies.
        kept: a folder where played groups of tasks are kept, and found again by a run
            that goes on; None to keep nothing.
        progress: called with what is being played, the tasks done and all tasks.

    Raises:
        ValueError: if a name is none of these, or does not fit the setting.

    """
    results = []
    if kept is not None:
        kept.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        if name in by_name.MAKERS:
            results.append(evaluate_baseline(name, bed))
            continue
        if is_learned(name):
            start = time.perf_counter()
            made = learned(name, bed)  # where a network may answer once and for all
            jax.block_until_ready(jax.tree.leaves((made.policy, made.value)))
            spent = time.perf_counter() - start
            results.append(evaluate_traced(name, made, bed, before=spent))
            continue
        from sdm.llm.acting import language_model_policy

        make = language_model_policy(
            name, bed, schema=schema, quantize=quantize, backend=backend
        )
        result = evaluate_stepwise(
            name,
            bed,
            make,
            rows=make.rows,
            kept=None if kept is None else kept / str(i),
            progress=partial(progress, f"playing {name}"),
        )
        results.append(result)
        del make  # before the next model is loaded: two may not fit
        gc.collect()
    return results


def choose_policies(
    given: Sequence[str], setting: str, *, several: bool = False
) -> list[str]:
    """The policies that names on the command line stand for in a setting.

    Args:
        given: names; `all` stands for every policy without learning that fits, and
            `{setting}` in a name for the setting.
        setting: of the test.
        several: whether the names are meant for several settings: those of policies
            without learning that do not fit this one are then left out.

    """
    fitting: tuple[str, ...] = by_name.names(setting)
    chosen: list[str] = []
    for name in given:
        if name == "all":
            chosen += fitting
        elif not several or name in fitting or name not in by_name.MAKERS:
            chosen.append(name.replace("{setting}", setting))
    return list(dict.fromkeys(chosen))


def check_policy(
    name: str, config: EvaluationConfig, *, backend: str | None = None
) -> None:
    """Raise `ValueError` unless `name` can be a policy in a test; loads no model.

    It is a policy without learning, `dpt:RUN` or `cql:RUN`, `icl:BASE`, or the run
    folder of a language model.
    """
    if name in by_name.MAKERS:
        check_baseline(name, config.setting)
        return
    if is_learned(name):
        check_learned(name, config)
        return
    if (Path(name) / "config.yaml").is_file():
        from sdm.llm.acting import check_backend
        from sdm.llm.runs import read_run

        check_backend(name, backend)
        read_run(Path(name))
        return
    if name.startswith("icl:"):
        check_base_name(name.removeprefix("icl:"))
        return
    known = ", ".join(by_name.names(config.setting))
    raise ValueError(
        f"there is no policy `{name}`: it is none of {known}, "
        "does not begin with `dpt:`, `cql:` or `icl:`, and is not a run folder"
    )


def plan_of(
    names: Sequence[str], config: EvaluationConfig, **options: str | None
) -> dict[str, object]:
    """Everything that decides the episodes of an evaluation, to be resumed with it.

    Of run folders, what their metrics say, which no two runs have in common; of merged
    models, the name of the run and when it was written.
    """
    runs = {}
    for name in names:
        run = run_folder(name) if is_learned(name) else Path(name.removeprefix("icl:"))
        for file in (run / "metrics.jsonl", run / "merged.json", run / ABOUT):
            if file.is_file():
                about = file.read_bytes() + str(file.stat().st_mtime_ns).encode()
                runs[name] = hashlib.sha256(about).hexdigest()
    return {
        "evaluate": dataclasses.asdict(config),
        "policies": list(names),
        "runs": runs,
        **options,
    }
