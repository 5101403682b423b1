"""Few-shot training texts: demonstrations of a task, then a query episode of it.

The oracle or uniformly random actions generate an episode. The labels are always the
oracle's actions: in a random query, the oracle's action replaces each action as its
label; the actions of random demonstrations have no label, and neither have decisions
after the end of a logged episode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdm.data.shards import NO_ACTION
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.recipes import Shown
from sdm.llm.schema import Schema

Wanted = tuple[int | None, ...]


@dataclass(frozen=True)
class TrainingText:
    """A training text of one task.

    Attributes:
        task: index of the task.
        text: demonstrations and query, in the format in which the model acts.
        wanted: label of each action in the text, in order: an action, or None for no
            label; None as a whole if the labels are the text's own actions.

    """

    task: int
    text: str
    wanted: Wanted | None = None


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode of a dataset.

    Attributes:
        episode: observations, actions and rewards.
        better: label of each action if it is a query, or None for no label; None as a
            whole if the labels are its own actions.
        random: whether its actions have no labels if it is a demonstration.

    """

    episode: Episode
    better: Wanted | None = None
    random: bool = False


def episodes_by_task(
    table: pa.Table, *, random: bool = False
) -> dict[int, list[PlayedEpisode]]:
    """Return a dataset's oracle episodes, or its random ones, by task index."""
    table = table.filter(pc.equal(table["random"], random))
    names = ("task", "observation", "action", "reward", "optimal_action")
    columns = (table.column(name).to_pylist() for name in names)
    tasks: dict[int, list[PlayedEpisode]] = {}
    for task, observation, action, reward, better in zip(*columns, strict=True):
        episode = Episode(tuple(observation), tuple(action), tuple(reward))
        labels = tuple(None if a == NO_ACTION else a for a in better)
        own = not random and None not in labels
        played = PlayedEpisode(episode, None if own else labels, random)
        tasks.setdefault(task, []).append(played)
    return tasks


def split_tasks(
    tasks: Sequence[int], *, held_out: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split tasks at random into training and validation tasks.

    Args:
        tasks: task indices.
        held_out: share of the tasks in the validation split; at least one task is in
            each split.
        seed: random seed of the split.

    Returns:
        The sorted training tasks, and the sorted validation tasks.

    Raises:
        ValueError: if there are fewer than 2 tasks.

    """
    if len(tasks) < 2:
        raise ValueError(
            "tasks: at least 2 are needed, one of them for validation, found "
            f"{len(tasks)}"
        )
    order = np.random.default_rng([seed, 1]).permutation(sorted(tasks)).tolist()
    count = min(max(1, round(held_out * len(order))), len(order) - 1)
    return sorted(order[count:]), sorted(order[:count])


def training_texts(
    tasks: Mapping[int, Sequence[PlayedEpisode]],
    schema: Schema,
    *,
    random: Mapping[int, Sequence[PlayedEpisode]] | None = None,
    show: Shown = "optimal",
    ask_random: bool = False,
    support: int,
    per_task: int,
    seed: int,
) -> list[TrainingText]:
    """Return `per_task` texts of each task, each with `support` demonstrations.

    Every episode is the query of equally many texts, up to one. Its demonstrations are
    drawn without replacement from the task's other episodes. The texts of a task depend
    only on the seed and on the task's index.

    Args:
        tasks: the oracle's episodes of each task.
        schema: text schema of the episodes.
        random: random episodes of each task.
        show: episodes to draw demonstrations from, the oracle's (`optimal`), the
            `random` ones, or `all` of them.
        ask_random: use a random episode as every other query.
        support: demonstrations in each text.
        per_task: texts of each task.
        seed: random seed of queries and demonstrations.

    Raises:
        ValueError: if a task has too few episodes for a query and its demonstrations.

    """
    texts = []
    for task, own in tasks.items():
        more = list(random[task]) if random else []
        everything = [*own, *more]
        shown = {
            "optimal": range(len(own)),
            "random": range(len(own), len(everything)),
            "all": range(len(everything)),
        }[show]
        needed = support + (show != "random" or ask_random)  # the query may be one
        if len(shown) < needed:
            raise ValueError(
                f"task {task}: {support} demonstrations and a query need {needed} "
                f"trajectories, found {len(shown)}: lower `--support`, or make more"
            )
        generator = np.random.default_rng([seed, 2, task])
        order = generator.permutation(len(own))
        if ask_random:
            added = generator.permutation(len(more)) + len(own)
            turns = -(-per_task // 2)
            pairs = zip(np.resize(order, turns), np.resize(added, turns), strict=True)
            order = np.array([index for pair in pairs for index in pair])
        for i in range(per_task):
            query = int(order[i % len(order)])
            others = [j for j in shown if j != query]
            chosen = generator.choice(others, size=support, replace=False)
            texts.append(_text(task, schema, [everything[j] for j in (*chosen, query)]))
    return texts


def _text(task: int, schema: Schema, played: Sequence[PlayedEpisode]) -> TrainingText:
    """Return the text of demonstrations and a query; the query is the last episode."""
    *shown, query = played
    text = render_prompt(schema, [each.episode for each in shown], query.episode)
    if all(each.better is None for each in played):
        return TrainingText(task, text)
    wanted: list[int | None] = []
    for each in played:
        actions = each.episode.actions
        if each.better is None:
            wanted += actions
        elif each is query or not each.random:
            wanted += each.better
        else:
            wanted += [None] * len(actions)
    return TrainingText(task, text, tuple(wanted))
