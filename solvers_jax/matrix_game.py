"""Zero-sum matrix games, solved exactly by the simplex method.

With payoffs M > 0 to the row player, the columns solve max Σ y, M y ≤ 1, y ≥ 0, whose
dual solution is that of the rows (Dantzig, 1951); the value is 1 / Σ y. A game that
takes too many pivots ends with valid mixtures that are not optimal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PIVOTS = 6  # largest number of pivots, in units of the number of strategies
TOLERANCE = 1e-12  # reduced costs and pivots below it are 0; payoffs lie in [1, 2]


class _Tableau(NamedTuple):
    """Simplex tableau, with the costs in the last row, and its basic variables."""

    entry: Float[Array, "I+1 V+1"]
    basis: Int[Array, " I"]
    pivots: Int[Array, ""]


def matrix_game(
    payoff: Float[Array, "I J"], rows: Bool[Array, " I"], columns: Bool[Array, " J"]
) -> tuple[Float[Array, " I"], Float[Array, " J"]]:
    """Return optimal mixtures of the row player and of the column player.

    Args:
        payoff: what the row player, who maximises, receives.
        rows: which rows exist; the others get weight 0.
        columns: which columns exist.

    """
    count, others = payoff.shape
    exists = rows[:, None] & columns[None, :]
    low = jnp.where(exists, payoff, jnp.inf).min()
    span = jnp.where(exists, payoff, -jnp.inf).max() - low
    scaled = (payoff - low) / jnp.where(span > 0, span, 1) + 1
    # A missing row never binds, and a missing column costs nothing and stays out.
    scaled = jnp.where(rows[:, None], scaled, 0.5)
    kind = payoff.dtype
    cost = jnp.concatenate([-columns.astype(kind), jnp.zeros(count + 1, kind)])
    body = [scaled, jnp.eye(count, dtype=kind), jnp.ones((count, 1), kind)]
    start = _Tableau(
        jnp.concatenate([jnp.concatenate(body, axis=1), cost[None]]),
        jnp.arange(others, others + count, dtype=jnp.int32),
        jnp.int32(0),
    )

    def unfinished(now: _Tableau) -> Array:
        limit = PIVOTS * (count + others)
        return (now.entry[-1, :-1].min() < -TOLERANCE) & (now.pivots < limit)

    end = jax.lax.while_loop(unfinished, _pivot, start)
    basic = jnp.zeros(count + others, kind).at[end.basis].set(end.entry[:-1, -1])
    return (
        _normalised(jnp.where(rows, end.entry[-1, others:-1], 0), rows),
        _normalised(jnp.where(columns, basic[:others], 0), columns),
    )


def _pivot(now: _Tableau) -> _Tableau:
    """Exchange the variable of smallest reduced cost with one of the basis."""
    enter = now.entry[-1, :-1].argmin()
    column = now.entry[:, enter]
    usable = column[:-1] > TOLERANCE
    ratio = now.entry[:-1, -1] / jnp.where(usable, column[:-1], 1)
    leave = jnp.where(usable, ratio, jnp.inf).argmin()
    row = now.entry[leave] / column[leave]
    entry = (now.entry - column[:, None] * row[None]).at[leave].set(row)
    basis = now.basis.at[leave].set(enter.astype(jnp.int32))
    return _Tableau(entry, basis, now.pivots + 1)


def _normalised(weight: Float[Array, " I"], exists: Bool[Array, " I"]) -> Array:
    """Return weights as a distribution; uniform if rounding has left none."""
    weight = jnp.maximum(weight, 0)
    some = weight.sum() > 0
    weight = jnp.where(some, weight, exists.astype(weight.dtype))
    return weight / weight.sum()
