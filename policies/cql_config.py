"""Options of conservative Q-learning. Imports nothing heavy."""

import math
from dataclasses import dataclass

from sdm.storage.checks import check_count


@dataclass(frozen=True)
class CQLConfig:
    """Train conservative Q-learning on all episodes of a dataset, with d3rlpy.

    It reads no demonstrations, so it learns one policy for all tasks.

    Attributes:
        data: oracle dataset, from `sdm solve --out`, including its random episodes.
        steps: optimizer steps.
        batch_size: transitions per step.
        learning_rate: learning rate of Adam.
        conservative: weight of the conservative penalty.
        seed: random seed of weights and batches.

    """

    data: str
    steps: int = 20_000
    batch_size: int = 32
    learning_rate: float = 6.25e-5
    conservative: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that are out of range."""
        check_count("steps", self.steps, 1)
        check_count("batch_size", self.batch_size, 1)
        check_count("seed", self.seed, 0, 2**32 - 1)
        if not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate}: must lie between 0 and 1"
            )
        if not 0 <= self.conservative < math.inf:
            raise ValueError(
                f"conservative = {self.conservative}: must be 0 or more, and finite"
            )
