"""Rewards R(a, s, s', o) of a file in Cassandra's format, and their expectation.

The array A × S × S × O is never allocated. Entries are kept by pattern: which of the
four indices are given and which are `*`. The reward of a cell is that of the last entry
among the (at most 16) entries that match it, one for each pattern. Only cells of
positive probability are looked up; symbols are looked up only for transitions that an
entry with a symbol matches.
"""

from collections import defaultdict
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.tasks.cassandra_tables import Log, member
from sdm.tasks.triplets import Triplets

Pattern = tuple[bool, bool, bool, bool]  # which indices are given
CELLS = 1 << 20  # cells looked up at once


class RewardLog:
    """Rewards in a file, in the order of its entries."""

    def __init__(self, actions: int, states: int, symbols: int) -> None:
        """Make a log without entries; `symbols` is 1 for an MDP."""
        self.shape = (actions, states, states, symbols)
        self._logs: dict[Pattern, Log] = defaultdict(Log)
        self._order = 0

    def set_cells(self, where: tuple[slice, ...], value: float) -> None:
        """Set a reward; `where` has an index or `*` for a, s, s' and o."""
        self._order += 1
        pattern, code = self._place(where)
        self._logs[pattern].append(code, self._order, value)

    def clear(self, where: tuple[slice, ...]) -> None:
        """Set all rewards with the first indices `where` to 0."""
        self.set_cells((*where, *[slice(None)] * (4 - len(where))), 0.0)

    def add_row(
        self, where: tuple[slice, ...], values: Float[np.ndarray, " N"]
    ) -> None:
        """Set rewards over the index after those in `where`, where they are not 0.

        Call `clear` before, for all rows of an entry.
        """
        (columns,) = np.nonzero(values)
        if not len(columns):
            return
        self._order += 1
        after = [slice(None)] * (3 - len(where))
        pattern, code = self._place((*where, slice(0, 1), *after))
        step = int(np.prod(self.shape[len(where) + 1 :]))
        self._logs[pattern].extend(code + columns * step, self._order, values[columns])

    def _place(self, where: tuple[slice, ...]) -> tuple[Pattern, int]:
        a, s, n, o = (index != slice(None) for index in where)
        code = 0
        for index, size in zip(where, self.shape, strict=True):
            code = code * size + (index.start or 0)
        return (a, s, n, o), code

    def expected(
        self, triplets: Triplets, observation: Float[np.ndarray, "A S O"] | None
    ) -> Float[np.ndarray, "S A"]:
        """Return r(s, a) = Σ_s' P(s'|s,a) Σ_o Z(o|s',a) R(a, s, s', o).

        A reward that is the same in all cells of positive probability keeps its exact
        value, without a sum.

        Args:
            triplets: the transitions; every row has some.
            observation: Z(o | s', a); None for an MDP.

        """
        a, s, n, p = triplets
        some = np.zeros_like(a)  # any symbol
        order, value = self._lookup(self._patterns(symbol=False), (a, s, n, some))
        low, high = value.copy(), value.copy()
        if observation is not None:
            matched = self._matched(triplets)
            shown = observation.sum(-1)[a, n]
            mean = value * shown
            size = max(1, CELLS // observation.shape[-1])
            for first in range(0, len(matched), size):
                at = matched[first : first + size]
                low[at], high[at], mean[at] = self._over_symbols(
                    (a[at], s[at], n[at]), order[at], value[at], observation
                )
        else:
            mean = value
        row = a * self.shape[1] + s
        total = np.bincount(row, p * mean, self.shape[0] * self.shape[1])
        starts = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
        least = np.minimum.reduceat(low, starts)
        same = least == np.maximum.reduceat(high, starts)
        total[row[starts]] = np.where(same, least, total[row[starts]])
        return total.reshape(self.shape[:2]).T

    def _over_symbols(
        self,
        where: tuple[np.ndarray, np.ndarray, np.ndarray],
        order: Int[np.ndarray, " N"],
        value: Float[np.ndarray, " N"],
        observation: Float[np.ndarray, "A S O"],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the least, the largest and the mean reward of transitions."""
        a, s, n = (x[:, None] for x in where)
        shown = observation[where[0], where[2]]
        o = np.arange(observation.shape[-1])[None]
        each = np.broadcast_arrays(a, s, n, o)
        latest, paid = self._lookup(
            self._patterns(symbol=True), tuple(x.ravel() for x in each)
        )
        latest, paid = latest.reshape(shown.shape), paid.reshape(shown.shape)
        paid = np.where(latest > order[:, None], paid, value[:, None])
        possible = shown > 0
        least = np.where(possible, paid, np.inf).min(-1)
        most = np.where(possible, paid, -np.inf).max(-1)
        return least, most, (shown * paid).sum(-1)

    def _patterns(self, *, symbol: bool) -> list[Pattern]:
        return [pattern for pattern in self._logs if pattern[3] == symbol]

    @cached_property
    def _sorted(self) -> dict[Pattern, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {pattern: log.last() for pattern, log in self._logs.items()}

    def _code(
        self, pattern: Pattern, where: tuple[np.ndarray, ...]
    ) -> Int[np.ndarray, " N"]:
        """Return the codes of cells, with 0 for indices that are not given."""
        code = np.zeros(len(where[0]), np.int64)
        for index, given, size in zip(where, pattern, self.shape, strict=True):
            code *= size
            if given:
                code += index
        return code

    def _lookup(
        self, patterns: list[Pattern], where: tuple[np.ndarray, ...]
    ) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Return the order and value of the last entry for cells; 0 without one."""
        order = np.zeros(len(where[0]), np.int64)
        value = np.zeros(order.shape)
        for pattern in patterns:
            known, orders, values = self._sorted[pattern]
            code = self._code(pattern, where)
            at = np.minimum(np.searchsorted(known, code), len(known) - 1)
            later = (known[at] == code) & (orders[at] > order)
            order = np.where(later, orders[at], order)
            value = np.where(later, values[at], value)
        return order, value

    def _matched(self, triplets: Triplets) -> Int[np.ndarray, " M"]:
        """Return the transitions that an entry with a symbol matches."""
        found: Bool[np.ndarray, " N"] = np.zeros(len(triplets.action), bool)
        a, s, n, _ = triplets
        where = (a, s, n, np.zeros_like(a))
        for pattern in self._patterns(symbol=True):
            known = self._sorted[pattern][0]
            known = np.unique(known // self.shape[3] * self.shape[3])
            found |= member(self._code(pattern, where), known)
        return np.flatnonzero(found)
