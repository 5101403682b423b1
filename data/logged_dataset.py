"""Datasets of logged episodes, of which a model learns the best of each task.

The folder is a dataset like that of `sdm solve --out`, but nobody solved its tasks. The
best episodes of a task have `random` false, and their own actions are the labels. The
others have `random` true and no labels; they can be shown as demonstrations. Decisions
after an episode's end have no labels. Values of tasks are unknown.

Episodes are scored by their return, or by their regret in the estimated model of their
task: what an action loses in expectation, by the performance-difference lemma (see
`regret`), as a mean over the episode's decisions, since long episodes have more to
lose. A return also depends on chance, which regret leaves out, but regret is that of an
estimate.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.data.request import dataset_header, plain_params
from sdm.data.shards import (
    NO_ACTION,
    PARAMETERS,
    UNKNOWN,
    shard_path,
    write_manifest,
    write_shard,
)
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.storage.checks import check_choice, check_count, check_horizon
from sdm.storage.files import folder_in_progress
from sdm.tasks.family import HIDDEN, Kind, Params, TaskFamily, poses
from sdm.tasks.models import MDP

RETURN, REGRET = "return", "regret"


@dataclass(frozen=True)
class LoggedDatasetConfig:
    """What a dataset of logged episodes has.

    Attributes:
        best: share of each task's episodes to learn, at least one of them.
        score: what makes an episode better, a higher `return` or a smaller `regret` per
            decision in the estimate of its task.
        horizon: decisions per episode, T; longer ones are cut, and those that were cut
            off earlier are left out; those of the longest episode if not given.

    """

    best: float = 0.25
    score: str = RETURN
    horizon: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        if not 0 < self.best <= 1:
            raise ValueError(f"best = {self.best:g}: must be above 0, and at most 1")
        check_choice("score", self.score, (RETURN, REGRET))
        if self.horizon is not None:
            check_horizon(self.horizon)


class LoggedEpisodes(NamedTuple):
    """Whole episodes of the tasks of a family, with equally many decisions.

    Attributes:
        task: index of each episode's task, ascending.
        observation: index of the observation before each decision.
        action: index of each action.
        reward: reward of each decision.
        length: number of decisions before the end of each episode.
        beyond: decisions of the models after these, in which outcomes are paid.

    """

    task: Int[np.ndarray, " E"]
    observation: Int[np.ndarray, "E T"]
    action: Int[np.ndarray, "E T"]
    reward: Float[np.ndarray, "E T"]
    length: Int[np.ndarray, " E"]
    beyond: int = 0


def write_logged_dataset(
    out: Path,
    episodes: LoggedEpisodes,
    family: TaskFamily,
    params: Params,
    config: LoggedDatasetConfig,
    *,
    kind: Kind = "mdp",
    seed: int = 0,
    logs: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write logged episodes, the best of each task as those to learn.

    Args:
        out: the folder to write.
        episodes: the episodes; tasks without any are left out.
        family: the family of the estimated tasks.
        params: the tasks' parameters.
        config: which episodes are the best.
        kind: kind of the tasks.
        seed: random seed of the order of equally good episodes.
        logs: where the logs come from, for the manifest.
        overwrite: replace `out`.

    Returns:
        The numbers of tasks, of episodes and of the best ones, the smallest number of
        best ones of a task, of which a text needs one more than it has demonstrations,
        and the mean returns of all episodes and of the best.

    Raises:
        ValueError: if regret is asked for in tasks whose states are hidden.
        StorageError: if the folder cannot be created.

    """
    check_count("seed", seed, 0, 2**32 - 1)
    poses(family, kind)
    model = family.model(params, kind)
    gained = _discounted(episodes.reward, episodes, np.asarray(model.discount))
    score = gained
    if config.score == REGRET:
        if kind in HIDDEN:
            raise ValueError(
                f"score = {REGRET}: needs models with observed states, and the kind is "
                f"{kind}: pass `--score {RETURN}`"
            )
        score = -_regrets(episodes, model)
    kept = best_of_tasks(episodes.task, score, config.best, seed=seed)
    per_task = np.bincount(episodes.task[kept])
    manifest = dataset_header(
        family,
        kind,
        policy=f"the best logged episodes by {config.score}",
        observes_reward=kind in family.defaults.observes_reward,
        horizon=episodes.action.shape[1],
        tasks=int((per_task > 0).sum()),
        trajectories=int(per_task.max()),
        random_trajectories=int(np.bincount(episodes.task[~kept], minlength=1).max()),
        seed=seed,
    )
    manifest |= {"best": config.best, "logs": logs}
    with folder_in_progress(
        out, manifest, overwrite=overwrite, resumable=False
    ) as folder:
        write_shard(shard_path(folder, 0), _columns(episodes, kept, params))
        write_manifest(folder, manifest)
    return {
        "tasks": manifest["tasks"],
        "episodes": len(kept),
        "best_episodes": int(kept.sum()),
        "fewest_best_of_a_task": int(per_task[per_task > 0].min()),
        "horizon": manifest["horizon"],
        "mean_return": float(gained.mean()),
        "mean_return_of_best": float(gained[kept].mean()),
    }


def best_of_tasks(
    task: Int[np.ndarray, " E"],
    score: Float[np.ndarray, " E"],
    share: float,
    *,
    seed: int = 0,
) -> Bool[np.ndarray, " E"]:
    """Return which episodes are the best of their task: a share, at least one.

    Args:
        task: index of each episode's task.
        score: score of each episode; more is better.
        share: share of the episodes of each task, rounded.
        seed: random seed of the order of equal scores.

    """
    tie = np.random.default_rng(seed).permutation(len(task))
    order = np.lexsort((tie, -score, task))
    count = np.bincount(task)
    first = np.cumsum(count) - count
    rank = np.empty(len(task), np.int64)
    rank[order] = np.arange(len(task)) - first[task[order]]
    return rank < np.maximum(1, np.round(share * count))[task]


def _discounted(
    rewards: Float[np.ndarray, "E T"],
    episodes: LoggedEpisodes,
    discount: Float[np.ndarray, "*B"],
) -> Float[np.ndarray, " E"]:
    """Return the discounted sum over the decisions of each episode."""
    factors = np.broadcast_to(discount, (episodes.task.max() + 1,))[episodes.task]
    powers = factors[:, None] ** np.arange(rewards.shape[1])
    return (powers * rewards).sum(1)


def _regrets(episodes: LoggedEpisodes, model: MDP) -> Float[np.ndarray, " E"]:
    """Return what each episode's actions lose in the models, per decision."""
    horizon = episodes.action.shape[1]
    solution = backward_induction(model, horizon=horizon + episodes.beyond)
    q = np.asarray(solution.q, np.float64)
    here = q[episodes.task[:, None], np.arange(horizon), episodes.observation]
    taken = np.take_along_axis(here, episodes.action[..., None], -1)[..., 0]
    decides = np.arange(horizon) < episodes.length[:, None]
    lost = np.where(decides, here.max(-1) - taken, 0.0)
    total = _discounted(lost, episodes, np.asarray(model.discount))
    return total / np.maximum(episodes.length, 1)


def _columns(
    episodes: LoggedEpisodes, kept: Bool[np.ndarray, " E"], params: Params
) -> dict[str, np.ndarray]:
    """Return the columns of the dataset: of each task, the best episodes first."""
    order = np.lexsort((~kept, episodes.task))
    task, observation, action, reward, length = (x[order] for x in episodes[:5])
    decides = np.arange(action.shape[1]) < length[:, None]
    label = np.where(kept[order, None] & decides, action, NO_ACTION)
    count = np.bincount(task)
    rows: dict[str, np.ndarray] = {
        "task": task,
        "episode": np.arange(len(task)) - (np.cumsum(count) - count)[task],
        "random": ~kept[order],
        **{name: np.full(len(task), np.nan) for name in UNKNOWN},
        "divergence": np.zeros((len(task), 0)),
        "observation": observation,
        "action": action,
        "reward": reward,
        "optimal_action": label,
    }
    return rows | {
        f"{PARAMETERS}.{name}": array[task]
        for name, array in plain_params(params).items()
    }
