"""Text schemas, which write episodes of a family's tasks as text, and parse them.

A schema depends on its contents: the components of observations, the actions, and
whether the agent observes its rewards. Its `parse` inverts `render`. The text of an
open episode, whose last observation has no action yet, ends where the action follows;
a prompt ends there.

Each file in `schemas` registers one schema. Another package registers a schema in a
module that calls `register_schema` and is listed in the entry-point group
`sdm.schemas`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Protocol, runtime_checkable

from sdm.llm.episode import Episode
from sdm.storage.plugins import load_plugins
from sdm.tasks.family import HIDDEN, Component, Kind, Spaces

GROUP = "sdm.schemas"
REWARD_DECIMALS = 2  # as in the paper's examples; all other values are exact
SAME = 1e-6  # relative tolerance of reward levels, for rounding in single precision


@dataclass(frozen=True)
class Contents:
    """What a schema writes.

    Attributes:
        seen: components of an observation.
        actions: a name for each action.
        rewards: whether the agent observes its rewards.
        levels: every possible reward, if rewards are informative; () if observations
            and actions determine them.
        unlisted: whether rewards are informative and the family does not list them:
            states are hidden or rewards are random, and `levels` is empty.

    """

    seen: tuple[Component, ...]
    actions: tuple[str, ...]
    rewards: bool
    levels: tuple[float, ...] = ()
    unlisted: bool = False

    def coordinates(self, observation: int) -> tuple[int, ...]:
        """Return the value of each component of an observation."""
        found: list[int] = []
        for component in reversed(self.seen):
            observation, value = divmod(observation, component.size)
            found.append(value)
        return tuple(reversed(found))

    def observation(self, coordinates: tuple[int, ...]) -> int:
        """Return the index of the observation with these component values.

        Raises:
            ValueError: if a value is too large.

        """
        found = 0
        for component, value in zip(self.seen, coordinates, strict=True):
            if value >= component.size:
                raise ValueError(
                    f"{component.name} = {value}: must be below {component.size}"
                )
            found = found * component.size + value
        return found

    def level(self, reward: float) -> int:
        """Return the index of a reward among the levels.

        Raises:
            ValueError: if the reward is not a level.

        """
        for index, level in enumerate(self.levels):
            if abs(reward - level) <= SAME * max(1.0, abs(level)):
                return index
        raise ValueError(
            f"reward: must be one of the {len(self.levels)} that the family lists in "
            f"`Spaces`, found {reward:g}: use the schema `paper`"
        )

    @property
    def observations(self) -> int:
        """Return the number of distinct observations."""
        return prod(component.size for component in self.seen)


@runtime_checkable
class Schema(Protocol):
    """A text format of episodes.

    Attributes:
        name: name on the command line and in run folders.
        terminator: the text that follows an action.
        contents: what the schema writes.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def terminator(self) -> str: ...  # noqa: D102
    @property
    def contents(self) -> Contents: ...  # noqa: D102

    def render(self, episode: Episode) -> str:
        """Return the text of an episode; for an open one, the text before the action.

        Raises:
            ValueError: if the schema writes rewards and the episode has none.

        """
        ...

    def parse(self, text: str) -> Episode:
        """Return the episode that `render` writes as `text`.

        Raises:
            ValueError: if no episode has this text.

        """
        ...

    def answer(self, action: int) -> str:
        """Return the text of `action` after the text of an open episode."""
        ...

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character ranges (start, end) of the actions in a text."""
        ...


Make = Callable[[Contents], Schema]
_registered: dict[str, Make] = {}


def register_schema(name: str) -> Callable[[Make], Make]:
    """Return a decorator that registers the constructor of a schema."""

    def add(make: Make) -> Make:
        _registered[name] = make
        return make

    return add


@cache
def schemas() -> Mapping[str, Make]:
    """Return the constructor of every registered schema, by name."""
    load_plugins("sdm.llm.schemas", group=GROUP, what="schema")
    return dict(_registered)


def make_schema(name: str, spaces: Spaces, kind: Kind, *, rewards: bool) -> Schema:
    """Return a schema for a family's tasks of a kind.

    Args:
        name: name of the schema.
        spaces: the family's observations and actions.
        kind: kind of model.
        rewards: whether the agent observes its rewards.

    Raises:
        ValueError: if the schema is unknown, or cannot write these tasks.

    """
    if name not in schemas():
        raise ValueError(
            f"schema: unknown, found `{name}`: choose from {', '.join(schemas())}"
        )
    levels = spaces.levels(kind)
    unlisted = not levels and (kind in HIDDEN or spaces.random_rewards)
    return schemas()[name](
        Contents(spaces.seen(kind), spaces.actions, rewards, levels, unlisted)
    )


def unlike_stages(one: Schema, other: Schema) -> tuple[str, str] | None:
    """Return how each of two schemas writes a stage, if they write it differently.

    The stage pays the smallest reward that the schema's family lists, or, if only the
    other family lists its rewards, the smallest of that one.

    """
    listed = one.contents.levels, other.contents.levels
    paid = (listed[0] or listed[1])[:1], (listed[1] or listed[0])[:1]
    texts = (
        one.render(Episode((0,), (0,), paid[0] or (0.0,))),
        other.render(Episode((0,), (0,), paid[1] or (0.0,))),
    )
    return None if texts[0] == texts[1] else texts
