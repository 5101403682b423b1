"""What a judge's reward costs or gains, measured exactly.

A cell is one judge and one seed: its tasks, its comparisons, and the plans for the
fitted rewards. Plans are evaluated in the tasks by the exact recursion of
`policy_evaluation`, so that the only variation is that of tasks, comparisons and
answers.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdm.data.request import OracleConfig, check_available
from sdm.data.solved_tasks import sample_tasks, solve_sampled
from sdm.feedback.config import FeedbackConfig, benchmark_of, uses_and_weights
from sdm.feedback.effects import gaps, mean_rank_correlation, summary
from sdm.feedback.identifiability import DegeneratePreferences
from sdm.feedback.judge import Judge
from sdm.feedback.reward_model import RewardModel, learn_reward
from sdm.feedback.subjects import (
    Subjects,
    captions_of,
    goal_of,
    segments_as_items,
    states_as_items,
    texts_of,
)
from sdm.llm.episode import episodes_of
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.tasks.family import Split
from sdm.tasks.models import MDP
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.streams import Stream, stream_key
from sdm.tasks.transitions import take_tasks


@dataclass(frozen=True)
class Solved:
    """Tasks with their exact solution.

    Attributes:
        mdp: the tasks.
        solution: their solution.
        demonstrations: texts of episodes of the oracle in each task.

    """

    mdp: MDP
    solution: MDPSolution
    demonstrations: Sequence[tuple[str, ...]]


def solve_for(config: FeedbackConfig, seed: int, *, split: Split = "test") -> Solved:
    """Draw and solve the tasks of a seed, which `sdm eval` and `sdm solve` also draw.

    Raises:
        ValueError: if the family has fewer tasks.

    """
    if split == "train":
        drawn = OracleConfig(config.family, config.horizon, config.tasks, 1, seed)
        check_available(drawn)
    else:
        drawn = benchmark_of(config, seed).oracle
    mdp = sample_tasks(0, config=drawn, size=config.tasks, split=split).world
    assert isinstance(mdp, MDP)
    solution, oracle = solve_sampled(mdp, drawn)
    assert isinstance(solution, MDPSolution)
    shown: list[tuple[str, ...]] = [()] * config.tasks
    if config.reward.support:
        stream = Stream.TEST_SUPPORT if split == "test" else Stream.TRAIN_EPISODES
        played = rollout(
            task_keys(stream_key(seed, stream), config.tasks),
            mdp,
            oracle,
            horizon=config.horizon,
            episodes=config.reward.support,
        )
        shown = texts_of(config.family, episodes_of(played), rewards=drawn.rewards_seen)
    return Solved(mdp, solution, shown)


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

    A judge that does not read the task is asked in task 0 only, unless it reads
    demonstrations.

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
    every = reads_tasks(judge, config)
    judged = config.tasks if every else 1
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
    if not every:
        models = models * config.tasks
    return models, unusable


def reads_tasks(judge: Judge, config: FeedbackConfig) -> bool:
    """Return whether a judge's answers differ between tasks."""
    return judge.reads_task or config.reward.support > 0


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
            shown = solved.demonstrations[task]
            yield states_as_items(states, value[task], goal, shown)
            continue
        yield segments_as_items(
            config.family,
            solved.mdp,
            task,
            length=config.reward.segment,
            horizon=config.horizon,
            goal=goal,
            seed=seed,
            demonstrations=solved.demonstrations[task],
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
    kept = dataclasses.replace(
        solved,
        mdp=take_tasks(solved.mdp, usable),
        solution=take_tasks(solved.solution, usable),
    )
    scores = np.stack([model.scores for model in chosen])
    return {
        "judge": judge.name,
        "seed": seed,
        "tasks": len(usable),
        "unusable": unusable,
        **summary(chosen if reads_tasks(judge, config) else chosen[:1]),
        "rank_correlation": mean_rank_correlation(scores, kept.solution),
        "rows": [
            row
            for use, weight in uses_and_weights(config)
            for row in gaps(
                kept.mdp,
                kept.solution,
                scores,
                use=use,
                weight=weight,
                lookaheads=config.lookaheads,
                horizon=config.horizon,
            )
        ],
    }
