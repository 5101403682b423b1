"""What a judge's reward costs or gains, measured exactly.

A cell is one judge and one seed: its tasks, its comparisons, and the plans for the
fitted rewards. Plans are evaluated in the tasks by the exact recursion of
`policy_evaluation`, so that the only variation is that of tasks, comparisons and
answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.data.optimality_gap import optimality_gap
from sdm.data.request import OracleConfig, check_available, family_header
from sdm.data.solved_tasks import sample_tasks
from sdm.feedback.fit_quality import rank_correlation
from sdm.feedback.identifiability import DegeneratePreferences
from sdm.feedback.judge import Judge
from sdm.feedback.reward_model import RewardConfig, RewardModel, learn_reward
from sdm.feedback.subjects import (
    Subjects,
    captions_of,
    goal_of,
    segments_as_items,
    states_as_items,
)
from sdm.feedback.uses import ADDED, plan, scaled, use_of
from sdm.solvers_jax.backward_induction import BackwardInduction, MDPSolution
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.storage.checks import check_count
from sdm.tasks.family import Split, TaskFamily
from sdm.tasks.models import MDP, check_horizon
from sdm.tasks.transitions import take_tasks

NOT_USED = "none"  # the use of weight 0


@dataclass(frozen=True)
class FeedbackConfig:
    """Configuration of a study of judges.

    Attributes:
        family: family of the tasks.
        horizon: decisions per episode, T; the family's default, energy 10.
        tasks: number of unseen tasks; the family's default, energy 100.
        reward: how preferences are asked for and fitted.
        uses: ways to use the reward.
        weights: factors of the reward; 1 stretches the scores of a task's states over
            the range of its rewards.
        lookaheads: decisions that a planner sees at each stage; 0 for all.

    """

    family: TaskFamily
    horizon: int
    tasks: int
    reward: RewardConfig
    uses: tuple[str, ...] = ("potential", "added")
    weights: tuple[float, ...] = (0.05, 0.2, 1.0)
    lookaheads: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_horizon(self.horizon)
        check_count("tasks", self.tasks, 1)
        if "mdp" not in self.family.kinds:
            raise ValueError(
                f"family `{self.family.name}`: judges compare observed states, found "
                f"the kinds {', '.join(sorted(self.family.kinds))}"
            )
        for use in self.uses:
            use_of(use)
        for weight in self.weights:
            if not np.isfinite(weight) or weight < 0:
                raise ValueError(f"weight = {weight:g}: must be 0 or more")
        for lookahead in self.lookaheads:
            check_count("lookahead", lookahead, 0)

    def describe(self) -> dict[str, Any]:
        """Return everything that determines a cell but its judge and seed."""
        return {
            **family_header(self.family, "mdp"),
            "horizon": self.horizon,
            "tasks": self.tasks,
            "reward": vars(self.reward),
            "uses": list(self.uses),
            "weights": list(self.weights),
            "lookaheads": list(self.lookaheads),
        }


@dataclass(frozen=True)
class Solved:
    """Tasks with their exact solution.

    Attributes:
        mdp: the tasks.
        solution: their solution.

    """

    mdp: MDP
    solution: MDPSolution


def solve_for(config: FeedbackConfig, seed: int, *, split: Split = "test") -> Solved:
    """Draw and solve the tasks of a seed."""
    drawn = OracleConfig(config.family, config.horizon, config.tasks, 1, seed)
    if split == "train":
        check_available(drawn)
    mdp = sample_tasks(0, config=drawn, size=config.tasks, split=split).world
    assert isinstance(mdp, MDP)
    return Solved(mdp, BackwardInduction().solve(mdp, horizon=config.horizon))


def learned_rewards(
    judge: Judge,
    config: FeedbackConfig,
    solved: Solved,
    *,
    seed: int,
    kept: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[RewardModel | None], dict[int, str]]:
    """Return the reward model of each task, and why a task has none.

    A judge that does not read the task is asked in task 0 only.

    Args:
        judge: the judge.
        config: the study.
        solved: the tasks.
        seed: random seed.
        kept: folder that stores answers for a resumed run.
        progress: called with the number of tasks done, and of tasks to judge.

    Raises:
        DegeneratePreferences: if no task has preferences that determine a reward.
        JudgeError: if the judge answers outside of its choices.

    """
    judged = config.tasks if judge.reads_task else 1
    models: list[RewardModel | None] = []
    unusable: dict[int, str] = {}
    first: DegeneratePreferences | None = None
    for task, subjects in enumerate(_subjects(config, solved, seed, judged)):
        try:
            models.append(
                learn_reward(
                    judge,
                    subjects,
                    config.reward,
                    seed=(seed, task),
                    kept=None if kept is None else kept / f"task-{task:05d}",
                    progress=_share(progress, task, judged),
                )
            )
        except DegeneratePreferences as error:
            first = first or error
            unusable[task] = str(error)
            models.append(None)
        progress(task + 1, judged)
    if first is not None and len(unusable) == judged:
        raise first
    if not judge.reads_task:
        models = models * config.tasks
    return models, unusable


def _share(
    progress: Callable[[int, int], None], task: int, judged: int
) -> Callable[[int, int], None]:
    """Return progress within a task, shown only if one task is judged."""
    if judged > 1:
        return lambda done, total: None
    return progress


def _subjects(
    config: FeedbackConfig, solved: Solved, seed: int, count: int
) -> Iterator[Subjects]:
    """Return what is compared in each of the first tasks."""
    goal = goal_of(config.family, config.reward.goal)
    states = captions_of(config.family.spaces, "mdp")
    value = np.asarray(solved.solution.state_value[:, 0], np.float64)
    for task in range(count):
        if config.reward.segment == 0:
            yield states_as_items(states, value[task], goal)
            continue
        yield segments_as_items(
            config.family,
            solved.mdp,
            task,
            length=config.reward.segment,
            horizon=config.horizon,
            goal=goal,
            seed=seed,
        )


def run_cell(
    judge: Judge,
    config: FeedbackConfig,
    seed: int,
    folder: Path | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the result of one judge and one seed.

    Args:
        judge: the judge.
        config: the study.
        seed: random seed of tasks, comparisons and answers.
        folder: folder that stores answers for a resumed run; None to store nothing.
        progress: called with the number of tasks done, and of tasks to judge.

    Raises:
        DegeneratePreferences: if no task has preferences that determine a reward.
        JudgeError: if the judge answers outside of its choices.

    """
    solved = solve_for(config, seed)
    models, unusable = learned_rewards(
        judge, config, solved, seed=seed, kept=folder, progress=progress
    )
    usable = np.array([i for i, model in enumerate(models) if model is not None])
    chosen = [model for model in models if model is not None]
    kept = Solved(take_tasks(solved.mdp, usable), take_tasks(solved.solution, usable))
    scores = np.stack([model.scores for model in chosen])
    return {
        "judge": judge.name,
        "seed": seed,
        "tasks": len(usable),
        "unusable": unusable,
        **summary(chosen if judge.reads_task else chosen[:1]),
        "rank_correlation": mean_rank_correlation(scores, kept.solution),
        "rows": list(gaps(config, kept, scores)),
    }


def mean_rank_correlation(
    scores: Float[np.ndarray, "B S"], solution: MDPSolution
) -> float | None:
    """Return the mean over tasks of the rank correlation of scores with V*_0.

    Tasks in which it is undefined do not count; None if it is undefined in all.
    """
    value = np.asarray(solution.state_value[:, 0], np.float64)
    each = np.array(
        [rank_correlation(*both) for both in zip(scores, value, strict=True)]
    )
    return None if np.isnan(each).all() else float(np.nanmean(each))


def gaps(
    config: FeedbackConfig, solved: Solved, scores: Float[np.ndarray, "B S"]
) -> Iterator[dict[str, Any]]:
    """Return the exact gap of the plan for every use, weight and lookahead.

    The weight 0, planning without the learned reward, comes first.
    """
    unit = scaled(scores, np.asarray(solved.mdp.reward))
    optimal = np.asarray(solved.solution.value)
    for use, weight in _uses_and_weights(config):
        for lookahead in config.lookaheads:
            value = _plan_value(
                use,
                config.horizon,
                lookahead,
                solved.mdp,
                jnp.asarray(weight * unit, solved.mdp.reward.dtype),
            )
            gap = optimality_gap(np.asarray(value), optimal)
            ends = (gap.low, gap.high) if len(optimal) > 1 else (None, None)
            yield {
                "use": use if weight else NOT_USED,
                "weight": weight,
                "lookahead": lookahead,
                "gap_percent": 100 * gap.mean,
                "ci_low": None if ends[0] is None else 100 * ends[0],
                "ci_high": None if ends[1] is None else 100 * ends[1],
            }


def _uses_and_weights(config: FeedbackConfig) -> list[tuple[str, float]]:
    """Return each use with its weights, after one of weight 0."""
    weighed = [
        (name, weight)
        for name in config.uses
        for weight in (config.weights if use_of(name).weighted else (1.0,))
    ]
    return [(ADDED, 0.0), *(pair for pair in weighed if pair[1] > 0)]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _plan_value(
    use: str, horizon: int, lookahead: int, mdp: MDP, reward: Float[Array, "B S"]
) -> Float[Array, " B"]:
    """Return the exact value of the plan for a reward in each task."""
    policy = plan(use, mdp, reward, horizon=horizon, lookahead=lookahead)
    return evaluate_policy(mdp, policy.probabilities)


def summary(models: Sequence[RewardModel]) -> dict[str, Any]:
    """Return the measurements of the fits, averaged over tasks.

    `asked`, `outside` and `held_out` are totals; `separable` and `converged` are shares
    of tasks; `bins` is left to each task.
    """
    found: dict[str, Any] = {}
    for name in models[0].report:
        if name == "bins":
            continue
        values = np.array([model.report[name] for model in models], np.float64)
        if name in ("asked", "outside", "held_out"):
            found[name] = int(values.sum())
        else:
            some = values[~np.isnan(values)]
            found[name] = float(some.mean()) if some.size else None
    return found
