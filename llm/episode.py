"""The episode that a schema writes, and the prompt that a model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdm.tasks.rollout import Trajectory

if TYPE_CHECKING:
    from typing import Protocol

    class Renders(Protocol):
        """A schema that writes an episode."""

        def render(self, episode: "Episode") -> str:
            """Return the text of an episode."""
            ...


NOTHING = -1  # in place of the first observation


@dataclass(frozen=True)
class Episode:
    """Observations, actions and rewards, stage by stage.

    Attributes:
        observations: one per decision, and one more in an open episode; the first is
            `NOTHING` if nothing is observed before the first action.
        actions: one per decision.
        rewards: one per decision; None if the schema does not write them.

    """

    observations: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` if lengths disagree or a number is negative."""
        extra = len(self.observations) - len(self.actions)
        if extra not in (0, 1):
            raise ValueError(
                f"{len(self.observations)} observations and {len(self.actions)} "
                "actions: must be equally many, or one observation more"
            )
        if self.rewards is not None and len(self.rewards) != len(self.actions):
            raise ValueError(
                f"{len(self.rewards)} rewards for {len(self.actions)} actions"
            )
        later = self.observations[self.observations[:1] == (NOTHING,) :]
        if any(x < 0 for x in (*later, *self.actions)):
            raise ValueError("observations and actions are counted from 0")

    @property
    def is_open(self) -> bool:
        """Return whether the last observation has no action yet."""
        return len(self.observations) > len(self.actions)


def render_prompt(schema: "Renders", support: Sequence[Episode], query: Episode) -> str:
    """Return demonstrations, one per line, then the query episode."""
    return "\n".join(schema.render(episode) for episode in (*support, query))


def episodes_of(trajectory: Trajectory) -> list[list[Episode]]:
    """Return the N complete episodes of each of B tasks, ready to be rendered."""
    arrays = (trajectory.observation, trajectory.action, trajectory.reward)
    tasks = zip(*(np.asarray(x).tolist() for x in arrays), strict=True)
    return [
        [Episode(tuple(o), tuple(a), tuple(r)) for o, a, r in zip(*task, strict=True)]
        for task in tasks
    ]
