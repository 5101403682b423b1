r"""Nature's problem for one row: the distribution in a set with the smallest mean.

    min { Σ_n p_n v_n : p in the set of the row }

For intervals and L1 balls a sort solves it exactly (Nilim, El Ghaoui, 2005, *Robust
control of Markov decision processes with uncertain transition matrices*; Wiesemann,
Kuhn, Rustem, 2013). `kl_ball` has the Kullback–Leibler ball. The largest mean is that of
the negative values. The axis of outcomes n is last: all next states, or the successors
in a list with their values gathered. The other axes of `value` can have size 1, so that
rows with common values share one sort.

The sum of a nominal row, which can differ from 1 by rounded digits, is kept.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def interval_rows(
    value: Float[Array, "*#B N"],
    lower: Float[Array, "*B N"],
    upper: Float[Array, "*B N"],
) -> Float[Array, "*B N"]:
    """Return the rows with the smallest mean between `lower` and `upper`.

    What the lower ends leave of 1 goes to the outcomes in order of their value.
    """
    order = jnp.argsort(value, axis=-1)
    width = jnp.take_along_axis(upper - lower, order, axis=-1)
    free = 1 - lower.sum(-1, keepdims=True)
    added = jnp.clip(free - _sum_before(width), 0, width)
    return lower + jnp.take_along_axis(added, jnp.argsort(order, axis=-1), axis=-1)


def l1_rows(
    value: Float[Array, "*#B N"],
    nominal: Float[Array, "*B N"],
    radius: Float[Array, "*B"],
) -> Float[Array, "*B N"]:
    """Return the rows with the smallest mean within an L1 distance of `nominal`.

    Half of the radius moves to the outcome of the smallest value, from the outcomes of
    the largest values.
    """
    order = jnp.argsort(-value, axis=-1)
    row = jnp.take_along_axis(nominal, order, axis=-1)
    room = row[..., :-1].sum(-1)
    moved = jnp.minimum(radius / 2, room)[..., None]
    taken = jnp.clip(moved - _sum_before(row), 0, row)
    kept = (row - taken)[..., :-1]
    last = row[..., -1:] + taken[..., :-1].sum(-1, keepdims=True)
    row = jnp.concatenate([kept, last], axis=-1)
    return jnp.take_along_axis(row, jnp.argsort(order, axis=-1), axis=-1)


def _sum_before(x: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Return the sum of the entries before each."""
    return jnp.cumsum(x, axis=-1) - x
