r"""Solve models with mixed observability, with certified bounds on the optimal value.

With x visible and y hidden, the value of a visible value and an unnormalised belief w
over hidden values is (Ong, Png, Hsu, Lee, 2010)

    V_t(x,w) = max_a [ Σ_y w_y r(x,y,a) + γ Σ_{x',o} V_{t+1}(x', w P(x',o,·|x,·,a)) ]

and V_t(x, ·) is convex. **Lower bound**: α-vectors over hidden values, for each stage
and visible value, from backups at sampled beliefs (Pineau, Gordon, Thrun, 2003) and at
the corners of the belief simplex. The policy that follows the best α-vector attains at
least its value. **Upper bound**: values at the same beliefs and at the corners, with
sawtooth interpolation between them, limited by the fast informed bound (Hauskrecht,
2000). If the hidden part never changes, these limits are the values with full
information and exact at the corners.

Beliefs are those of `momdp_points`. The number of beliefs doubles from round to round,
until the bounds of every task are close enough.

Selections (of an α-vector, of a sawtooth point) use single precision; the selected
entry is evaluated in the precision of the models. The bounds are therefore always valid
and only slightly wider.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdm.solvers_jax.momdp_backup import Stage, after_the_last, backup, gap_at
from sdm.solvers_jax.momdp_moves import Moves
from sdm.solvers_jax.momdp_points import Points, Reached, reached, table


class Search:
    """Beliefs and bounds of every stage of one large model, refined round by round."""

    def __init__(
        self,
        model: Moves,
        root: Float[np.ndarray, "S R Y"],
        mass: Float[np.ndarray, "S R"],
    ) -> None:
        """Start with the first beliefs of each visible value, and their probability."""
        self.model = model
        self.host: Moves = jax.tree.map(np.asarray, model)
        self.horizon = len(self.host.informed) - 1
        states, _, hidden = self.host.reward.shape
        filled = np.full(states, root.shape[1])
        self.points = [Points(root, mass.copy(), filled)]
        kind = self.host.reward.dtype
        later = range(self.horizon - 1)
        self.points += [Points.none(states, hidden, kind) for _ in later]
        self.stages: list[Stage] = []
        self.swept: list[np.ndarray] = []  # numbers of beliefs in `stages`

    def _actions(self, t: int) -> tuple[np.ndarray, ...]:
        """Return actions at the beliefs of a stage: greedy for either bound."""
        here = self.points[t]
        score = np.einsum("sny,say->sna", here.point, self.host.informed[t])
        guess = (score + self.host.barred[:, None]).argmax(-1)
        if not self.stages:
            return (guess,)
        stage, count = self.stages[t], guess.shape[1]
        width = stage.hopeful.shape[1]
        short = ((0, 0), (0, max(0, count - width)))
        found = [
            np.pad(np.asarray(a)[:, :width], short)[:, :count] for a in stage[2:5:2]
        ]
        backed = np.arange(count) < np.minimum(self.swept[t], width)[:, None]
        return tuple(np.where(backed, a, guess) for a in found)

    def expand(self, limit: int) -> int:
        """Add beliefs, up to `limit` at each stage and visible value.

        Returns:
            The number of beliefs that were added.

        """
        added = 0
        for t, (here, there) in enumerate(pairwise(self.points)):
            there.grow(limit)
            found = Reached(*reached(self.host, here, self._actions(t)), there)
            priority = found.chance
            if self.stages:
                shown, (rows, *place) = table(found, len(there.point), limit)
                now, stage = jnp.asarray(t + 1), self.stages[t + 1]
                gap = np.asarray(gap_at(self.model, now, jnp.asarray(shown), stage))
                priority = np.zeros(len(found.chance))
                priority[rows] = found.chance[rows] * np.maximum(gap[tuple(place)], 0)
            added += there.add(found, priority)
        return added

    def sweep(self) -> None:
        """Back up every stage, the last first."""
        size = max([1, *(int(p.filled.max()) for p in self.points[1:])])
        size = 1 << (size - 1).bit_length()  # few shapes, and so few compilations
        after = after_the_last(self.model, size)
        later: list[Stage] = []
        for t in reversed(range(1, self.horizon)):
            self.points[t].grow(size)
            point = jnp.asarray(self.points[t].point[:, :size])
            after = backup(self.model, jnp.asarray(t), point, after)
            later.insert(0, after)
        root = self.points[0].point
        roots, parts = root.shape[1], list[Stage]()
        most = min(size, roots)
        for first in range(0, roots, most):  # equal shapes, to compile once
            chosen = np.minimum(first + np.arange(most), roots - 1)
            here = jnp.asarray(root[:, chosen])
            parts.append(backup(self.model, jnp.asarray(0), here, after))
        # Keep the plans of the beliefs: all parts have those of the corners.
        joined = {
            name: jnp.concatenate([getattr(x, name)[:, :most] for x in parts], axis=1)
            for name in Stage._fields
            if name != "corner"
        }
        whole = {name: x[:, :roots] for name, x in joined.items()}
        self.stages = [parts[0]._replace(**whole), *later]
        self.swept = [p.filled.copy() for p in self.points]

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds at the first beliefs [S, R]."""
        first = self.stages[0]
        lower = np.asarray(first.vector) * self.points[0].point
        return lower.sum(-1), np.asarray(first.upper)

    def finish(self, states: np.ndarray) -> None:
        """Add no more beliefs for these visible values, whose tasks have converged."""
        for points in self.points:
            points.reach[states] = 0


def widened(
    model: Moves, lower: np.ndarray, upper: np.ndarray, *, shared: bool
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Return bounds that include rounding errors; see `Certificate.rounding`.

    T stages sum D moves of Y or Y² terms, with the error of one unit in the last place
    each. With rewards r, the terms sum to at most T max |r|, and to at most
    2 T max r⁺ - v for a value v.
    """
    allowed = np.where(np.isfinite(model.barred)[..., None], model.reward, 0)
    allowed = allowed.reshape(1 if shared else len(lower), -1)
    horizon, hidden = len(model.informed) - 1, model.reward.shape[-1]
    unit = float(np.finfo(model.reward.dtype).eps)
    unit *= horizon * (model.lists.shape[-1] + 2 * hidden)
    largest = horizon * np.abs(allowed).max(-1)
    gain = 2 * horizon * np.maximum(allowed.max(-1), 0)
    low, high = (unit * np.minimum(largest, gain + np.abs(x)) for x in (lower, upper))
    return lower - low, upper + high
