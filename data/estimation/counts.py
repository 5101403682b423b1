"""Counts of the decisions of one task, and their Dirichlet posterior.

Row (s, a) has N possible next states: all S of them in order, or a list of those that
were seen after s and a in some task. With stages, every array has a leading axis T.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.space import Decisions, Space
from sdm.data.logs import NOTHING, LogsError
from sdm.storage.memory import check_memory
from sdm.tasks.transition_lists import sparse_transition
from sdm.tasks.transitions import Transition, dense

DENSE_BYTES = 1 << 26  # largest dense transition that replaces lists of next states


@dataclass(frozen=True)
class Counts:
    """Counts of one task.

    Attributes:
        space: the states.
        successors: index of each possible next state; None for all states in order.
        count: number of transitions to each of them.
        paid: number of rewards of each state and action.
        reward: mean reward; 0 without rewards.
        varies: whether the rewards of a state and action differ.
        lowest: the lowest reward of a decision.
        highest: the highest one.
        initial: number of episodes that start in each state.
        decided: states in which decisions are possible: neither outcomes nor the end.

    """

    space: Space
    successors: Int[np.ndarray, "S A N"] | None
    count: Float[np.ndarray, "*T S A N"]
    paid: Float[np.ndarray, "*T S A"]
    reward: Float[np.ndarray, "*T S A"]
    varies: Bool[np.ndarray, "*T S A"]
    lowest: float
    highest: float
    initial: Float[np.ndarray, " S"]

    @property
    def decided(self) -> Bool[np.ndarray, "S 1"]:
        """Return whether a state is an observation, rather than an outcome or end."""
        return np.arange(self.count.shape[-3])[:, None] < self.space.first_outcome

    @property
    def visits(self) -> Float[np.ndarray, "*T S A"]:
        """Return the number of observed transitions of each state and action."""
        return self.count.sum(-1)

    def place(self, state: int) -> Int[np.ndarray, "S A"]:
        """Return the position of a next state in each row; 0 where it is not listed."""
        if self.successors is None:
            return np.full(self.paid.shape[-2:], state)
        return (self.successors == state).argmax(-1)

    def transition(self, chance: Float[np.ndarray, "*B S A N"]) -> Transition:
        """Return probabilities of the possible next states as a transition.

        It is dense unless its size exceeds `DENSE_BYTES` and next states are listed.
        """
        if self.successors is None:
            return jnp.asarray(chance)
        lists = sparse_transition(self.successors, chance)
        rows = chance.size // chance.shape[-1]
        small = rows * chance.shape[-3] * chance.itemsize <= DENSE_BYTES
        return dense(lists) if small else lists


def count_tasks(
    decisions: Decisions,
    task: Int[np.ndarray, " N"],
    tasks: int,
    space: Space,
    config: EstimationConfig,
    *,
    stages: int | None = None,
) -> tuple[Counts, ...]:
    """Return the counts of each task.

    Args:
        decisions: the decisions of all tasks.
        task: the task of each episode.
        tasks: number of tasks.
        space: the states.
        config: the possible next states.
        stages: number of stages to count separately; None for one count of all.

    Raises:
        LogsError: if nothing is observed before the first decision, or a task has no
            transition.
        MemoryLimitError: if the counts do not fit in memory.

    """
    if (decisions.state == NOTHING).any():
        raise LogsError(
            "logs: nothing is observed before the first decision, so that states are "
            "hidden",
            "pass `--estimator hidden`",
        )
    lists = None if config.support == "all" else _lists(decisions, space)
    return tuple(
        _count(decisions, task[decisions.episode] == k, k, space, lists, stages)
        for k in range(tasks)
    )


def _lists(decisions: Decisions, space: Space) -> Int[np.ndarray, "S A N"]:
    """Return the next states that were seen in some task, ascending, and the end.

    Every list has the end, which unvisited rows and outcomes lead to; a list with fewer
    next states than the longest repeats the end.
    """
    states, actions = space.end + 1, len(space.actions)
    known = decisions.following != NOTHING
    row = decisions.state * actions + decisions.action
    every = np.arange(states * actions)
    pairs = np.unique(
        np.concatenate(
            [
                row[known] * states + decisions.following[known],
                every * states + space.end,
            ]
        )
    )
    row, following = np.divmod(pairs, states)
    first = np.searchsorted(row, every)
    place = np.arange(len(row)) - first[row]
    lists = np.full((states * actions, int(place.max()) + 1), space.end)
    lists[row, place] = following
    return lists.reshape(states, actions, -1)


def _count(
    decisions: Decisions,
    mine: Bool[np.ndarray, " D"],
    task: int,
    space: Space,
    lists: Int[np.ndarray, "S A N"] | None,
    stages: int | None,
) -> Counts:
    """Return the counts of one task, whose decisions are `mine`."""
    states, actions = space.end + 1, len(space.actions)
    lead = () if stages is None else (stages,)
    width = states if lists is None else lists.shape[-1]
    size = int(np.prod((*lead, states, actions, width))) * 8
    check_memory(2 * size, f"counts of {size // 8} transitions")
    count = np.zeros((*lead, states, actions, width))
    paid, total, square = (np.zeros((*lead, states, actions)) for _ in range(3))
    s, a = decisions.state[mine], decisions.action[mine]
    time = () if stages is None else (decisions.stage[mine],)
    following, reward = decisions.following[mine], decisions.reward[mine]
    known = following != NOTHING
    if not known.any():
        raise LogsError(f"logs: task {task} has no transition", "log longer episodes")
    at = following
    if lists is not None:
        at = (lists[s, a] == following[:, None]).argmax(-1)
    np.add.at(count, tuple(x[known] for x in (*time, s, a, at)), 1)
    np.add.at(paid, (*time, s, a), 1)
    np.add.at(total, (*time, s, a), reward)
    mean = total / np.maximum(paid, 1)
    np.add.at(square, (*time, s, a), (reward - mean[(*time, s, a)]) ** 2)
    starts = s[decisions.stage[mine] == 0]
    return Counts(
        space=space,
        successors=lists,
        count=count,
        paid=paid,
        reward=mean,
        varies=square > 1e-12 * np.maximum(1, mean**2) * np.maximum(paid, 1),
        lowest=float(reward.min()),
        highest=float(reward.max()),
        initial=np.bincount(starts, minlength=states).astype(float),
    )


def pseudo_counts(
    counts: Counts, config: EstimationConfig
) -> Float[np.ndarray, "S A N"]:
    """Return the parameters of the Dirichlet prior of each row of possible next states.

    The total of a row is `config.prior`, spread evenly: with all states possible, this
    is Perks' prior. The end is possible only if episodes lead to it directly.
    """
    if counts.successors is None:
        possible = np.ones(counts.count.shape[-3:], bool)
        states = np.arange(counts.count.shape[-1])
    else:
        states = counts.successors
        before = np.full((*states.shape[:-1], 1), NOTHING)
        possible = np.diff(np.concatenate([before, states], -1)) > 0
    if not counts.space.direct:
        possible = possible & (states != counts.space.end)
    total = possible.sum(-1, keepdims=True)
    return config.prior * possible / np.maximum(total, 1)
