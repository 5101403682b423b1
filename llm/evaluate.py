"""Optimality gaps of any mix of policies on the same unseen tasks and the same luck.

Test tasks, their demonstrations and their episodes come from random streams of their
own, so no training task is ever met; all policies share them (common random numbers).
PyTorch is imported only where a language model takes part.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sdm.baselines.certainty_equivalence import certainty_equivalence, mean_plan
from sdm.llm.base_names import check_base_name
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.families import EnergyFamily
from sdm.solvers_jax.models import MDP, check_count, check_horizon
from sdm.solvers_jax.optimality_gap import OptimalityGap, optimality_gap
from sdm.solvers_jax.policies import (
    Policy,
    TabularPolicy,
    constant_action,
    deterministic,
    uniform_random,
)
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.rollout import (
    Trajectory,
    discounted_return,
    optimal_action,
    rollout,
    rollout_on_host,
    task_keys,
)
from sdm.solvers_jax.solve import solve
from sdm.solvers_jax.streams import Stream, stream_key

BASELINES = ("oracle", "random", "always-work", "mean-plan", "ce")
# Tasks whose episodes a language model plays together: bounds the key-value cache.
ROWS_TOGETHER = 1024
Progress = Callable[[int, int], None]  # told the tasks done and the tasks there are


@dataclass(frozen=True)
class EvaluationConfig:
    """The test: tasks, episodes and demonstrations.

    Attributes:
        family: where test tasks come from.
        horizon: decisions per episode.
        tasks: number of test tasks.
        trajectories: episodes of each task.
        support: optimal demonstrations a policy is shown.
        seed: of all of these.
        training_family: what policies that know a prior take it to be; `family` unless
            the test is out of distribution.

    """

    family: EnergyFamily
    horizon: int
    tasks: int = 100
    trajectories: int = 30
    support: int = 2
    seed: int = 0
    training_family: EnergyFamily | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for counts that make no test."""
        check_horizon(self.horizon)
        check_count("tasks", self.tasks, 1)
        check_count("trajectories", self.trajectories, 1)
        check_count("support", self.support, 0)
        check_count("seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True)
class TestBed:
    """Everything that the policies of one test share.

    Attributes:
        config: what was asked for.
        mdp: the tasks.
        solution: their oracle.
        support: demonstrations of each task.
        optimal_returns: the oracle's mean return in each task, in the test's episodes.

    """

    __test__ = False  # not a test class, whatever pytest makes of its name

    config: EvaluationConfig
    mdp: MDP
    solution: MDPSolution
    support: Trajectory
    optimal_returns: Float[np.ndarray, " B"]


@dataclass(frozen=True)
class PolicyResult:
    """How one policy did.

    Attributes:
        policy: its name.
        gap: optimality gap estimated from the episodes played.
        exact_gap: the same from exact values; None for a policy that is not a table.
        return_mean: mean discounted return.
        optimal_return_mean: that of the oracle, under the same luck.
        agreement: share of decisions that equal the oracle's.
        work_agreement: the same when the two ways to charge count as one.
        seconds: spent acting.
        returns: mean return of each task.
        optimal_returns: the oracle's.

    """

    policy: str
    gap: OptimalityGap
    exact_gap: OptimalityGap | None
    return_mean: float
    optimal_return_mean: float
    agreement: float
    work_agreement: float
    seconds: float
    returns: Float[np.ndarray, " B"]
    optimal_returns: Float[np.ndarray, " B"]


def make_test_bed(config: EvaluationConfig) -> TestBed:
    """Draw the test tasks, solve them, and roll the oracle out in both streams."""
    mdp = config.family.sample(stream_key(config.seed, Stream.TEST_TASKS), config.tasks)
    solution = solve(mdp, horizon=config.horizon)
    oracle = deterministic(solution.policy, config.family.actions)

    def play(stream: Stream, episodes: int) -> Trajectory:
        keys = task_keys(stream_key(config.seed, stream), config.tasks)
        return rollout(keys, mdp, oracle, horizon=config.horizon, episodes=episodes)

    best = play(Stream.TEST_EPISODES, config.trajectories)
    return TestBed(
        config=config,
        mdp=mdp,
        solution=solution,
        support=play(Stream.TEST_SUPPORT, config.support),
        optimal_returns=task_returns(mdp, best),
    )


def task_returns(mdp: MDP, played: Trajectory) -> Float[np.ndarray, " B"]:
    """Mean discounted return of each task's episodes."""
    returns = discounted_return(played.reward, mdp.discount)
    return np.asarray(returns, np.float64).mean(-1)


def baseline(name: str, bed: TestBed) -> TabularPolicy:
    """One of `BASELINES` for the tasks of a test."""
    config, family = bed.config, bed.config.family
    prior = config.training_family or family
    if name == "oracle":
        return deterministic(bed.solution.policy, family.actions)
    if name == "random":
        return uniform_random(bed.mdp, config.horizon)
    if name == "always-work":
        return constant_action(bed.mdp, config.horizon, family.work)
    if name == "mean-plan":
        return mean_plan(prior, config.tasks, horizon=config.horizon)
    if name == "ce":
        return certainty_equivalence(prior, bed.support, horizon=config.horizon)
    raise ValueError(f"there is no policy `{name}`: there are {', '.join(BASELINES)}")


def evaluate_baseline(name: str, bed: TestBed) -> PolicyResult:
    """Play and value a policy that is a table."""
    start = time.perf_counter()
    policy = baseline(name, bed)
    played = rollout(
        _episode_keys(bed),
        bed.mdp,
        policy,
        horizon=bed.config.horizon,
        episodes=bed.config.trajectories,
    )
    value = evaluate_policy(bed.mdp, policy.probabilities)
    exact = optimality_gap(np.asarray(value), np.asarray(bed.solution.value))
    jax.block_until_ready(played)
    return _result(name, bed, played, exact, time.perf_counter() - start)


def evaluate_stepwise(
    name: str,
    bed: TestBed,
    make_policy: Callable[[slice], Policy],
    *,
    progress: Progress = lambda done, tasks: None,
) -> PolicyResult:
    """Play a policy that is stepped from the host, a group of tasks at a time.

    Args:
        name: what to call it in the result.
        bed: the test.
        make_policy: makes the policy for a group of tasks.
        progress: called with the number of tasks done and of all tasks.

    """
    config, start = bed.config, time.perf_counter()
    keys = _episode_keys(bed)
    together = max(1, ROWS_TOGETHER // config.trajectories)
    groups = [
        slice(first, min(first + together, config.tasks))
        for first in range(0, config.tasks, together)
    ]
    parts = []
    for group in groups:
        part = rollout_on_host(
            keys[group],
            jax.tree.map(lambda x: x[group] if np.ndim(x) else x, bed.mdp),  # noqa: B023
            make_policy(group),
            horizon=config.horizon,
            episodes=config.trajectories,
        )
        parts.append(part)
        progress(group.stop, config.tasks)
    played = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    return _result(name, bed, played, None, time.perf_counter() - start)


def _episode_keys(bed: TestBed) -> jax.Array:
    return task_keys(
        stream_key(bed.config.seed, Stream.TEST_EPISODES), bed.config.tasks
    )


def _result(
    name: str,
    bed: TestBed,
    played: Trajectory,
    exact: OptimalityGap | None,
    seconds: float,
) -> PolicyResult:
    returns, best = task_returns(bed.mdp, played), bed.optimal_returns
    wanted = np.asarray(optimal_action(bed.solution, played.observation))
    action: Int[np.ndarray, "B N T"] = np.asarray(played.action)
    work = bed.config.family.work
    return PolicyResult(
        policy=name,
        gap=optimality_gap(returns, best),
        exact_gap=exact,
        return_mean=float(returns.mean()),
        optimal_return_mean=float(best.mean()),
        agreement=float((action == wanted).mean()),
        work_agreement=float(((action == work) == (wanted == work)).mean()),
        seconds=seconds,
        returns=returns,
        optimal_returns=best,
    )


def evaluate(
    names: Sequence[str],
    bed: TestBed,
    *,
    schema: str | None = None,
    quantize: str | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, tasks: None,
) -> list[PolicyResult]:
    """Evaluate policies by name: a baseline, `icl:BASE`, or a run folder.

    Args:
        names: policies, in the order wanted.
        bed: the test.
        schema: wording for `icl:` policies; None for the base's default. A run folder
            is always read in the schema that it was trained in.
        quantize: `nf4` to load the bases of `icl:` policies in 4 bits.
        progress: called with what is being played, the tasks done and all tasks.

    Raises:
        ValueError: if a name is none of these.

    """
    results = []
    for name in names:
        if name in BASELINES:
            results.append(evaluate_baseline(name, bed))
            continue
        from sdm.llm.acting import language_model_policy

        make = language_model_policy(name, bed, schema=schema, quantize=quantize)
        results.append(
            evaluate_stepwise(
                name,
                bed,
                make,
                progress=partial(progress, f"playing {name}"),
            )
        )
    return results


def check_policy_name(name: str) -> None:
    """Raise `ValueError` unless `name` can be a policy; loads nothing."""
    if name in BASELINES or (Path(name) / "config.yaml").is_file():
        return
    if name.startswith("icl:"):
        return check_base_name(name.removeprefix("icl:"))
    raise ValueError(
        f"there is no policy `{name}`: it is none of {', '.join(BASELINES)}, does not "
        "begin with `icl:`, and is not a run folder"
    )
