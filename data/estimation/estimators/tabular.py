"""The posterior mean of a tabular model, stationary or by stage.

Pessimism lowers rewards by β / √n(s, a) (Jin, Yang, Wang, 2021, *Is pessimism provably
efficient for offline RL?*), so that plans avoid what was tried seldom. The result is an
ordinary MDP, and can be a task that a language model learns from.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts
from sdm.data.estimation.estimator import Estimate, Progress, register_estimator
from sdm.data.estimation.rows import Rows, complete, normalised, posterior_of
from sdm.data.estimation.tables import estimate_tasks
from sdm.data.logs import Logs
from sdm.tasks.models import MDP


@register_estimator
@dataclass(frozen=True)
class Tabular:
    """An MDP with the posterior mean of each row: a plan for it ignores its errors.

    Attributes:
        by_stage: whether transitions and rewards depend on the stage.
        pessimism: how much rewards are lowered, times √n(s, a), in units of reward.

    """

    by_stage: bool = False
    pessimism: float = 0.0

    name: ClassVar[str] = "tabular"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        if not 0 <= self.pessimism < np.inf:
            raise ValueError(
                f"pessimism = {self.pessimism:g}: must be 0 or more, and finite"
            )

    def estimate(
        self,
        logs: Logs,
        config: EstimationConfig,
        *,
        held_out: np.ndarray,
        seed: int,
        progress: Progress,
    ) -> Estimate:
        """Return the model of each task; see `Estimator`."""

        def model(counts: Counts, worst: float) -> tuple[MDP, Rows, None]:
            rows = complete(
                counts, config, normalised(posterior_of(counts, config)), worst
            )
            mask = rows.admissible
            doubt = self.pessimism / np.sqrt(np.maximum(counts.visits, 1))
            seen = counts.decided & ~rows.unvisited
            made = MDP(
                counts.transition(rows.chance),
                jnp.asarray(rows.reward - np.where(seen, doubt, 0.0)),
                jnp.asarray(normalised(counts.initial)),
                config.discount,
                None if mask is None else jnp.asarray(mask),
            )
            return made, rows, None

        return estimate_tasks(
            logs, config, model, held_out, progress, by_stage=self.by_stage
        )
