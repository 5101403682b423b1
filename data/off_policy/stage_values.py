r"""Action values fitted to logs, stage by stage (fitted Q-evaluation).

For a table, the regression of fitted Q-evaluation (Le, Voloshin, Yue 2019) is a mean
over the decisions with the same stage t, observation s and action a:

    Q_t(s, a) = mean of r_it + γ V_{t+1}(h_i),   V_t(h_i) = Σ_a π(a | h_i) Q_t(s_it, a)

with V = 0 after an episode. For a policy without memory, this is its value in the model
that the counts of each stage estimate. For a policy with memory, Q_t(s, a) averages
over the logged histories.

Where the logs lack (t, s, a), the estimate takes the mean of the actions that they have
at (t, s): as if the policy acted like the behavior policy once. The bounds take the
smallest and largest possible return to go.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sdm.data.off_policy.cells import Cells, averaged, indicator, stage_cells
from sdm.data.off_policy.estimator import Diagnosis
from sdm.data.off_policy.sample import Sample


@dataclass(frozen=True)
class Stage:
    """The decisions of one stage.

    Attributes:
        t: the stage.
        alive: episodes with a decision.
        cells: their groups.
        chances: the policy's probability of each group at each decision.
        lacking: the policy's probability of actions without a group.

    """

    t: int
    alive: Int[np.ndarray, " n"]
    cells: Cells
    chances: sparse.csr_array
    lacking: Float[np.ndarray, " n"]


# Returns the value of unsupported actions from their mean [n R] over others.
Fill = Callable[[Stage, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class StageValues:
    """Fitted values of one weighting of the episodes along the logs.

    Attributes:
        action_value: Q of each logged decision; 0 after the end.
        value: V before each decision; 0 after the end.
        fill: the value of actions that the logs lack at this stage; 0 after the end.

    """

    action_value: Float[np.ndarray, "N T"]
    value: Float[np.ndarray, "N T"]
    fill: Float[np.ndarray, "N T"]


class FittedStages:
    """The groups of every stage, for repeated fits to the same sample."""

    def __init__(self, sample: Sample) -> None:
        """Group the decisions of every stage."""
        self.sample = sample
        self.stages = [self._stage(t) for t in range(sample.logs.horizon)]

    def _stage(self, t: int) -> Stage:
        alive, cells = stage_cells(self.sample, t)
        policy = self.sample.policy[alive, t]
        chances = cells.chances(cells.state, policy)
        lacking = np.where(cells.table[cells.state] < 0, policy, 0.0).sum(-1)
        return Stage(t, alive, cells, chances, lacking)

    @cached_property
    def complete(self) -> bool:
        """Return whether the logs have every action of the policy at its stage."""
        return not any((stage.lacking > 0).any() for stage in self.stages)

    def first_values(
        self, weights: Float[np.ndarray, "N R"], fill: Fill
    ) -> Float[np.ndarray, "N R"]:
        """Return V_0 of every episode for each weighting."""
        value = np.zeros_like(weights)
        for stage in reversed(self.stages):
            _, value, _ = self._backup(stage, value, weights, fill)
        return value

    def along(self, weights: Float[np.ndarray, " N"], fill: Fill) -> StageValues:
        """Return the values of one weighting along the logs; weights may be 0."""
        found = StageValues(*(np.zeros(self.sample.acted.shape) for _ in range(3)))
        value = np.zeros((len(weights), 1))
        for stage in reversed(self.stages):
            at = (stage.alive, stage.t)
            q, value, filled = self._backup(stage, value, weights[:, None], fill)
            found.action_value[at] = q[stage.cells.cell, 0]
            found.value[at] = value[stage.alive, 0]
            found.fill[at] = filled[:, 0]
        return found

    def _backup(
        self,
        stage: Stage,
        after: Float[np.ndarray, "N R"],
        weights: Float[np.ndarray, "N R"],
        fill: Fill,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Q of each group, V of every episode, and the fill at each decision."""
        cells, used = stage.cells, weights[stage.alive]
        paid = self.sample.logs.reward[stage.alive, stage.t, None]
        target = paid + self.sample.discount * after[stage.alive]
        state, _ = np.nonzero(cells.table >= 0)
        by_state = indicator(state, cells.states)
        size, paid = cells.by_cell @ used, cells.by_cell @ (used * target)
        q = np.divide(paid, size, out=np.zeros_like(paid), where=size > 0)
        every = size.sum(0)
        overall = paid.sum(0) / np.where(every > 0, every, 1)
        near = averaged(by_state, q, size, overall)
        # Groups whose episodes have no weight are valued like those that are missing.
        q = np.where(size > 0, q, near[state])
        filled = fill(stage, near[cells.state])
        value = np.zeros_like(after)
        value[stage.alive] = stage.chances @ q + stage.lacking[:, None] * filled
        return q, value, filled

    def diagnose(self) -> Diagnosis:
        """Return the effective sample size, and the probability without data.

        The fit weights each decision of a stage by the policy's probability of its
        group, divided by the group's size (marginalised importance sampling: Xie, Ma,
        Wang 2019); the size is (Σ w)² / Σ w² at the stage where it is smallest.
        """
        reached = np.full(self.sample.logs.episodes, 1 / self.sample.logs.episodes)
        sizes, lost = [], 0.0
        for stage in self.stages:
            now = reached[stage.alive]
            lost += float(now @ stage.lacking)
            each = stage.cells.by_cell.sum(1)
            weight = ((stage.chances.T @ now) / each)[stage.cells.cell]
            # Episodes that have ended still count: nothing more happens in them.
            others = np.setdiff1d(np.arange(len(reached)), stage.alive)
            reached = reached.copy()
            reached[stage.alive] = weight
            square = (weight**2).sum() + (reached[others] ** 2).sum()
            mass = weight.sum() + reached[others].sum()
            sizes.append(float(mass**2 / square) if square > 0 else 0.0)
        return Diagnosis(min(sizes), min(1.0, lost))


def by_mean(stage: Stage, mean: np.ndarray) -> np.ndarray:
    """Value unsupported actions like the mean of supported ones."""
    return mean
