"""Bounds of one stage for depth-first search: α-vectors, and sawtooth points.

Both grow during the search. They keep a log, so that a belief compares only what is new
since it was last examined.
"""

import numpy as np
from jaxtyping import Float, Int

HUGE = 1e300  # a finite infinity: times zero, it is zero
NARROW = 8  # a point with at most 1/8 of the states is stored as a list
PROBES = 4  # states of a point that must be possible before all are compared
AT_ONCE = 1 << 18  # numbers compared in one array
FINE = 1e-100  # beliefs with a smaller probability than this make no point
NOTHING = 1e-14  # smallest improvement of an upper bound, relative to its size


class Rows:
    """Arrays with a common first axis that grow by doubling."""

    def __init__(self, **shapes: tuple[tuple[int, ...], type]) -> None:
        """Make empty arrays of these shapes per row and types."""
        self.count = 0
        self.arrays: dict[str, np.ndarray] = {
            name: np.zeros((16, *shape), kind) for name, (shape, kind) in shapes.items()
        }

    def append(self, **values: object) -> int:
        """Add a row and return its index."""
        for name, array in self.arrays.items():
            if self.count == len(array):
                self.arrays[name] = np.concatenate([array, np.zeros_like(array)])
            self.arrays[name][self.count] = values[name]
        self.count += 1
        return self.count - 1

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the rows of one array so far."""
        return self.arrays[name][: self.count]


class Vectors:
    """Lower bound: α-vectors, each the value of a plan.

    Attributes:
        rows: `value` of the plan in each state, its first `action`, and the index
            `after` of the plan of the next stage for each symbol.

    """

    def __init__(self, states: int, symbols: int) -> None:
        """Start without plans."""
        self.rows = Rows(
            value=((states,), float), action=((), int), after=((symbols,), int)
        )

    def best(
        self, joint: Float[np.ndarray, "O k"], states: Int[np.ndarray, " k"], since: int
    ) -> tuple[Float[np.ndarray, " O"], Int[np.ndarray, " O"]]:
        """Return the best of the plans from index `since` for unnormalised beliefs."""
        score = joint @ self.rows["value"][since:, states].T
        best = score.argmax(1)
        return score[np.arange(len(best)), best], best + since


class Points:
    """Upper bound: sawtooth interpolation of values at beliefs (Hauskrecht, 2000).

    Between beliefs p with bounds u, a belief b has the bound

        c·b - max_p (c·p - u) min_{s: p(s) > 0} b(s) / p(s)

    where c bounds the values at the corners of the simplex. Most points of a large
    model have few states and are stored as lists, the others as dense rows.

    Attributes:
        informed: the fast informed bound Q(s, a).
        corner: the bound c, its largest entries.

    """

    def __init__(self, informed: Float[np.ndarray, "S A"]) -> None:
        """Start with the informed bound only."""
        states = len(informed)
        self.informed, self.corner = informed, informed.max(1)
        self.narrow = states // NARROW
        self.wide = Rows(point=((states,), float), drop=((), float), size=((), int))
        self.lists = Rows(
            state=((self.narrow,), int),
            chance=((self.narrow,), float),
            drop=((), float),
            probe=((PROBES,), int),
        )
        self.logs: tuple[list[int], list[int]] = ([], [])

    @property
    def log(self) -> tuple[int, int]:
        """Number of changes so far of wide and of narrow points."""
        return len(self.logs[0]), len(self.logs[1])

    def improve(
        self,
        place: int | None,
        states: Int[np.ndarray, " k"],
        belief: Float[np.ndarray, " k"],
        upper: float,
    ) -> int | None:
        """Set the bound of a belief, at `place` if it has one, and return its place."""
        base = float(self.corner[states] @ belief)
        drop, count = base - upper, len(states)
        store = self.lists if count <= self.narrow else self.wide
        if drop <= NOTHING * (abs(base) + abs(upper)) or belief.min() < FINE:
            return place
        if place is not None:
            if drop <= store["drop"][place]:
                return place
            store["drop"][place] = drop
        elif store is self.wide:
            point = np.zeros(len(self.corner))
            point[states] = belief
            place = store.append(point=point, drop=drop, size=count)
        else:
            state, chance = np.zeros(self.narrow, int), np.zeros(self.narrow)
            state[:count], chance[:count] = states, belief
            some = np.linspace(0, count - 1, PROBES).astype(int)
            place = store.append(
                state=state, chance=chance, drop=drop, probe=states[some]
            )
        self.logs[int(store is self.lists)].append(place)
        return place

    def drops(
        self,
        joint: Float[np.ndarray, "O k"],
        states: Int[np.ndarray, " k"],
        since: tuple[int, int],
    ) -> Float[np.ndarray, " O"]:
        """Return by how much points changed since then lower c·b of beliefs."""
        most = np.zeros(len(joint))
        inverse = 1 / np.maximum(joint, 1 / HUGE)
        stores = (self.wide, self._wide_drops), (self.lists, self._list_drops)
        for (store, lower), log, first in zip(stores, self.logs, since, strict=True):
            if not (new := log[first:]):
                continue
            every = len(new) >= store.count
            chosen = np.arange(store.count) if every else np.array(new)
            lower(most, inverse, states, chosen)
        return most

    def _wide_drops(
        self,
        most: np.ndarray,
        inverse: np.ndarray,
        states: np.ndarray,
        chosen: np.ndarray,
    ) -> None:
        point = self.wide["point"][chosen][:, states]
        inside = np.count_nonzero(point, axis=1) == self.wide["size"][chosen]
        point, drop = point[inside], self.wide["drop"][chosen[inside]]
        step = max(1, AT_ONCE // inverse.size)
        for first in range(0, len(point), step):
            some = slice(first, first + step)
            ratio = (point[some, None, :] * inverse).max(-1)
            np.maximum(most, (drop[some, None] / ratio).max(0), out=most)

    def _list_drops(
        self,
        most: np.ndarray,
        inverse: np.ndarray,
        states: np.ndarray,
        chosen: np.ndarray,
    ) -> None:
        full = np.full((len(inverse), len(self.corner)), HUGE)
        full[:, states] = inverse
        possible = full < HUGE
        fits = np.ones((len(inverse), len(chosen)), bool)
        for probe in self.lists["probe"][chosen].T:
            fits &= possible[:, probe]
        row, index = np.nonzero(fits)
        index = chosen[index]
        state, chance, drop = (self.lists[x] for x in ("state", "chance", "drop"))
        step = max(1, AT_ONCE // self.narrow)
        for first in range(0, len(row), step):
            at, which = row[first : first + step], index[first : first + step]
            ratio = (chance[which] * full[at[:, None], state[which]]).max(1)
            np.maximum.at(most, at, drop[which] / ratio)
