"""Logged episodes: what was observed, done and paid, as arrays."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

NOTHING = -1  # fills the observations and actions after the end of an episode


@dataclass(frozen=True)
class Logs:
    """Logged episodes of one or several tasks, padded to the longest.

    An episode of n decisions has n actions and rewards, and n or n + 1 observations:
    the last one, after the last decision, is `NOTHING` if the log does not have it, and
    so is the first one if nothing is observed before the first decision.

    Attributes:
        observation: index of the observation before each decision, and after the last
            one; `NOTHING` elsewhere.
        action: index of each action; `NOTHING` after the last decision.
        reward: reward of each decision; 0 after the last one.
        done: whether the episode ended, rather than was cut off.
        task: index of the episode's task, such as a site or a group of patients.
        probability: probability with which the behavior policy took each action, 1
            after the last decision; None if the log does not have it.
        observations: name of each observation.
        actions: name of each action.
        tasks: name of each task.

    """

    observation: Int[np.ndarray, "N T1"]
    action: Int[np.ndarray, "N T"]
    reward: Float[np.ndarray, "N T"]
    done: Bool[np.ndarray, " N"]
    task: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, "N T"] | None
    observations: tuple[str, ...]
    actions: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def episodes(self) -> int:
        """Return the number of episodes, N."""
        return len(self.action)

    @property
    def horizon(self) -> int:
        """Return the number of decisions of the longest episode, T."""
        return self.action.shape[1]

    @property
    def length(self) -> Int[np.ndarray, " N"]:
        """Return the number of decisions of each episode."""
        return (self.action != NOTHING).sum(1)

    def select(self, episodes: np.ndarray | slice) -> "Logs":
        """Return the episodes that a mask, indices or a slice choose, with all names.

        A slice copies nothing.
        """
        chosen = {
            name: getattr(self, name)[episodes]
            for name in ("observation", "action", "reward", "done", "task")
        }
        if self.probability is not None:
            chosen["probability"] = self.probability[episodes]
        return dataclasses.replace(self, **chosen)
