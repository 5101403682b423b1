"""What logs say of each observation and action: transitions, rewards and first states.

States are those of `data.estimation.space`: the observations, the outcomes and the end.
Only the transitions that occurred are stored, since most pairs of states never do.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy import sparse

from sdm.data.estimation.space import (
    Decisions,
    Space,
    decisions_of,
    space_of,
    worst_return,
)
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.storage.memory import check_memory

BYTES = 200  # of a decision while a plan and its bounds are made, as measured


@dataclass(frozen=True)
class Evidence:
    """Counts of logs; all tasks count as one.

    Attributes:
        space: the states; the S observations are the first ones.
        decisions: the decisions.
        episodes: number of episodes, N.
        count: number of transitions from each pair, in rows s A + a, to each state.
        visits: number of observed transitions of each pair.
        reward: mean reward of each pair, without those that outcomes pay; 0 for pairs
            without rewards.
        initial: share of the episodes that start in each observation.
        worst: lowest return from any decision on.

    """

    space: Space
    decisions: Decisions
    episodes: int
    count: sparse.csr_array
    visits: Float[np.ndarray, "S A"]
    reward: Float[np.ndarray, "S A"]
    initial: Float[np.ndarray, " S"]
    worst: float

    @cached_property
    def rows(self) -> sparse.csr_array:
        """Relative frequencies of next states of each pair; zeros without visits."""
        return _divided(self.count, self.visits.ravel())

    @cached_property
    def pooled_count(self) -> sparse.csr_array:
        """Number of transitions from each observation, whatever the action."""
        states, actions = self.visits.shape
        adds = sparse.kron(sparse.eye_array(states), np.ones((1, actions)))
        return sparse.csr_array(adds.tocsr() @ self.count)

    @cached_property
    def pooled_rows(self) -> sparse.csr_array:
        """Relative frequencies of next states of each observation."""
        return _divided(self.pooled_count, self.visits.sum(1))

    @cached_property
    def pooled_reward(self) -> Float[np.ndarray, " S"]:
        """Mean reward of each observation."""
        total = (self.visits * self.reward).sum(1)
        return total / np.maximum(self.visits.sum(1), 1)

    @property
    def behavior(self) -> Float[np.ndarray, "S A"]:
        """Relative frequencies of actions; equal ones without visits."""
        total = self.visits.sum(1, keepdims=True)
        equal = np.full_like(self.visits, 1 / self.visits.shape[1])
        return np.where(total > 0, self.visits / np.maximum(total, 1), equal)

    def after(self, value: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S1"]:
        """Return the values of all states after a decision, from the observations'."""
        paid = self.space.outcomes / (self.space.discount or 1.0)
        return np.concatenate([value, paid, [0.0]])

    def returned(self, value: Float[np.ndarray, " S"]) -> float:
        """Return the expectation of a value of the first observation."""
        return float(self.initial @ value)


def evidence_of(
    logs: Logs, *, discount: float = 1.0, space: Space | None = None
) -> Evidence:
    """Return what logs say.

    Args:
        logs: the episodes.
        discount: factor per decision, in [0, 1].
        space: the states, if they are those of other logs, too.

    Raises:
        LogsError: if nothing is observed before a decision, or no transition is.
        MemoryLimitError: if the decisions do not fit in memory.

    """
    check_memory(
        logs.action.size * BYTES, f"a plan from {logs.episodes:,} logged episodes"
    )
    space = space_of(logs, discount=discount) if space is None else space
    made = decisions_of(logs, space)
    if (made.state == NOTHING).any():
        raise LogsError(
            "logs: nothing is observed before the first decision, so that a plan has "
            "nothing to depend on"
        )
    known = made.following != NOTHING
    if not known.any():
        raise LogsError("logs: no transition", "log longer episodes")
    states, actions = len(space.observations), len(space.actions)
    pair = made.state * actions + made.action
    ones = np.ones(int(known.sum()))
    shape = (states * actions, space.end + 1)
    count = sparse.csr_array((ones, (pair[known], made.following[known])), shape=shape)
    count.sum_duplicates()
    paid = np.bincount(pair, made.reward, minlength=shape[0])
    total = np.bincount(pair, minlength=shape[0])
    first = np.bincount(made.state[made.stage == 0], minlength=states)
    return Evidence(
        space=space,
        decisions=made,
        episodes=logs.episodes,
        count=count,
        visits=count.sum(1).reshape(states, actions),
        reward=(paid / np.maximum(total, 1)).reshape(states, actions),
        initial=first / first.sum(),
        worst=worst_return(logs, space.discount),
    )


def _divided(
    count: sparse.csr_array, total: Float[np.ndarray, " R"]
) -> sparse.csr_array:
    """Return the rows of counts, divided by the total of each."""
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(total, 1)) @ count)
