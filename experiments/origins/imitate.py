"""`imitate`: a language model, fine-tuned on the best logged episodes of its tasks.

The training family is one whose tasks are estimated from logged episodes, `estimated`.
Its models only score the episodes, if by regret.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sdm.data.logged_dataset import (
    LoggedDatasetConfig,
    LoggedEpisodes,
    write_logged_dataset,
)
from sdm.data.request import OracleConfig, family_header
from sdm.data.solved_tasks import sample_tasks
from sdm.experiments.artifacts import Artifacts
from sdm.experiments.cell_configs import dataset_of
from sdm.experiments.learned import invalid_options
from sdm.experiments.origin import register_origin
from sdm.experiments.origins.finetune import Finetuned
from sdm.experiments.spec import Cell, ExperimentError, Options, key_of

OWN = ("best", "score")  # options in `learn` of the dataset


@register_origin
class Imitated(Finetuned):
    """A base model, fine-tuned on logged episodes."""

    def __init__(self) -> None:
        """Set the name."""
        super().__init__()
        self.name = "imitate"

    def config(self, cell: Cell, data: str) -> Any:
        """Return the configuration of the training."""
        learn = {k: x for k, x in cell.learn.items() if k not in OWN}
        return super().config(dataclasses.replace(cell, learn=learn), data)

    def dataset(self, cell: Cell, artifacts: Artifacts) -> Path:
        """Return the folder of the logged episodes; write it if it does not exist."""
        out = self.dataset_folder(cell, artifacts)
        artifacts.make(out, partial(_write, cell, out))
        return out

    def dataset_folder(self, cell: Cell, artifacts: Artifacts) -> Path:
        """Return the folder of the logged episodes, whether or not it exists."""
        tasks, chosen = dataset_of(cell), _chosen(cell)
        spec: Options = {
            **family_header(tasks.family, tasks.kind),
            **dataclasses.asdict(chosen),
            "tasks": tasks.tasks,
            "seed": tasks.seed,
        }
        return artifacts.folder / f"logged-{key_of(spec)}"


def _chosen(cell: Cell) -> LoggedDatasetConfig:
    """Return which episodes a model learns."""
    own = {name: cell.learn[name] for name in OWN if name in cell.learn}
    with invalid_options(cell):
        return LoggedDatasetConfig(horizon=dataset_of(cell).horizon, **own)


def _write(
    cell: Cell, out: Path, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Write the logged episodes of all tasks; nothing can be resumed."""
    tasks, chosen = dataset_of(cell), _chosen(cell)
    params = sample_tasks(0, config=tasks, size=tasks.tasks).params
    episodes = _logged(cell, tasks, params)
    write_logged_dataset(
        out,
        episodes,
        tasks.family,
        params,
        chosen,
        kind=tasks.kind,
        seed=cell.seed,
        overwrite=overwrite,
    )


def _logged(cell: Cell, tasks: OracleConfig, params: Any) -> LoggedEpisodes:
    """Return the episodes that the tasks were estimated from."""
    logged = getattr(tasks.family, "logged", None)
    if logged is None:
        raise ExperimentError(
            f"data, policy `{cell.policy}`: family `{tasks.family.name}` has no logged "
            "episodes",
            "train on the family `estimated`",
        )
    played = jax.device_get(logged(params))
    found = played.observation, played.action, played.reward
    count, episodes, length = played.action.shape
    if length < tasks.horizon:
        raise ExperimentError(
            f"data, policy `{cell.policy}`: logged episodes have {length} decisions, "
            f"and the test has {tasks.horizon}"
        )
    observation, action, reward = (
        np.asarray(x)[..., : tasks.horizon].reshape(count * episodes, -1) for x in found
    )
    return LoggedEpisodes(
        task=np.repeat(np.arange(count), episodes),
        observation=observation,
        action=action,
        reward=reward,
        length=np.full(count * episodes, tasks.horizon),
    )
