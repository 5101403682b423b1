"""Beliefs at which models with mixed observability are backed up, stage by stage.

Sampled beliefs are those that the greedy actions of the lower and the upper bound reach
from the first beliefs, with priority to a large product of probability and gap. This
runs on the host: what is kept and merged depends on values.
"""

import numpy as np
from jaxtyping import Float, Int

from sdm.solvers_jax.momdp_moves import Moves

SAME_BELIEF = 1e-9  # beliefs with closer random projections are merged
COMPARED = 4  # candidates whose gap is computed, per belief that can be added


class Reached:
    """Distinct beliefs that a stage reaches, one per row, by visible value.

    Attributes:
        state: visible value.
        belief: belief over hidden values.
        chance: probability of reaching it.
        known: index among the points of that visible value; -1 if it is none.

    """

    def __init__(
        self,
        state: Int[np.ndarray, " R"],
        belief: Float[np.ndarray, "R Y"],
        chance: Float[np.ndarray, " R"],
        points: "Points",
    ) -> None:
        """Merge equal beliefs, and find those that are points already."""
        held = np.nonzero(np.arange(points.point.shape[1]) < points.filled[:, None])
        every = np.concatenate([held[0], state])
        rows = np.concatenate([points.point[held], belief])
        number = np.concatenate([held[1], np.full(len(state), -1)])
        mass = np.concatenate([np.zeros(len(held[0])), chance])
        mark = rows @ np.cos(np.arange(1, rows.shape[1] + 1) ** 2)
        order = np.lexsort((mark, every))
        every, mark = every[order], mark[order]
        new = np.diff(mark, prepend=-np.inf) > SAME_BELIEF
        head = np.flatnonzero(new | (np.diff(every, prepend=-1) > 0))
        self.state, self.belief = every[head], rows[order[head]]
        if len(head):
            self.chance = np.add.reduceat(mass[order], head)
            self.known = np.maximum.reduceat(number[order], head)
        else:
            self.chance, self.known = np.zeros(0), np.zeros(0, int)


class Points:
    """Beliefs of one stage; the first `filled` of each visible value are valid.

    The others are copies of a valid one, which have no effect.

    Attributes:
        point: the beliefs [S, N, Y].
        reach: probability of reaching them [S, N].
        filled: number of valid beliefs [S].

    """

    def __init__(
        self,
        point: Float[np.ndarray, "S N Y"],
        reach: Float[np.ndarray, "S N"],
        filled: Int[np.ndarray, " S"],
    ) -> None:
        """Keep the arrays."""
        self.point = point
        self.reach = reach
        self.filled = filled

    @classmethod
    def none(cls, states: int, hidden: int, kind: np.dtype) -> "Points":
        """Return points of equal chances that are not reached."""
        point = np.full((states, 1, hidden), 1 / hidden, kind)
        return cls(point, np.zeros((states, 1)), np.zeros(states, int))

    def grow(self, limit: int) -> None:
        """Make room for `limit` beliefs of each visible value."""
        more = limit - self.point.shape[1]
        if more > 0:
            self.point = np.concatenate(
                [self.point, np.repeat(self.point[:, :1], more, axis=1)], axis=1
            )
            self.reach = np.pad(self.reach, ((0, 0), (0, more)))

    def add(self, found: Reached, priority: Float[np.ndarray, " R"]) -> int:
        """Update probabilities, and add the beliefs of highest priority that fit.

        Returns:
            The number of beliefs that were added.

        """
        old = found.known >= 0
        place = (found.state[old], found.known[old])
        self.reach[place] = np.maximum(self.reach[place], found.chance[old])
        fresh = np.flatnonzero(~old & (priority > 0))
        fresh, rank = ranked(found.state, priority, fresh)
        place_of = self.filled[found.state[fresh]] + rank
        fits = place_of < self.point.shape[1]
        fresh, place_of = fresh[fits], place_of[fits]
        state = found.state[fresh]
        self.point[state, place_of] = found.belief[fresh]
        self.reach[state, place_of] = found.chance[fresh]
        self.filled += np.bincount(state, minlength=len(self.filled))
        empty = np.arange(self.point.shape[1]) >= self.filled[:, None]
        self.point = np.where(empty[..., None], self.point[:, :1], self.point)
        return len(fresh)


def ranked(
    state: Int[np.ndarray, " R"],
    priority: Float[np.ndarray, " R"],
    chosen: Int[np.ndarray, " C"],
) -> tuple[Int[np.ndarray, " C"], Int[np.ndarray, " C"]]:
    """Sort chosen rows by visible value and falling priority; return their ranks."""
    order = chosen[np.lexsort((-priority[chosen], state[chosen]))]
    sorted_state = state[order]
    first = np.searchsorted(sorted_state, sorted_state)
    return order, np.arange(len(order)) - first


def reached(
    model: Moves, points: Points, actions: tuple[Int[np.ndarray, "S N"], ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return visible values, beliefs and probabilities that actions lead to.

    Args:
        model: lists of moves, with arrays of NumPy.
        points: beliefs before the actions.
        actions: action at each belief, once per policy.

    """
    parts = []
    live = np.nonzero(points.reach > 0)
    for choice in actions:
        taken = model.lists[live[0], choice[live]]  # [n, D]
        parent, column = np.nonzero(taken < len(model.origin) - 1)
        move = taken[parent, column]
        belief = points.point[live][parent]
        chance = np.asarray(model.chance)[move]
        if model.constant:
            joint = belief * chance
        else:
            joint = np.einsum("ry,ryz->rz", belief, chance)
        mass = joint.sum(-1)
        some = mass > 0
        rows = joint[some] / mass[some][:, None]
        weight = points.reach[live][parent[some]] * mass[some]
        parts.append((np.asarray(model.target)[move[some]], rows, weight))
    state, rows, weight = (np.concatenate(x) for x in zip(*parts, strict=True))
    return state, rows, weight


def table(
    found: Reached, states: int, limit: int
) -> tuple[Float[np.ndarray, "S C Y"], tuple[np.ndarray, ...]]:
    """Return the most probable new beliefs as a table, and their rows and places.

    Args:
        found: what a stage reaches.
        states: number of visible values S.
        limit: beliefs that can be added to each of them.

    """
    rows, rank = ranked(found.state, found.chance, np.flatnonzero(found.known < 0))
    kept = rank < COMPARED * limit
    rows, rank = rows[kept], rank[kept]
    hidden = found.belief.shape[1]
    # One shape for all stages of a round, to compile once.
    shape = (states, COMPARED * limit, hidden)
    shown = np.full(shape, 1 / hidden, found.belief.dtype)
    shown[found.state[rows], rank] = found.belief[rows]
    return shown, (rows, found.state[rows], rank)
