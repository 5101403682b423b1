"""Groups of decisions with the same observation, or the same observation and action."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sdm.data.off_policy.sample import Sample


@dataclass(frozen=True)
class Cells:
    """The decisions of n episodes, grouped.

    Attributes:
        state: observation of each decision.
        action: action of each decision.
        states: number of observations.
        actions: number of actions.

    """

    state: Int[np.ndarray, " n"]
    action: Int[np.ndarray, " n"]
    states: int
    actions: int

    @cached_property
    def cell(self) -> Int[np.ndarray, " n"]:
        """Return the group of each decision's observation and action."""
        return self.table[self.state, self.action]

    @cached_property
    def table(self) -> Int[np.ndarray, "S A"]:
        """Return the group of each observation and action; -1 if there is none."""
        table = np.full((self.states, self.actions), -1)
        table[self.state, self.action] = 0
        table[table == 0] = np.arange((table == 0).sum())
        return table

    @property
    def count(self) -> int:
        """Return the number of groups."""
        return int(self.table.max()) + 1

    @cached_property
    def by_cell(self) -> sparse.csr_array:
        """Return the matrix [groups, n] that sums over the decisions of a group."""
        return indicator(self.cell, self.count)

    @cached_property
    def by_state(self) -> sparse.csr_array:
        """Return the matrix [S, n] that sums over decisions by observation."""
        return indicator(self.state, self.states)

    def chances(
        self, state: Int[np.ndarray, " m"], policy: Float[np.ndarray, "m A"]
    ) -> sparse.csr_array:
        """Return a policy's probabilities [m, groups] of the groups of observations."""
        cell = self.table[state]
        row, action = np.nonzero((cell >= 0) & (policy > 0))
        entries = (policy[row, action], (row, cell[row, action]))
        return sparse.csr_array(entries, shape=(len(state), self.count))


def indicator(group: Int[np.ndarray, " n"], groups: int) -> sparse.csr_array:
    """Return the matrix [groups, n] that sums over the members of each group."""
    entries = (np.ones(len(group)), (group, np.arange(len(group))))
    return sparse.csr_array(entries, shape=(groups, len(group)))


def averaged(
    matrix: sparse.csr_array,
    numbers: Float[np.ndarray, "n R"],
    weights: Float[np.ndarray, "n R"],
    default: Float[np.ndarray, "*m R"] | float,
) -> Float[np.ndarray, "m R"]:
    """Return weighted means of groups; the default where a group has no weight."""
    total = matrix @ weights
    filled = np.broadcast_to(default, total.shape).copy()
    return np.divide(matrix @ (weights * numbers), total, out=filled, where=total > 0)


def stage_cells(sample: Sample, t: int) -> tuple[Int[np.ndarray, " n"], Cells]:
    """Return the episodes with a decision at a stage, and its groups."""
    logs = sample.logs
    alive = np.flatnonzero(sample.acted[:, t])
    sizes = (len(logs.observations), len(logs.actions))
    return alive, Cells(logs.observation[alive, t], logs.action[alive, t], *sizes)
