"""Replay episodes through a belief filter, to judge their decisions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from sdm.tasks.belief import Filter
from sdm.tasks.rollout import Trajectory


def replayed(
    judge: Callable[[Int[Array, ""], Any, Int[Array, "B N"]], Array],
    belief: Filter,
    played: Trajectory,
) -> tuple[Any, Any]:
    """Replay episodes of any policy, and judge every decision by what a filter knew.

    Args:
        judge: returns an array [B, N] from a stage, the filter's state, and the actions
            that were taken.
        belief: the filter.
        played: the episodes [B, N, T].

    Returns:
        The arrays [B, N, T], and the filter's state before the last decision.

    """
    seen, done, paid = (
        jnp.moveaxis(x, -1, 0)
        for x in (played.observation, played.action, played.reward)
    )
    state = belief.begin(seen[0])
    first = judge(jnp.int32(0), state, done[0])

    def step(state: Any, now: tuple[Array, ...]) -> tuple[Any, Any]:
        t, symbol, before, reward, action = now
        state = belief.follow(t, state, before, symbol, reward)
        return state, judge(t, state, action)

    stages = jnp.arange(1, len(seen), dtype=jnp.int32)
    later = (stages, seen[1:], done[:-1], paid[:-1], done[1:])
    last, others = jax.lax.scan(step, state, later)
    return jnp.moveaxis(jnp.concatenate([first[None], others]), 0, -1), last
