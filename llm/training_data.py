"""The training and validation texts of a fine-tuning run, from its dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.data.request import family_of
from sdm.data.shards import read_manifest, read_shards
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.schema import Schema, make_schema
from sdm.llm.texts import (
    PlayedEpisode,
    TrainingText,
    episodes_by_task,
    split_tasks,
    training_texts,
)


@dataclass(frozen=True)
class TrainingData:
    """The texts that a run uses.

    Attributes:
        manifest: manifest of the dataset.
        schema: text schema of the episodes.
        train: training texts.
        validation: texts of the validation tasks.
        validation_tasks: indices of the validation tasks in the dataset.

    """

    manifest: Mapping[str, Any]
    schema: Schema
    train: list[TrainingText]
    validation: list[TrainingText]
    validation_tasks: list[int]


def read_training_data(config: FinetuneConfig) -> TrainingData:
    """Read a dataset, and return its training and validation texts.

    Raises:
        StorageError: if the data cannot be read.
        ValueError: if the dataset is too small, or the schema cannot write it.

    """
    manifest = read_manifest(Path(config.data))
    _check_labels(config, manifest)
    spaces = family_of(manifest).spaces
    schema = make_schema(
        config.schema, spaces, manifest["kind"], rewards=manifest["observes_reward"]
    )
    table = read_shards(Path(config.data))
    tasks = _choose_tasks(config, episodes_by_task(table))
    random = None
    if (config.demonstrations, config.queries) != ("optimal", "optimal"):
        random = episodes_by_task(table, random=True)
        _check_random(config, random)
    parts = split_tasks(list(tasks), held_out=config.held_out, seed=config.seed)
    training, validation = (
        training_texts(
            {task: tasks[task] for task in chosen},
            schema,
            random=random,
            show=config.demonstrations,
            ask_random=config.queries == "all",
            support=config.support,
            per_task=config.texts_per_task,
            seed=config.seed,
        )
        for chosen in parts
    )
    return TrainingData(manifest, schema, training, validation, list(parts[1]))


def _check_labels(config: FinetuneConfig, manifest: Mapping[str, Any]) -> None:
    """Raise `ValueError` if an option needs the oracle's actions, which are unknown."""
    played_by = manifest.get("policy", "oracle")
    if config.queries == "all" and played_by != "oracle":
        raise ValueError(
            f"`--queries all` needs the oracle's actions in random episodes, which "
            f"`{config.data}` lacks, since its policy is `{played_by}`"
        )


def _check_random(
    config: FinetuneConfig, random: Mapping[int, list[PlayedEpisode]]
) -> None:
    """Raise `ValueError` if an option needs random episodes that the dataset lacks."""
    for option in ("demonstrations", "queries"):
        chosen = getattr(config, option)
        if chosen == "random" and not config.support:
            continue  # nothing is drawn from them
        if chosen != "optimal" and not random:
            raise ValueError(
                f"`--{option} {chosen}` needs random episodes, found none in "
                f"`{config.data}`: make them with `sdm solve --random-trajectories`"
            )


def _choose_tasks(
    config: FinetuneConfig, tasks: dict[int, list[PlayedEpisode]]
) -> dict[int, list[PlayedEpisode]]:
    """Return the first `config.tasks` tasks of a dataset."""
    if config.tasks is None:
        return tasks
    if config.tasks > len(tasks):
        raise ValueError(
            f"tasks = {config.tasks}: must be at most the {len(tasks)} in "
            f"`{config.data}`"
        )
    return dict(list(tasks.items())[: config.tasks])
