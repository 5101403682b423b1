r"""Nature's problem for one row: the distribution in a set with the smallest mean.

    min { Σ_n p_n v_n : p in the set of the row }

For intervals and L1 balls a sort solves it exactly (Nilim, El Ghaoui, 2005, *Robust
control of Markov decision processes with uncertain transition matrices*; Wiesemann,
Kuhn, Rustem, 2013). `kl_ball` has the Kullback–Leibler ball. The largest mean is that
of the negative values. The axis of outcomes n is last: all next states, or the
successors in a list with their values gathered. The other axes of `value` can have size
1, so that rows with common values share one sort.

The sum of a nominal row, which can differ from 1 by rounded digits, is kept.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to this many outcomes, comparing all pairs is faster on a CPU than a sort.
FEW_OUTCOMES = 32


def interval_rows(
    value: Float[Array, "*#B N"],
    lower: Float[Array, "*#B N"],
    upper: Float[Array, "*#B N"],
) -> Float[Array, "*B N"]:
    """Return the rows with the smallest mean between `lower` and `upper`.

    What the lower ends leave of 1 goes to the outcomes in order of their value.
    """
    width = upper - lower
    free = 1 - lower.sum(-1, keepdims=True)
    return lower + jnp.clip(free - _sum_before(value, width), 0, width)


def l1_rows(
    value: Float[Array, "*#B N"],
    nominal: Float[Array, "*#B N"],
    radius: Float[Array, "*#B"],
) -> Float[Array, "*B N"]:
    """Return the rows with the smallest mean within an L1 distance of `nominal`.

    Half of the radius moves to the outcome of the smallest value, from the outcomes of
    the largest values.
    """
    first = _sum_before(value, jnp.ones_like(nominal)) == 0  # one outcome of each row
    room = jnp.where(first, 0, nominal).sum(-1, keepdims=True)
    moved = jnp.minimum(radius[..., None] / 2, room)
    below = _sum_before(value, nominal)
    above = nominal.sum(-1, keepdims=True) - below - nominal
    taken = jnp.clip(moved - above, 0, jnp.where(first, 0, nominal))
    return nominal - taken + jnp.where(first, moved, 0)


def _sum_before(
    value: Float[Array, "*#B N"], x: Float[Array, "*#B N"]
) -> Float[Array, "*B N"]:
    """Return the sum of the entries of `x` before each in order of `value`.

    Equal values are in order of their index.
    """
    outcomes = x.shape[-1]
    if outcomes <= FEW_OUTCOMES:
        index = jnp.arange(outcomes).reshape(*[1] * (value.ndim - 1), outcomes)
        this, other = value[..., :, None], value[..., None, :]
        tie = (other == this) & (index[..., None, :] < index[..., :, None])
        return jnp.where((other < this) | tie, x[..., None, :], 0).sum(-1)
    order = jnp.argsort(value, axis=-1)
    sorted_x = jnp.take_along_axis(x, order, axis=-1)
    before = jnp.cumsum(sorted_x, axis=-1) - sorted_x
    return jnp.take_along_axis(before, jnp.argsort(order, axis=-1), axis=-1)
