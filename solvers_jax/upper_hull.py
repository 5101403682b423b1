r"""Upper bounds between belief points by linear programming, for one task.

A convex V with V(b_i) ≤ U_i and V(e_s) ≤ C_s at the corners is at most

    min { Σ_i λ_i U_i + Σ_s μ_s C_s : Σ_i λ_i b_i + μ = b, λ ≥ 0, μ ≥ 0 }

The simplex method starts with the corners as its basis. Every basis gives a valid
bound; the best single pivot is the sawtooth (Hauskrecht, 2000), and more pivots
interpolate between several points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PIVOTS = 8  # largest number of pivots
TOLERANCE = 1e-10  # reduced costs below it count as zero
SMALLEST = 1e-7  # pivot entries below it would lose digits


class _Basis(NamedTuple):
    """Bases of M linear programmes: points, inverse matrix, values and weights."""

    point: Float[Array, "M S S"]
    inverse: Float[Array, "M S S"]
    value: Float[Array, "M S"]
    weight: Float[Array, "M S"]
    done: Bool[Array, " M"]
    pivots: Array


def hull_value(
    mass: Float[Array, "M S"],
    point: Float[Array, "N S"],
    upper: Float[Array, " N"],
    corner: Float[Array, " S"],
    *,
    largest: float | Float[Array, ""],
) -> Float[Array, " M"]:
    """Return an upper bound at unnormalised beliefs, from points and corners.

    Args:
        mass: unnormalised beliefs; the bound has the same scale.
        point: beliefs with known bounds.
        upper: the bounds at the points.
        corner: bounds at the corners of the simplex.
        largest: bound on the magnitude of V; V changes by at most this times the L1
            distance of beliefs, which bounds the effect of rounding in the pivots.

    """
    count, states = mass.shape
    kind = mass.dtype

    def pivot(now: _Basis) -> _Basis:
        price = jnp.einsum("ms,mst->mt", now.value, now.inverse)
        reduced = upper[None] - price @ point.T
        enter = reduced.argmin(-1)
        gain = jnp.take_along_axis(reduced, enter[:, None], axis=-1)[:, 0]
        column = jnp.einsum("mst,mt->ms", now.inverse, point[enter])
        usable = column > SMALLEST
        ratio = jnp.where(usable, now.weight / jnp.where(usable, column, 1), jnp.inf)
        leave = ratio.argmin(-1)
        step = jnp.take_along_axis(ratio, leave[:, None], axis=-1)
        done = now.done | (gain >= -TOLERANCE) | ~usable.any(-1)
        out = jax.nn.one_hot(leave, states, dtype=kind)
        size = jnp.where(done, 1, (column * out).sum(-1))[:, None]
        row = jnp.einsum("ms,mst->mt", out, now.inverse) / size
        inverse = now.inverse - (column - out)[:, :, None] * row[:, None, :]
        # The entering row becomes `row`: column - out has column_leave - 1 there.
        weight = jnp.where(out > 0, step, now.weight - step * column)
        value = jnp.where(out > 0, upper[enter][:, None], now.value)
        keep = done[:, None]
        there = jnp.where(out[..., None] > 0, point[enter][:, None], now.point)
        return _Basis(
            jnp.where(keep[..., None], now.point, there),
            jnp.where(keep[..., None], now.inverse, inverse),
            jnp.where(keep, now.value, value),
            jnp.where(keep, now.weight, jnp.maximum(weight, 0)),
            done,
            now.pivots + 1,
        )

    corners = jnp.broadcast_to(jnp.eye(states, dtype=kind), (count, states, states))
    start = _Basis(
        corners,
        corners,
        jnp.broadcast_to(corner, mass.shape),
        mass,
        jnp.zeros(count, bool),
        jnp.int32(0),
    )

    def unfinished(now: _Basis) -> Array:
        return ~now.done.all() & (now.pivots < PIVOTS)

    end = jax.lax.while_loop(unfinished, pivot, start)
    error = jnp.abs(mass - jnp.einsum("ms,mst->mt", end.weight, end.point)).sum(-1)
    bound = (end.weight * end.value).sum(-1) + largest * error
    return jnp.minimum(bound, mass @ corner)
