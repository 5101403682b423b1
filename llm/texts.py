"""Few-shot training texts: demonstrations of a task, then a query episode of it.

An episode may be the oracle's, or of random actions. What is to be learned is always
what the oracle does: in a random query, what it would have done in the place of every
action; random demonstrations are there to be read, not to be learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdm.llm.episode import Episode, render_prompt
from sdm.llm.schema import Schema

Wanted = tuple[int | None, ...]


@dataclass(frozen=True)
class TrainingText:
    """One text, and the task it is about.

    Attributes:
        task: index of the task.
        text: demonstrations and query, as they look when the model acts.
        wanted: what is to be learned in the place of each action of the text, in
            order: an action, or None for nothing; None for the text's own actions.

    """

    task: int
    text: str
    wanted: Wanted | None = None


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode of a dataset.

    Attributes:
        episode: what was seen, done and earned.
        better: what the oracle would have done; None if it was the oracle who played.

    """

    episode: Episode
    better: tuple[int, ...] | None = None


def episodes_by_task(
    table: pa.Table, *, random: bool = False
) -> dict[int, list[PlayedEpisode]]:
    """The oracle's episodes of a dataset's table, or the random ones, by task."""
    table = table.filter(pc.equal(table["random"], random))
    names = ("task", "observation", "action", "reward", "optimal_action")
    columns = (table.column(name).to_pylist() for name in names)
    tasks: dict[int, list[PlayedEpisode]] = {}
    for task, observation, action, reward, better in zip(*columns, strict=True):
        episode = Episode(tuple(observation), tuple(action), tuple(reward))
        played = PlayedEpisode(episode, tuple(better) if random else None)
        tasks.setdefault(task, []).append(played)
    return tasks


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
    tasks: Mapping[int, Sequence[PlayedEpisode]],
    schema: Schema,
    *,
    random: Mapping[int, Sequence[PlayedEpisode]] | None = None,
    show_random: bool = False,
    ask_random: bool = False,
    support: int,
    per_task: int,
    seed: int,
) -> list[TrainingText]:
    """`per_task` texts of each task, each with `support` demonstrations.

    Every episode is the query of equally many texts, up to one; its demonstrations are
    drawn from the task's other episodes without replacement. The texts of a task depend
    on the seed and its index only.

    Args:
        tasks: the oracle's episodes of each task.
        schema: how they are written.
        random: random episodes of each task.
        show_random: draw demonstrations from these, too.
        ask_random: let every other query be one of these.
        support: demonstrations in each text.
        per_task: texts of each task.
        seed: of the choice.

    Raises:
        ValueError: if a task has fewer than `support + 1` episodes.

    """
    texts = []
    for task, own in tasks.items():
        more = [] if random is None else list(random[task])
        everything = [*own, *more]
        shown = range(len(everything) if show_random else len(own))
        if len(shown) < support + 1:
            raise ValueError(
                f"{support} demonstrations and a query need {support + 1} trajectories "
                f"of each task: task {task} has {len(shown)}"
            )
        generator = np.random.default_rng([seed, 2, task])
        order = generator.permutation(len(own))
        if ask_random:
            wandering = generator.permutation(len(more)) + len(own)
            turns = -(-per_task // 2)
            pairs = zip(
                np.resize(order, turns), np.resize(wandering, turns), strict=True
            )
            order = np.array([index for pair in pairs for index in pair])
        for i in range(per_task):
            query = int(order[i % len(order)])
            others = [j for j in shown if j != query]
            chosen = generator.choice(others, size=support, replace=False)
            texts.append(_text(task, schema, [everything[j] for j in (*chosen, query)]))
    return texts


def _text(task: int, schema: Schema, played: Sequence[PlayedEpisode]) -> TrainingText:
    """The text of some demonstrations and, last, a query."""
    *shown, query = played
    text = render_prompt(schema, [each.episode for each in shown], query.episode)
    if all(each.better is None for each in played):
        return TrainingText(task, text)
    wanted: list[int | None] = []
    for each in played:
        actions = each.episode.actions
        if each.better is None:
            wanted += actions
        elif each is query:
            wanted += each.better
        else:
            wanted += [None] * len(actions)
    return TrainingText(task, text, tuple(wanted))
