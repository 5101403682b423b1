"""What a judge compares in a task: its states, or segments of random episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float
from scipy import sparse

from sdm.feedback.judge import Items
from sdm.llm.episode import Episode
from sdm.llm.schema import Contents, Schema, schemas
from sdm.tasks.family import Kind, Spaces, TaskFamily
from sdm.tasks.models import MDP
from sdm.tasks.policy import uniform_random
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.transitions import take_tasks

GOAL = "The agent wants the highest total reward."
SEGMENTS_PER_STATE = 4


@dataclass(frozen=True)
class Subjects:
    """What is compared in one task.

    Attributes:
        items: the items that the judge sees.
        visits: how often each item visits each state [N, S]: the scores of states add
            up to that of an item.
        states: caption of each state.
        single: whether the items are the states.

    """

    items: Items
    visits: sparse.csr_array
    states: Sequence[str]
    single: bool


def captions_of(spaces: Spaces, kind: Kind) -> tuple[str, ...]:
    """Return a text for every observation, such as `row 3 column 4`."""
    contents = Contents(spaces.seen(kind), spaces.actions, False)
    return tuple(
        " ".join(
            f"{component.name} {component.values[x] if component.values else x}"
            for component, x in zip(
                contents.seen, contents.coordinates(observation), strict=True
            )
        )
        for observation in range(contents.observations)
    )


def in_words(spaces: Spaces, *, rewards: bool) -> Schema:
    """Return the schema in which a judge reads episodes.

    Raises:
        ValueError: if the names of the family do not fit sentences.

    """
    contents = Contents(spaces.seen("mdp"), spaces.actions, rewards)
    return schemas()["words"](contents)


def texts_of(
    family: TaskFamily, episodes: Sequence[Sequence[Episode]], *, rewards: bool
) -> list[tuple[str, ...]]:
    """Return the texts of the episodes of each task, for a judge to read."""
    schema = in_words(family.spaces, rewards=rewards)
    return [tuple(map(schema.render, of_task)) for of_task in episodes]


def goal_of(family: TaskFamily, goal: str) -> str:
    """Return the goal that a judge reads: the given one, or the family's."""
    return goal or getattr(family, "goal", "") or GOAL


def states_as_items(
    captions: Sequence[str],
    value: Float[np.ndarray, " S"],
    goal: str,
    demonstrations: Sequence[str] = (),
) -> Subjects:
    """Return the states as items, whose quality is their optimal value.

    Args:
        captions: text of each state.
        value: optimal value V*_0(s).
        goal: what the agent wants.
        demonstrations: texts of episodes of the task.

    """
    items = Items(captions, np.asarray(value, np.float64), goal, demonstrations)
    visits = sparse.csr_array(sparse.eye_array(len(captions)))
    return Subjects(items, visits, captions, single=True)


def segments_as_items(
    family: TaskFamily,
    mdp: MDP,
    task: int,
    *,
    length: int,
    horizon: int,
    goal: str,
    seed: int,
    demonstrations: Sequence[str] = (),
) -> Subjects:
    """Return segments of episodes of random actions, whose quality is their reward.

    The score of a segment is the sum of the scores of the states that its decisions
    lead to (Christiano et al., 2017).

    Args:
        family: family of the task.
        mdp: a batch of tasks.
        task: index of the task in the batch.
        length: decisions in a segment, below the horizon.
        horizon: decisions per episode.
        goal: what the agent wants.
        seed: random seed of the episodes.
        demonstrations: texts of episodes of the task.

    Raises:
        ValueError: if the length is not below the horizon, or the names of the family
            do not fit sentences.

    """
    if not 1 <= length < horizon:
        raise ValueError(
            f"segment = {length}: must lie between 1 and {horizon - 1}, the horizon "
            "less 1"
        )
    states = mdp.reward.shape[-2]
    one = take_tasks(mdp, slice(task, task + 1))
    played = rollout(
        task_keys(jax.random.key(seed), 1, first=task),
        one,
        uniform_random(one, horizon),
        horizon=horizon,
        episodes=SEGMENTS_PER_STATE * states,
    )
    seen, done, paid = (
        np.asarray(x)[0] for x in (played.observation, played.action, played.reward)
    )
    # Any window of a random episode will do: take one that starts at random.
    random = np.random.default_rng([seed, task])
    start = random.integers(0, horizon - length, len(seen))
    window = start[:, None] + np.arange(length + 1)
    spaces = family.spaces
    words = in_words(spaces, rewards=False)
    rows = np.arange(len(seen))[:, None]
    seen, done, paid = (
        seen[rows, window],
        done[rows, window[:, :-1]],
        paid[rows, window[:, :-1]],
    )
    captions = tuple(
        words.render(Episode(tuple(o), tuple(a)))
        for o, a in zip(seen.tolist(), done.tolist(), strict=True)
    )
    visits = np.zeros((len(seen), states))
    np.add.at(visits, (np.repeat(rows[:, 0], length), seen[:, 1:].ravel()), 1.0)
    return Subjects(
        Items(captions, paid.sum(-1), goal, demonstrations),
        sparse.csr_array(visits),
        captions_of(spaces, "mdp"),
        single=False,
    )
