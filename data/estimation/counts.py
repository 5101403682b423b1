"""Counts of the decisions of one task, and their Dirichlet posterior.

Row (s, a) has N possible next states: all S of them in order, or a list of those that
were seen after s and a in some task. With stages, every array has a leading axis T.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.space import Decisions, Space, decision_blocks
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.storage.memory import check_memory
from sdm.tasks.transition_lists import sparse_transition
from sdm.tasks.transitions import Transition, dense

DENSE_BYTES = 1 << 26  # largest dense transition that replaces lists of next states
EQUAL = 1e-6  # relative difference of rewards that are equal but for rounding


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
    logs: Logs,
    space: Space,
    config: EstimationConfig,
    *,
    stages: int | None = None,
    episodes: Bool[np.ndarray, " E"] | None = None,
) -> tuple[Counts, ...]:
    """Return the counts of each task.

    Args:
        logs: the episodes of all tasks.
        space: the states.
        config: the possible next states.
        stages: number of stages to count separately; None for one count of all.
        episodes: which episodes count; None for all.

    Raises:
        LogsError: if nothing is observed before the first decision, or a task has no
            transition.
        MemoryLimitError: if the counts do not fit in memory.

    """
    lists = None
    if config.support != "all":
        lists = _lists(logs, space, episodes)
    found = tally(logs, space, lists, stages=stages, episodes=episodes)
    for task, total in enumerate(found.count.sum(tuple(range(1, found.count.ndim)))):
        if not total:
            raise LogsError(
                f"logs: task {task} has no transition", "log longer episodes"
            )
    mean = found.total / np.maximum(found.paid, 1)
    spread = found.highest - found.lowest  # -inf without rewards
    return tuple(
        Counts(
            space=space,
            successors=lists,
            count=found.count[k],
            paid=found.paid[k],
            reward=mean[k],
            varies=spread[k] > EQUAL * np.maximum(1, np.abs(mean[k])),
            lowest=float(found.lowest[k].min()),
            highest=float(found.highest[k].max()),
            initial=found.initial[k],
        )
        for k in range(len(mean))
    )


@dataclass(frozen=True)
class Tally:
    """Sums over the decisions of each of K tasks.

    Attributes:
        count: number of transitions to each possible next state.
        unlisted: number of transitions to others.
        paid: number of rewards.
        total: their sum.
        lowest: the lowest reward, inf without rewards.
        highest: the highest one, -inf without rewards.
        initial: number of episodes that start in each state.

    """

    count: Float[np.ndarray, "K *T S A N"]
    unlisted: int
    paid: Float[np.ndarray, "K *T S A"]
    total: Float[np.ndarray, "K *T S A"]
    lowest: Float[np.ndarray, "K *T S A"]
    highest: Float[np.ndarray, "K *T S A"]
    initial: Float[np.ndarray, "K S"]


def tally(
    logs: Logs,
    space: Space,
    lists: Int[np.ndarray, "S A N"] | None,
    *,
    stages: int | None,
    episodes: Bool[np.ndarray, " E"] | None = None,
) -> Tally:
    """Return sums over the decisions of some episodes; see `count_tasks`."""
    states, actions, tasks = space.end + 1, len(space.actions), len(logs.tasks)
    lead = (tasks,) if stages is None else (tasks, stages)
    width = states if lists is None else lists.shape[-1]
    shape = (*lead, states, actions)
    check_memory(
        2 * 8 * math.prod((*shape, width)),
        f"counts of {math.prod((*shape, width))} transitions",
    )
    count, unlisted = np.zeros((*shape, width)), 0
    paid, total = np.zeros(shape), np.zeros(shape)
    lowest, highest = np.full(shape, np.inf), np.full(shape, -np.inf)
    initial = np.zeros((tasks, states))
    for task, decisions in _blocks(logs, space, episodes):
        time = () if stages is None else (decisions.stage,)
        pair = (task, *time, decisions.state, decisions.action)
        np.add.at(paid, pair, 1)
        np.add.at(total, pair, decisions.reward)
        np.minimum.at(lowest, pair, decisions.reward)
        np.maximum.at(highest, pair, decisions.reward)
        known = decisions.following != NOTHING
        at = decisions.following
        if lists is not None:
            listed = lists[decisions.state, decisions.action] == at[:, None]
            unlisted += int((known & ~listed.any(-1)).sum())
            known, at = known & listed.any(-1), listed.argmax(-1)
        np.add.at(count, tuple(x[known] for x in (*pair, at)), 1)
        first = decisions.stage == 0
        np.add.at(initial, (task[first], decisions.state[first]), 1)
    return Tally(count, unlisted, paid, total, lowest, highest, initial)


def _blocks(
    logs: Logs, space: Space, episodes: Bool[np.ndarray, " E"] | None
) -> Iterator[tuple[Int[np.ndarray, " D"], Decisions]]:
    """Yield the decisions of some episodes at a time, and the task of each decision."""
    for start, found in decision_blocks(logs, space):
        if (found.state == NOTHING).any():
            raise LogsError(
                "logs: nothing is observed before the first decision, so that states "
                "are hidden",
                "pass `--estimator hidden`",
            )
        if episodes is not None:
            kept = episodes[start + found.episode]
            found = Decisions(*(x[kept] for x in vars(found).values()))
        yield logs.task[start + found.episode], found


def _lists(
    logs: Logs, space: Space, episodes: Bool[np.ndarray, " E"] | None
) -> Int[np.ndarray, "S A N"]:
    """Return the next states that were seen in some task, ascending, and the end.

    Every list has the end, which unvisited rows and outcomes lead to; a list with fewer
    next states than the longest repeats the end.
    """
    states, actions = space.end + 1, len(space.actions)
    every = np.arange(states * actions)
    pairs = every * states + space.end
    for _, decisions in _blocks(logs, space, episodes):
        known = decisions.following != NOTHING
        row = decisions.state[known] * actions + decisions.action[known]
        pairs = np.union1d(pairs, row * states + decisions.following[known])
    row, following = np.divmod(pairs, states)
    first = np.searchsorted(row, every)
    place = np.arange(len(row)) - first[row]
    lists = np.full((states * actions, int(place.max()) + 1), space.end)
    lists[row, place] = following
    return lists.reshape(states, actions, -1)


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
