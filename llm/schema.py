"""Text schemas: how episodes of a family's tasks are written, and read back.

A schema is made for what it writes: the components of observations, the actions, and
whether the agent observes its rewards. In each, `parse` inverts `render`. An episode
whose last observation has no action yet renders up to the place of the action; that is
the end of a prompt.

Each file in `schemas` registers one. Another package registers a schema through the
entry-point group `sdm.schemas`, in a module that calls `register_schema`.
"""

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Protocol, runtime_checkable

import sdm.llm.schemas
from sdm.llm.episode import Episode
from sdm.tasks.family import HIDDEN, Component, Kind, Spaces

GROUP = "sdm.schemas"
REWARD_DECIMALS = 2  # as in the paper's examples; all else is exact
SAME = 1e-6  # a reward this near to a level is that level: single precision's rounding


@dataclass(frozen=True)
class Contents:
    """What a schema writes.

    Attributes:
        seen: components of an observation.
        actions: a name for each action.
        rewards: whether the agent observes its rewards.
        levels: every reward that a decision can pay, where rewards tell the agent
            something; () where what is seen and done determines them.
        unlisted: whether rewards tell the agent something, and the family does not list
            them: states are hidden, and there are no levels.

    """

    seen: tuple[Component, ...]
    actions: tuple[str, ...]
    rewards: bool
    levels: tuple[float, ...] = ()
    unlisted: bool = False

    def coordinates(self, observation: int) -> tuple[int, ...]:
        """Return an observation's values, one a component."""
        found: list[int] = []
        for component in reversed(self.seen):
            observation, value = divmod(observation, component.size)
            found.append(value)
        return tuple(reversed(found))

    def observation(self, coordinates: tuple[int, ...]) -> int:
        """Return the observation with these values.

        Raises:
            ValueError: if one of them is too large.

        """
        found = 0
        for component, value in zip(self.seen, coordinates, strict=True):
            if value >= component.size:
                raise ValueError(
                    f"{component.name} {value}: must be below {component.size}"
                )
            found = found * component.size + value
        return found

    def level(self, reward: float) -> int:
        """Return the index of a reward among the levels.

        Raises:
            ValueError: if it is none of them.

        """
        for index, level in enumerate(self.levels):
            if abs(reward - level) <= SAME * max(1.0, abs(level)):
                return index
        raise ValueError(
            f"reward {reward:g} is none of the {len(self.levels)} that the family "
            "lists in `Spaces`: use the schema `paper`"
        )

    @property
    def observations(self) -> int:
        """Number of different observations."""
        return prod(component.size for component in self.seen)


@runtime_checkable
class Schema(Protocol):
    """How episodes are written.

    Attributes:
        name: what the command line and run folders call it.
        terminator: what follows an action in the text.
        contents: what it writes.

    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def terminator(self) -> str: ...  # noqa: D102
    @property
    def contents(self) -> Contents: ...  # noqa: D102

    def render(self, episode: Episode) -> str:
        """Return the text of an episode; of an open one, up to the action's place."""
        ...

    def parse(self, text: str) -> Episode:
        """Return the episode that `render` writes as `text`."""
        ...

    def answer(self, action: int) -> str:
        """Return what follows an open episode when `action` is taken."""
        ...

    def action_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character ranges of the actions in a text of episodes."""
        ...


Make = Callable[[Contents], Schema]
_registered: dict[str, Make] = {}


def register_schema(name: str) -> Callable[[Make], Make]:
    """Register what makes a schema; use it as a decorator."""

    def add(make: Make) -> Make:
        _registered[name] = make
        return make

    return add


@cache
def schemas() -> Mapping[str, Make]:
    """Return what makes every registered schema, by name."""
    package = sdm.llm.schemas
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for point in importlib.metadata.entry_points(group=GROUP):
        point.load()
    return dict(_registered)


def make_schema(name: str, spaces: Spaces, kind: Kind, *, rewards: bool) -> Schema:
    """Return a schema for a family's tasks of a kind.

    Args:
        name: of the schema.
        spaces: what agents see and do.
        kind: of the tasks.
        rewards: whether the agent observes its rewards.

    Raises:
        ValueError: if there is no such schema, or it cannot write these tasks.

    """
    if name not in schemas():
        raise ValueError(
            f"schema: unknown, found `{name}`: there are {', '.join(schemas())}"
        )
    levels = spaces.levels(kind)
    unlisted = kind in HIDDEN and not levels
    return schemas()[name](
        Contents(spaces.seen(kind), spaces.actions, rewards, levels, unlisted)
    )
