"""The dataset of an iteration: kept episodes, and random ones as demonstrations.

It is an ordinary dataset folder. Rows of kept episodes have `random` false, and their
`optimal_action` is their own action, which the model learns. Rows of random episodes
have `random` true and an `optimal_action` of -1, since there is no oracle; the values
of a task are NaN.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from sdm.data.request import dataset_header, plain_params
from sdm.data.shards import (
    NO_ACTION,
    PARAMETERS,
    UNKNOWN,
    shard_path,
    write_manifest,
    write_shard,
)
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.llm.self_training.play import SelfPlay
from sdm.storage.files import folder_in_progress
from sdm.tasks.family import TaskFamily
from sdm.tasks.rollout import Trajectory


def write_dataset(
    out: Path,
    config: SelfTrainConfig,
    play: SelfPlay,
    kept: Bool[np.ndarray, "S L"],
    about: Mapping[str, Any],
) -> None:
    """Write the kept and the random episodes of the scenarios with a kept episode.

    Args:
        out: the folder to write.
        config: configuration of the self-training.
        play: the episodes.
        kept: which of them are kept.
        about: results of the selection, the manifest's entry `self_training`.

    """
    manifest = {**_describe(config, play.family, kept), "self_training": dict(about)}
    with folder_in_progress(out, manifest, resumable=False) as folder:
        write_shard(shard_path(folder, 0), _columns(play, kept))
        write_manifest(folder, manifest)


def _describe(
    config: SelfTrainConfig, family: TaskFamily, kept: Bool[np.ndarray, "S L"]
) -> dict[str, Any]:
    """Return the entries of the manifest that describe tasks and episodes."""
    return dataset_header(
        family,
        config.kind,
        policy="self-training",
        observes_reward=config.test.rewards_seen,
        horizon=config.horizon,
        tasks=int(kept.any(-1).sum()),
        trajectories=int(kept.sum(-1).max()),
        random_trajectories=config.demonstrations,
        seed=config.seed,
    )


def _columns(play: SelfPlay, kept: Bool[np.ndarray, "S L"]) -> dict[str, np.ndarray]:
    """Return the columns of the dataset, in order of task and episode."""
    random = np.asarray(play.random.action)
    used = np.asarray(kept.any(-1, keepdims=True))
    shown = np.broadcast_to(used, random.shape[:2])
    parts = [_rows(play.played, kept), _rows(play.random, shown)]
    numbers = [np.cumsum(kept, -1) - 1, np.cumsum(shown, -1) - 1]
    numbers[1] = numbers[1] + kept.sum(-1)[:, None]
    scenario = np.concatenate([np.nonzero(kept)[0], np.nonzero(shown)[0]])
    episode = np.concatenate([numbers[0][kept], numbers[1][shown]])
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    is_random = np.repeat([False, True], [int(kept.sum()), int(shown.sum())])
    rows["optimal_action"] = np.where(is_random[:, None], NO_ACTION, rows["action"])
    rows |= {"task": play.first + scenario, "episode": episode, "random": is_random}
    rows |= {name: np.full(len(scenario), np.nan) for name in UNKNOWN}
    rows["divergence"] = np.asarray(play.tasks.divergence)[scenario]
    for name, array in plain_params(play.tasks.params).items():
        rows[f"{PARAMETERS}.{name}"] = array[scenario]
    order = np.lexsort((episode, scenario))
    return {name: column[order] for name, column in rows.items()}


def _rows(played: Trajectory, chosen: Bool[np.ndarray, "S N"]) -> dict[str, np.ndarray]:
    """Return observations, actions and rewards of the chosen episodes."""
    arrays = jax.device_get(played)
    names = ("observation", "action", "reward")
    return {name: np.asarray(getattr(arrays, name))[chosen] for name in names}
