r"""Point-based bounds for one POMDP with intervals of probabilities.

    V_t(b) = max_a H_t(b,a),   V_T = 0

with the decisions H of `interval_game`. V_t is convex: the maximum of the α-vectors of
plans (Osogami, 2015). So the methods for POMDPs carry over (Krale et al., 2025): plans
backed up at belief points are a lower bound. Bounds backed up at points and at the
corners of the belief simplex, interpolated by `upper_hull`, are an upper bound, limited
by the fast informed bound against nature: the agent knows the state before a decision,
and then acts by the symbol (Hauskrecht, 2000). Under the strategy of nature the
successors of a point are rarely points themselves, so that the sawtooth alone is loose.

The points of stage 0 are the initial beliefs. Every later stage has the initial
beliefs, the corners, and beliefs that greedy decisions reach there under nature's
strategy, with priority to a large product of reach probability and gap.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.belief_backup import Plans
from sdm.solvers_jax.belief_upper import Next
from sdm.solvers_jax.interval_game import Decision, decide
from sdm.solvers_jax.interval_sets import Sets
from sdm.solvers_jax.point_based import add_points
from sdm.solvers_jax.upper_hull import hull_value

OTHER_ACTIONS = 1e-3  # weight of an action that is not greedy for the upper bound
TINY = 1e-30  # avoids a division of zero by zero


class Bounds(eqx.Module):
    """Plans and upper bounds at N points of each of T stages, for one task.

    Attributes:
        point: beliefs: the R initial beliefs, the S corners, then added points.
        reach: approximate probability of reaching them.
        vector: α-vector of the plan made at each point.
        choice: its first action.
        weight: probability of each of K assignments of plans to symbols.
        after: the assignments: points of the next stage.
        upper: upper bound at the points.
        informed: informed bound of each action.

    """

    point: Float[Array, "*B T N S"]
    reach: Float[Array, "*B T N"]
    vector: Float[Array, "*B T N S"]
    choice: Int[Array, "*B T N"]
    weight: Float[Array, "*B T N K"]
    after: Int[Array, "*B T N K O"]
    upper: Float[Array, "*B T N"]
    informed: Float[Array, "*B T S A"]


class Accuracy(eqx.Module):
    """Accuracy of the games and of the interpolation.

    Attributes:
        replies: largest number of replies of each player.
        tolerance: difference of a game's bounds at which to stop.
        largest: bound on the magnitude of values, per unit of the largest reward.

    """

    replies: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    largest: float = eqx.field(static=True)


def start(
    sets: Sets, root: Float[Array, "R S"], *, horizon: int, accuracy: Accuracy
) -> Bounds:
    """Return bounds with the initial beliefs and the corners as points."""
    corners = jnp.eye(root.shape[-1], dtype=root.dtype)
    point = jnp.concatenate([root, corners])
    point = jnp.broadcast_to(point, (horizon, *point.shape))
    return sweep(sets, point, jnp.zeros_like(point[..., 0]), len(root), accuracy)


def sweep(
    sets: Sets,
    point: Float[Array, "T N S"],
    reach: Float[Array, "T N"],
    roots: int,
    accuracy: Accuracy,
) -> Bounds:
    """Back up plans and upper bounds from the last stage to the first."""
    _, count, states = point.shape
    actions = sets.reward.shape[-1]
    kind = point.dtype
    corners = slice(roots, roots + states)
    knowing = jnp.eye(states, dtype=kind)

    def stage(after: Next, here: Array) -> tuple[Next, tuple[Array, ...]]:
        found, above = _decisions(sets, here, after, accuracy)
        best = found.lower.argmax(-1)
        row = jnp.arange(count)
        vector = found.vector[row, best]
        weight = found.weight[row, best]
        plan = jnp.moveaxis(found.after, 0, 2)[row, best]
        informed = _decide(sets, knowing, after.informed.T, accuracy).upper
        upper = jnp.minimum(above.max(-1), (here @ informed).max(-1))
        there = Next(Plans(vector[:, None], here), upper, upper[corners], informed)
        choice = best.astype(jnp.int32)
        return there, (vector, choice, weight, plan, upper, informed)

    end = Next(
        Plans(jnp.zeros((count, 1, states), kind), jnp.zeros((count, states), kind)),
        jnp.zeros(count, kind),
        jnp.zeros(states, kind),
        jnp.zeros((states, actions), kind),
    )
    _, found = jax.lax.scan(stage, end, point, reverse=True)
    return Bounds(point, reach, *found)


def expand(
    sets: Sets, bounds: Bounds, *, new: int, roots: int, accuracy: Accuracy
) -> Bounds:
    """Add `new` points to every stage after the first, and sweep."""
    states = bounds.point.shape[-1]

    def stage(
        now: tuple[Array, Array], later: tuple[Any, ...]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        there, known = Next(*later[:-1]), later[-1]
        point, reach = now
        found, above = _decisions(sets, point, there, accuracy)
        greedy = above == above.max(-1, keepdims=True)
        taste = jnp.where(greedy, 1.0, OTHER_ACTIONS).astype(point.dtype)
        mass = found.reached.sum(-1)
        some = jnp.maximum(mass, TINY)
        share = (reach[:, None] * taste)[..., None] * mass
        high = _upper_value(sets, found.reached.reshape(-1, states), there, accuracy)
        low = (found.reached @ there.plans.vector[:, 0].T).max(-1)
        gap = jnp.maximum((high.reshape(low.shape) - low) / some, 0)
        belief = (found.reached / some[..., None]).reshape(-1, states)
        want = (share * gap).reshape(-1)
        old = there.plans.point
        grown = add_points(old, known, belief, share.reshape(-1), want, new)
        return grown, grown

    corners = slice(roots, roots + states)
    each = (
        Plans(bounds.vector[:, :, None], bounds.point),
        bounds.upper,
        bounds.upper[:, corners],
        bounds.informed,
        bounds.reach,
    )
    # Stage 0: the initial beliefs are reached; padding keeps the number of points.
    root, count = bounds.point[0, :roots], bounds.point.shape[1] + new
    first = jnp.concatenate([bounds.point[0], jnp.repeat(root[:1], new, 0)])
    reach = jnp.zeros(count, first.dtype).at[:roots].set(1 / roots)
    _, (point, weight) = jax.lax.scan(
        stage, (first, reach), jax.tree.map(lambda x: x[1:], each)
    )
    point = jnp.concatenate([first[None], point])
    weight = jnp.concatenate([reach[None], weight])
    return sweep(sets, point, weight, roots, accuracy)


def _upper_value(
    sets: Sets, mass: Float[Array, "M S"], after: Next, accuracy: Accuracy
) -> Float[Array, " M"]:
    """Return the smaller of hull and informed bound at unnormalised beliefs."""
    points = (after.plans.point, after.upper, after.corner)
    largest = jnp.abs(sets.reward).max()
    hull = hull_value(mass, *points, largest=accuracy.largest * largest)
    return jnp.minimum(hull, (mass @ after.informed).max(-1))


def _decide(sets: Sets, belief: Array, vectors: Array, accuracy: Accuracy) -> Decision:
    return decide(
        sets,
        belief,
        vectors,
        replies=accuracy.replies,
        tolerance=accuracy.tolerance,
    )


def _decisions(
    sets: Sets, belief: Float[Array, "N S"], after: Next, accuracy: Accuracy
) -> tuple[Decision, Float[Array, "N A"]]:
    """Return every action at beliefs, and its upper bound under nature's strategy."""
    found = _decide(sets, belief, after.plans.vector[:, 0], accuracy)
    states = belief.shape[-1]
    high = _upper_value(sets, found.reached.reshape(-1, states), after, accuracy)
    future = high.reshape(found.reached.shape[:-1]).sum(-1)
    return found, belief @ sets.reward + sets.discount * future
