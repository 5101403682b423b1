"""Interface of families of bandits: actions are arms and do not affect the next state.

Policies that keep statistics of the arms' rewards work for every family that
implements it.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.family import TaskFamily


@runtime_checkable
class ArmsFamily(TaskFamily, Protocol):
    """A family of bandits.

    Attributes:
        arms: number K of arms.
        shows_all: whether an observation shows the last rewards of all arms (full
            information), or the agent sees only its own reward (bandit feedback).

    """

    @property
    def arms(self) -> int: ...  # noqa: D102
    @property
    def shows_all(self) -> bool: ...  # noqa: D102

    def shown(self, observation: Int[Array, "*B"]) -> Float[Array, "*B K"]:
        """Return the last reward of each arm, which the observation shows."""
        ...

    def sample_mean(
        self,
        key: Key[Array, "*B"],
        count: Float[Array, "*B K"],
        total: Float[Array, "*B K"],
    ) -> Float[Array, "*B K"]:
        """Draw a mean for each arm given the number and the sum of its rewards."""
        ...

    def not_counted(self) -> str | None:
        """Return why numbers of successes and failures do not suffice to act on.

        They suffice if rewards are 0 or 1, means do not change, and the agent sees its
        own reward only.
        """
        ...

    def predictive(
        self, won: Int[np.ndarray, "N K"], lost: Int[np.ndarray, "N K"]
    ) -> Float[np.ndarray, "N K"]:
        """Return each arm's probability of a reward of 1, given what all arms paid.

        Args:
            won: number of rewards of 1 of each arm.
            lost: number of rewards of 0 of each arm.

        """
        ...
