"""Upper bounds over beliefs: fast informed bound and sawtooth (Hauskrecht, 2000).

For one task at a time, where V is convex; `point_based` states the recursion.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdm.solvers_jax.belief_backup import (
    FAR,
    Plans,
    all_successors,
    by_columns,
)
from sdm.solvers_jax.belief_model import BeliefModel
from sdm.tasks.stages import at_stage, stage_numbers

TINY = 1e-30  # the smallest entry that the choice in single precision distinguishes


class Next(NamedTuple):
    """Inputs of a backup from the next stage."""

    plans: Plans
    upper: Float[Array, " N"]
    corner: Float[Array, " S"]
    informed: Float[Array, "S A"]


def informed_bound(
    model: BeliefModel, horizon: int, *, first: int = 0
) -> Float[Array, "U S A"]:
    """Return the fast informed bound Q_t(s, a) (Hauskrecht, 2000).

    Stage `first` comes first; the entry after the last decision is zero.

    Args:
        model: the task.
        horizon: number of decisions from stage `first`.
        first: the first stage.

    """

    def stage(q: Array, t: Array) -> tuple[Array, Array]:
        def one(p: Array, z: Array) -> Array:
            weighed = z[..., None] * q[None, :, None, :]  # [A, S', O, A']
            return jnp.einsum("sam,amoc->saoc", p, weighed).max(-1).sum(-1)

        now = at_stage(model, t)
        future = jax.vmap(one)(now.transition, now.observation).max(0)
        q = now.reward + now.discount * future
        return q, q

    last = jnp.zeros(model.reward.shape[-2:], model.reward.dtype)
    numbers = stage_numbers(horizon, first=first)
    _, stages = jax.lax.scan(stage, last, numbers, reverse=True)
    return jnp.concatenate([stages, last[None]])


def sawtooth(
    mass: Float[Array, "M S"],
    point: Float[Array, "N S"],
    upper: Float[Array, " N"],
    corner: Float[Array, " S"],
) -> Float[Array, " M"]:
    """Return the upper bound at unnormalised beliefs, from points and corners."""
    drop = jnp.minimum(upper - point @ corner, 0)
    possible = point > 0
    inverse = jnp.where(possible, 1 / jnp.where(possible, point, 1), 0)
    # Single precision, which selects the point, cannot represent smaller entries. Their
    # shares become large, and so never the smallest, which is at most 1.
    small = jnp.where(point > TINY, inverse, FAR).astype(jnp.float32)
    lower = jnp.maximum(drop, -FAR).astype(jnp.float32)
    number = jnp.arange(len(point), dtype=jnp.float32)

    def chosen(some: Float[Array, "S M"]) -> Float[Array, " M"]:
        """Return the points that lower the bounds of beliefs most."""

        # One point at a time for many beliefs, which XLA vectorises on a CPU; the
        # minimum over states as the last axis of all pairs, it does not.
        def better(best: tuple[Array, Array], x: tuple[Array, ...]) -> tuple[Any, None]:
            inverse, drop, at = x
            value = (some * inverse[:, None]).min(0) * drop
            less = value < best[0]
            return (jnp.minimum(value, best[0]), jnp.where(less, at, best[1])), None

        none = jnp.zeros(some.shape[1:], jnp.float32)
        (_, at), _ = jax.lax.scan(better, (none, none), (small, lower, number))
        return at

    narrow = jnp.maximum(mass, 1e5 / FAR).astype(jnp.float32)
    at = by_columns(chosen, narrow).astype(jnp.int32)
    exact = jnp.where(possible[at], mass * inverse[at], FAR).min(-1)
    return mass @ corner + exact * drop[at]


def upper_value(mass: Float[Array, "M S"], after: Next) -> Float[Array, " M"]:
    """Return the smaller of sawtooth and informed bound at unnormalised beliefs."""
    known = (mass @ after.informed).max(-1)
    return jnp.minimum(
        sawtooth(mass, after.plans.point, after.upper, after.corner), known
    )


def upper_action_values(
    model: BeliefModel, belief: Float[Array, "N S"], after: Next
) -> tuple[Float[Array, "N A"], Float[Array, "N K A O"], Float[Array, "N K A O S"]]:
    """Return upper bounds of actions and of their successors, and the successors."""
    reached = all_successors(model, belief)
    bound = upper_value(reached.reshape(-1, belief.shape[-1]), after)
    bound = bound.reshape(reached.shape[:-1])
    best = bound.sum(-1).max(1)
    return belief @ model.reward + model.discount * best, bound, reached
