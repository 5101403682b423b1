"""Replay episodes through a belief filter, to judge their decisions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from sdm.tasks.belief import Filter
from sdm.tasks.rollout import Trajectory


def judged(
    judge: Callable[[Int[Array, ""], Any, Int[Array, "B N"]], Any],
    belief: Filter,
    played: Trajectory,
) -> Any:
    """Judge every decision in episodes of any policy by what a filter knew.

    Args:
        judge: returns arrays [B, N] from a stage, what the filter knew, and the actions
            that were taken.
        belief: the filter.
        played: the episodes [B, N, T].

    Returns:
        The arrays, [B, N, T].

    """
    seen, done, paid = (
        jnp.moveaxis(x, -1, 0)
        for x in (played.observation, played.action, played.reward)
    )
    state = belief.begin(seen[0])
    first = judge(jnp.int32(0), state.known, done[0])

    def step(state: Any, now: tuple[Array, ...]) -> tuple[Any, Any]:
        t, symbol, before, reward, action = now
        state = belief.follow(t, state, before, symbol, reward)
        return state, judge(t, state.known, action)

    stages = jnp.arange(1, len(seen), dtype=jnp.int32)
    later = (stages, seen[1:], done[:-1], paid[:-1], done[1:])
    _, others = jax.lax.scan(step, state, later)
    return jnp.moveaxis(jnp.concatenate([first[None], others]), 0, -1)
