"""Few-shot training texts: demonstrations of a task, then a query episode of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdm.llm.serialize import Episode, Schema, render_prompt


@dataclass(frozen=True)
class TrainingText:
    """One text, and the task it is about.

    Attributes:
        task: index of the task.
        text: demonstrations and query, as they look when the model acts.

    """

    task: int
    text: str


def episodes_by_task(
    table: pa.Table, *, random: bool = False
) -> dict[int, list[Episode]]:
    """The oracle's episodes of a dataset's table, or the random ones, by task."""
    table = table.filter(pc.equal(table["random"], random))
    names = ("task", "observation", "action", "reward")
    columns = (table.column(name).to_pylist() for name in names)
    tasks: dict[int, list[Episode]] = {}
    for task, observation, action, reward in zip(*columns, strict=True):
        episode = Episode(tuple(observation), tuple(action), tuple(reward))
        tasks.setdefault(task, []).append(episode)
    return tasks


def merge(
    first: Mapping[int, list[Episode]], more: Mapping[int, list[Episode]]
) -> dict[int, list[Episode]]:
    """Of each task of the first its episodes, then those that the other has of it."""
    return {task: episodes + more.get(task, []) for task, episodes in first.items()}


def split_tasks(
    tasks: Sequence[int], *, held_out: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split tasks into training and validation ones, at random by seed.

    At least one task is left on either side. Raises `ValueError` for fewer than two.
    """
    if len(tasks) < 2:
        raise ValueError(
            f"{len(tasks)} task: at least 2 are needed, one of them for validation"
        )
    order = np.random.default_rng([seed, 1]).permutation(sorted(tasks)).tolist()
    count = min(max(1, round(held_out * len(order))), len(order) - 1)
    return sorted(order[count:]), sorted(order[:count])


def training_texts(
    tasks: Mapping[int, Sequence[Episode]],
    schema: Schema,
    *,
    shown: Mapping[int, Sequence[Episode]] | None = None,
    support: int,
    per_task: int,
    seed: int,
) -> list[TrainingText]:
    """`per_task` texts of each task, each with `support` demonstrations.

    Every episode is the query of equally many texts, up to one; its demonstrations are
    drawn from the task's other episodes without replacement. The texts of a task depend
    on the seed and its index only.

    Args:
        tasks: queries of each task.
        schema: how they are written.
        shown: what demonstrations are drawn from, which begins with the queries; None
            for these alone.
        support: demonstrations in each text.
        per_task: texts of each task.
        seed: of the choice.

    Raises:
        ValueError: if a task has fewer than `support + 1` episodes.

    """
    texts = []
    for task, queries in tasks.items():
        episodes = queries if shown is None else shown[task]
        if len(episodes) < support + 1:
            raise ValueError(
                f"{support} demonstrations and a query need {support + 1} trajectories "
                f"of each task: task {task} has {len(episodes)}"
            )
        random = np.random.default_rng([seed, 2, task])
        order = random.permutation(len(queries))
        for i in range(per_task):
            query = int(order[i % len(order)])
            others = [j for j in range(len(episodes)) if j != query]
            chosen = random.choice(others, size=support, replace=False)
            support_shown = [episodes[j] for j in chosen]
            texts.append(
                TrainingText(task, render_prompt(schema, support_shown, queries[query]))
            )
    return texts
