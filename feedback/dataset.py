"""Datasets of episodes of the plan for a learned reward, to fine-tune a model on.

The folder is a dataset like that of `sdm solve --out`, with the same training tasks and
random numbers, but the plan for the learned reward acts in place of the oracle. Its
actions are the labels. `value` remains the optimal value, and `oracle_value` is the
exact value of the plan. Tasks without a reward model are left out.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sdm.data.generation import describe
from sdm.data.optimality_gap import optimality_gap
from sdm.data.request import OracleConfig, plain_params
from sdm.data.shards import PARAMETERS, shard_path, write_manifest, write_shard
from sdm.data.solved_tasks import sample_tasks
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.judge import Judge
from sdm.feedback.study import learned_rewards, solve_for
from sdm.feedback.uses import plan, scaled
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.storage.files import folder_in_progress
from sdm.tasks.models import MDP
from sdm.tasks.policy import TabularPolicy, uniform_random
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.streams import Stream, stream_key
from sdm.tasks.transitions import take_tasks

ANSWERS = "answers"


def write_plan_dataset(
    judge: Judge,
    config: FeedbackConfig,
    out: Path,
    *,
    trajectories: int,
    seed: int,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Learn rewards in training tasks, plan for them and write episodes of the plans.

    Args:
        judge: the judge.
        config: the study, with one use, weight and lookahead; `tasks` is the number of
            training tasks.
        out: the folder to write.
        trajectories: episodes per task.
        seed: random seed of tasks, comparisons, answers and episodes.
        resume: continue an unfinished run.
        overwrite: replace `out`.
        progress: called with the number of tasks done, and of tasks to judge.

    Returns:
        The number of tasks and episodes, and the exact gap of the plans, in per cent.

    Raises:
        ValueError: if there are several uses, weights or lookaheads, or too few tasks.
        DegeneratePreferences: if no task has preferences that determine a reward.
        JudgeError: if the judge answers outside of its choices.
        StorageError: if the folder cannot be created.

    """
    for name in ("uses", "weights", "lookaheads"):
        if len(getattr(config, name)) != 1:
            raise ValueError(
                f"{name}: a dataset is of one plan, found {len(getattr(config, name))}"
            )
    drawn = OracleConfig(
        config.family, config.horizon, config.tasks, trajectories, seed
    )
    about = describe(drawn) | {
        "policy": f"plan for the reward of {judge.name}",
        "feedback": config.describe(),
    }
    options = {"resume": resume, "overwrite": overwrite}
    with folder_in_progress(out, about, **options) as folder:  # type: ignore[arg-type]
        answers = folder / ANSWERS
        answers.mkdir(exist_ok=True)
        planned = _plan(judge, config, seed, answers, progress)
        columns = _columns(planned, drawn)
        write_shard(shard_path(folder, 0), columns)
        tasks = len(np.unique(columns["task"]))
        shutil.rmtree(answers)
        write_manifest(folder, {**about, "tasks": tasks, "certified_error": 0.0})
    gap = optimality_gap(columns["oracle_value"], columns["value"])
    return {
        "tasks": tasks,
        "episodes": len(columns["task"]),
        "plan_gap_percent": 100 * gap.mean,
    }


class _Planned(NamedTuple):
    """The tasks with a reward model, and the plans for these rewards."""

    usable: np.ndarray
    mdp: MDP
    solution: MDPSolution
    policy: TabularPolicy


def _plan(
    judge: Judge,
    config: FeedbackConfig,
    seed: int,
    answers: Path,
    progress: Callable[[int, int], None],
) -> _Planned:
    """Learn the rewards of training tasks, and plan for them."""
    solved = solve_for(config, seed, split="train")
    models, _ = learned_rewards(
        judge, config, solved, seed=seed, kept=answers, progress=progress
    )
    usable = np.array([i for i, model in enumerate(models) if model is not None])
    scores = np.stack([model.scores for model in models if model is not None])
    mdp = take_tasks(solved.mdp, usable)
    unit = config.weights[0] * scaled(scores, np.asarray(mdp.reward))
    policy = plan(
        config.uses[0],
        mdp,
        jnp.asarray(unit, mdp.reward.dtype),
        horizon=config.horizon,
        lookahead=config.lookaheads[0],
    )
    return _Planned(usable, mdp, take_tasks(solved.solution, usable), policy)


def _columns(planned: _Planned, drawn: OracleConfig) -> dict[str, np.ndarray]:
    """Return the columns of a dataset, with one row per episode."""
    usable, mdp, solution, policy = planned
    keys = task_keys(stream_key(drawn.seed, Stream.TRAIN_EPISODES), drawn.tasks)
    count, episodes = len(usable), drawn.trajectories
    played = rollout(
        keys[usable], mdp, policy, horizon=drawn.horizon, episodes=episodes
    )
    random = uniform_random(mdp, drawn.horizon).probabilities
    params = sample_tasks(0, config=drawn, size=drawn.tasks).params
    of_task: dict[str, Any] = {
        "task": usable,
        **dict.fromkeys(("value", "lower", "upper"), solution.value),
        "error": np.zeros(count),
        "oracle_value": evaluate_policy(mdp, policy.probabilities),
        "random_value": evaluate_policy(mdp, random),
        "divergence": np.zeros((count, 0)),
        **{f"{PARAMETERS}.{n}": x[usable] for n, x in plain_params(params).items()},
    }
    of_episode = {
        "observation": played.observation,
        "action": played.action,
        "reward": played.reward,
        "optimal_action": played.action,
    }
    return {
        **{n: np.repeat(np.asarray(x), episodes, axis=0) for n, x in of_task.items()},
        **{
            name: np.asarray(x).reshape(count * episodes, -1)
            for name, x in of_episode.items()
        },
        "episode": np.tile(np.arange(episodes), count),
        "random": np.zeros(count * episodes, bool),
    }
