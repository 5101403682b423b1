"""Episodes in models with mixed observability.

The state (x, y) has the number x Y + y, and the symbol (x, o) the number x O + o.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdm.tasks.momdp import MOMDP, rows_of
from sdm.tasks.policy import draw
from sdm.tasks.worlds import (
    Sizes,
    expected_reward,
    first_seen,
    first_state,
    next_seen,
    next_state,
    over_states,
    sizes_of,
)


@sizes_of.register
def momdp_sizes(world: MOMDP) -> Sizes:
    """Return the numbers of states (x, y), actions and symbols (x, o)."""
    visible, hidden, actions, symbols = world.sizes
    return Sizes(visible * hidden, actions, visible * symbols)


@first_state.register
def _(world: MOMDP, uniform: Any) -> Int[Array, "B N"]:
    flat = world.initial.reshape(len(world.initial), 1, -1)
    return draw(flat, uniform.astype(flat.dtype))


@first_seen.register
def _(world: MOMDP, task: Any, state: Any, uniform: Any) -> Int[Array, "B N"]:
    _, hidden, _, symbols = world.sizes
    x, y = state // hidden, state % hidden
    if world.initial_observation is None:
        return x * symbols
    row = rows_of(world, "initial_observation", task, x, y)
    return x * symbols + draw(row, uniform.astype(row.dtype))


@next_seen.register
def _(
    world: MOMDP, task: Any, action: Any, state: Any, uniform: Any
) -> Int[Array, "B N"]:
    _, hidden, _, symbols = world.sizes
    x, y = state // hidden, state % hidden
    if world.observation is None:
        return x
    row = rows_of(world, "observation", task, action, x, y)
    return x * symbols + draw(row, uniform.astype(row.dtype))


@next_state.register
def _(
    world: MOMDP, task: Any, state: Any, action: Any, uniform: Any
) -> Int[Array, "B N"]:
    hidden = world.sizes[1]
    x, y = state // hidden, state % hidden
    chance = rows_of(world, "transition", task, x, y, action)
    listed = jnp.broadcast_to(
        rows_of(world, "successors", task, x, action), chance.shape
    )
    if world.hidden_transition is None:
        entry = draw(chance, uniform.astype(chance.dtype))
    else:
        after = rows_of(world, "hidden_transition", task, x, y, action)
        joint = (chance[..., None] * after).reshape(*chance.shape[:-1], -1)
        entry = draw(joint, uniform.astype(joint.dtype))
        entry, y = entry // hidden, entry % hidden
    following = jnp.take_along_axis(listed, entry[..., None], axis=-1)[..., 0]
    return following * hidden + y


@expected_reward.register
def _(world: MOMDP, task: Any, state: Any, action: Any) -> Float[Array, "B N"]:
    hidden = world.sizes[1]
    x, y = state // hidden, state % hidden
    paid = rows_of(world, "reward", task, x, y, action)
    if world.admissible is None:
        return paid
    allowed = rows_of(world, "admissible", task, x, action)
    return jnp.where(allowed, paid, jnp.asarray(-jnp.inf, paid.dtype))


@over_states.register
def _(world: MOMDP, table: Any) -> Float[Array, "B T S A"] | None:
    if world.observation is not None:
        return None
    return jnp.repeat(table, world.sizes[1], axis=2)
