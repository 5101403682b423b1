"""Solve models with mixed observability, with certified bounds on the optimal value.

`lower` is the value of the policy that is returned, `upper` bounds the value of every
policy; beliefs are added until the bounds are close enough. See `momdp_search` for the
method and its sources.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.solvers_jax.belief_solution import shaped
from sdm.solvers_jax.certificate import close
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.momdp_moves import Moves, moves_of
from sdm.solvers_jax.momdp_search import Search, widened
from sdm.storage.checks import check_tolerance
from sdm.tasks.host_checks import check_beliefs, check_indices, check_stage
from sdm.tasks.models import check_count
from sdm.tasks.momdp import MOMDP, first_beliefs, some_tasks

COARSEST = 4  # beliefs per stage and visible value in the first round
GROWTH = 4  # factor of the number of beliefs per round: each number is compiled
TOGETHER = 4096  # visible values of the tasks that are solved together


class MOMDPSolution(eqx.Module):
    """A policy for every task, with certified bounds on the optimal value.

    If tasks share their dynamics, they share `vector` and `choice`, which then have no
    batch axes.

    Attributes:
        value: the same as `lower`.
        lower: certified lower bound on the policy's expected discounted return, and so
            on the optimal value.
        upper: certified upper bound on the optimal value.
        converged: whether the bounds are close enough.
        vector: α-vectors of stages 1 to T - 1, in units of reward.
        choice: the first action of each plan.
        first_vector: α-vectors of stage 0, one for each first symbol.
        first_choice: the first action of each of these plans.

    """

    value: Float[Array, "*B"]
    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    converged: Bool[Array, "*B"]
    vector: Float[Array, "... U X V Y"]
    choice: Int[Array, "... U X V"]
    first_vector: Float[Array, "*B X I Y"]
    first_choice: Int[Array, "*B X I"]

    def action(
        self, t: int | Int[Array, ""], x: tuple[Int[Array, "*B N"], Array]
    ) -> Int[Array, "*B N"]:
        """Return the actions at stage `t` for N visible values and beliefs.

        Args:
            t: the stage.
            x: visible values [*B, N], and beliefs over hidden values [*B, N, Y].

        Raises:
            ValueError: if `t` is not a stage, a visible value is out of range, an entry
                of the beliefs is no probability, or shapes do not agree; unless JAX
                traces it.

        """
        visible, belief = x
        horizon, hidden = self.vector.shape[-4] + 1, self.vector.shape[-1]
        check_stage(t, horizon)
        check_indices("x[0]", visible, self.vector.shape[-3], "visible values")
        if np.shape(belief) != (*np.shape(visible), hidden):
            raise ValueError(
                f"x has shapes {np.shape(visible)} and {np.shape(belief)}: must be "
                f"[*B, N] and [*B, N, Y] with Y = {hidden}"
            )
        check_beliefs("x[1]", belief)
        return self._action(jnp.asarray(t), jnp.asarray(visible), jnp.asarray(belief))

    @eqx.filter_jit
    def _action(self, t: Array, visible: Array, belief: Array) -> Int[Array, "*B N"]:
        def best(vector: Array, choice: Array, state: Array, weight: Array) -> Array:
            score = jnp.einsum("nvy,ny->nv", vector[state], weight)
            at = score.argmax(-1, keepdims=True)
            return jnp.take_along_axis(choice[state], at, axis=-1)[:, 0]

        batch, before = self.value.shape, jnp.maximum(t - 1, 0)

        def flat(x: Array) -> Array:
            return x.reshape(-1, *x.shape[len(batch) :])

        own = [flat(x) for x in (self.first_vector, self.first_choice, visible, belief)]
        opening = jax.lax.map(lambda task: best(*task), tuple(own)).reshape(
            visible.shape
        )
        if not self.vector.shape[-4]:
            return opening
        now = [
            jnp.take(x, before, axis=x.ndim - back)
            for x, back in ((self.vector, 4), (self.choice, 3))
        ]
        # Task by task: the α-vectors of all episodes would not fit in memory.
        if now[0].ndim == 3 and batch:
            later = jax.lax.map(lambda task: best(*now, *task), tuple(own[2:]))
        else:
            later = jax.lax.map(lambda task: best(*task), (*map(flat, now), *own[2:]))
        return jnp.where(t == 0, opening, later.reshape(visible.shape))

    def first_actions(self) -> Int[Array, "*B X"] | Int[Array, "*B X I"]:
        """Return the first action of each first visible value, and symbol if any."""
        first = self.first_choice
        return first[..., 0] if first.shape[-1] == 1 else first


@register_method(default=True)
@dataclass(frozen=True)
class MixedObservability:
    """Point-based bounds over hidden values, refined until they are close enough.

    Attributes:
        gap: certified gap to reach, relative to the larger bound in absolute value.
        points: largest number of beliefs per stage and visible value.
        atol: certified gap that is always enough, in units of reward.

    """

    gap: float = 0.01
    points: int = 64
    atol: float = 1e-9

    name: ClassVar[str] = "points"
    handles: ClassVar[tuple[type, ...]] = (MOMDP,)

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid gap or number of points."""
        for name in ("gap", "atol"):
            check_tolerance(name, getattr(self, name))
        check_count("points", self.points, 1)

    def solve(self, model: MOMDP, *, horizon: int) -> MOMDPSolution:
        """Solve every task of the batch until its certified gap is small enough.

        Args:
            model: a task or a batch of tasks; validated by `solve`.
            horizon: number of decisions T.

        """
        batch, (root, mass) = model.batch, first_beliefs(model)
        root, mass = (x.reshape(-1, *x.shape[len(batch) :]) for x in (root, mass))
        tasks, visible = mass.shape[:2]
        if model.shared or not batch:
            found = self._solve_together(moves_of(model, horizon=horizon), root, mass)
        else:
            together = max(1, min(tasks, TOGETHER // visible))
            parts = []
            for first in range(0, tasks, together):
                chosen = np.minimum(first + np.arange(together), tasks - 1)
                part = some_tasks(model, chosen)
                moves = moves_of(part, horizon=horizon)
                parts.append(self._solve_together(moves, root[chosen], mass[chosen]))
            found = _joined(parts, tasks)
        if model.shared:
            plans = (jnp.asarray(found.vector[0]), jnp.asarray(found.choice[0]))
        else:
            plans = (shaped(found.vector, batch), shaped(found.choice, batch))
        own = (found.lower, found.upper, found.first_vector, found.first_choice)
        lower, upper, *opening = (shaped(x, batch) for x in own)
        enough = close(found.lower, found.upper, self.gap, self.atol)
        converged = shaped(enough, batch)
        return MOMDPSolution(lower, lower, upper, converged, *plans, *opening)

    def _solve_together(
        self, moves: Moves, root: np.ndarray, mass: np.ndarray
    ) -> "_Found":
        """Solve tasks that share dynamics, or one large model of several tasks.

        Args:
            moves: the dynamics, of S = X or S = B X visible values.
            root: first beliefs [B, X, I, Y].
            mass: their probabilities [B, X, I].

        """
        tasks, visible = mass.shape[:2]
        shared = len(moves.reward) == visible
        order = (1, 0) if shared else (0, 1)
        states = visible if shared else tasks * visible

        def merged(x: np.ndarray) -> np.ndarray:
            swapped = x.transpose(*order, *range(2, x.ndim))
            return swapped.reshape(states, -1, *x.shape[3:])

        def split(x: Any) -> np.ndarray:
            """Return what belongs to first beliefs by task: [B, X, I, …]."""
            first = (visible, tasks) if shared else (tasks, visible)
            array = np.asarray(x)
            array = array.reshape(*first, mass.shape[2], *array.shape[2:])
            return array.transpose(*order, *range(2, array.ndim))

        search = Search(moves, merged(root), merged(mass))
        for points in _sizes(self.points):
            added = search.expand(points)
            if search.stages and not added:
                break
            search.sweep()
            low, high = ((mass * split(x)).sum((1, 2)) for x in search.values())
            lower, upper = widened(search.host, low, high, shared=shared)
            done = close(lower, upper, self.gap, self.atol)
            if done.all():
                break
            if not shared:
                search.finish(np.repeat(done, visible))
        first, *later = search.stages
        # A single decision has no later stages: use an empty axis.
        parts = later or [jax.tree.map(lambda x: x[:, :1], first)]
        vector, choice = (
            np.stack([np.asarray(getattr(each, name)) for each in parts])[: len(later)]
            for name in ("vector", "choice")
        )
        lead = 1 if shared else tasks
        vector, choice = (
            np.moveaxis(x.reshape(len(x), lead, visible, *x.shape[2:]), 0, 1)
            for x in (vector, choice)
        )
        return _Found(
            lower, upper, vector, choice, split(first.vector), split(first.choice)
        )


class _Found(NamedTuple):
    """Bounds and plans of B tasks, as host arrays.

    Attributes:
        lower: certified lower bound.
        upper: certified upper bound.
        vector: α-vectors of later stages; one task if they share their dynamics.
        choice: their first actions.
        first_vector: α-vectors of stage 0.
        first_choice: their first actions.

    """

    lower: Float[np.ndarray, " B"]
    upper: Float[np.ndarray, " B"]
    vector: Float[np.ndarray, "B U X V Y"]
    choice: Int[np.ndarray, "B U X V"]
    first_vector: Float[np.ndarray, "B X I Y"]
    first_choice: Int[np.ndarray, "B X I"]


def _sizes(points: int) -> tuple[int, ...]:
    """Return the beliefs per stage and visible value of each round."""
    sizes = [points]
    while sizes[0] // GROWTH >= COARSEST:
        sizes.insert(0, sizes[0] // GROWTH)
    return tuple(sizes)


def _joined(parts: list[_Found], tasks: int) -> _Found:
    """Join the results of groups of tasks, with copies of the last plan as padding."""
    plans = max(part.choice.shape[3] for part in parts)

    def padded(x: np.ndarray) -> np.ndarray:
        more = np.repeat(x[:, :, :, -1:], plans - x.shape[3], axis=3)
        return np.concatenate([x, more], axis=3)

    wide = [
        part._replace(vector=padded(part.vector), choice=padded(part.choice))
        for part in parts
    ]
    return _Found(*(np.concatenate(x)[:tasks] for x in zip(*wide, strict=True)))
